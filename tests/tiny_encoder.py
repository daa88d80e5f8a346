"""Encoders for tests: random ones of some thousand parameters, with tokenizers as BERT's and XLM-R's."""

import re
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
    spread: float = 0.5,
    seed: int = 0,
) -> Path:
    """Write weights and tokenizer to `folder` and return it; with `head` it is a compressor that has learned nothing.

    It reads `positions` tokens, special ones included. `spread` is the deviation of its weights: with the usual 0.02
    all words are about as likely as one another, with much more it learns badly.
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
        "initializer_range": spread,
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
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]"}
    letters = sorted(set("".join(TEXTS).lower()) - set(" \n"))
    words = sorted({word for text in TEXTS for word in re.findall(r"\w+", text.lower())})
    pieces = dict.fromkeys([*names.values(), *letters, *(f"##{letter}" for letter in letters), *words])
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return backend, {f"{name}_token": token for name, token in names.items()}


def _xlm_roberta() -> tuple[Any, dict[str, str]]:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    names = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>"}
    letters = sorted(set("".join(TEXTS)) - set(" \n"))
    words = sorted({f"▁{word}" for text in TEXTS for word in re.findall(r"\w+", text)})
    pieces = dict.fromkeys([*names.values(), "▁", *letters, *words])
    scores = [(piece, -2.0 if len(piece) > 1 else -5.0) for piece in pieces]
    backend = Tokenizer(models.Unigram(scores, unk_id=list(pieces).index("<unk>")))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    ends = [(name, list(pieces).index(name)) for name in ("<s>", "</s>")]
    backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    special = {f"{name}_token": token for name, token in names.items()}
    return backend, special | {"cls_token": "<s>", "sep_token": "</s>"}
