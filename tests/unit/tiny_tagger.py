"""A token classification model that takes the words Vaskel and Merrowick for places."""

from pathlib import Path

NAMES = ("vaskel", "merrowick")


def build_tagger(folder: Path) -> Path:
    """Write it to `folder`: a Bert of one layer that adds nothing, so that the word alone decides."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(("[PAD]", "[UNK]", *NAMES))}
    tokens = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokens.normalizer = normalizers.Lowercase()
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="[PAD]", unk_token="[UNK]")
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=4,
        max_position_embeddings=40,
        id2label={0: "O", 1: "B-LOC"},
        label2id={"O": 0, "B-LOC": 1},
    )
    model = BertForTokenClassification(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "LayerNorm.weight" not in name:
                weight.zero_()
        model.bert.embeddings.word_embeddings.weight[2:, 0] = 1.0
        model.bert.embeddings.word_embeddings.weight[:2, 1] = 1.0
        model.classifier.weight[:, :2] = torch.tensor([[-9.0, 9.0], [9.0, -9.0]])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
