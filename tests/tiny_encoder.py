"""Encoders for tests: random ones of some thousand parameters, with tokenizers as BERT's and XLM-R's."""

from pathlib import Path
from typing import Any, Literal

TEXTS = (
    "The library opens at nine on weekdays, but not on Sundays. You may return 3 books then!",
    "Nothing was said about the new reading room; please ask Ms Okafor, who will know.",
    "def add(a, b):\n    return a + b  # two numbers\n",
)


def build_tiny_encoder(
    folder: Path,
    kind: Literal["bert", "xlm-roberta"] = "bert",
    *,
    positions: int = 64,
    head: bool = True,
    seed: int = 0,
) -> Path:
    """Write weights and tokenizer to `folder` and return it; with `head` it is a compressor that has learned nothing.

    It reads `positions` tokens, special ones included.
    """
    import torch
    from transformers import (
        AutoModelForTokenClassification,
        BertConfig,
        BertModel,
        PreTrainedTokenizerFast,
        XLMRobertaConfig,
    )

    backend, special = _bert() if kind == "bert" else _xlm_roberta()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "initializer_range": 0.5,  # with the usual 0.02 all words are as likely as one another
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": tokenizer.pad_token_id,
        "num_labels": 2,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "bert":
            config: Any = BertConfig(max_position_embeddings=positions, **sizes)
        else:  # the positions up to that of padding stand for nothing
            behind = tokenizer.pad_token_id + 1
            config = XLMRobertaConfig(max_position_embeddings=positions + behind, **sizes)
        model = AutoModelForTokenClassification.from_config(config) if head else BertModel(config)
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _bert() -> tuple[Any, dict[str, str]]:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]"}
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=200, special_tokens=list(names.values()), show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    ends = [(name, backend.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return backend, {f"{name}_token": token for name, token in names.items()}


def _xlm_roberta() -> tuple[Any, dict[str, str]]:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    names = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>"}
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=list(names.values()), unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    ends = [(name, backend.token_to_id(name)) for name in ("<s>", "</s>")]
    backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    return backend, {f"{name}_token": token for name, token in names.items()} | {
        "cls_token": "<s>",
        "sep_token": "</s>",
    }
