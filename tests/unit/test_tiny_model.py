"""The model that other tests build: its weights hang on the seed, its tokenizer takes any text."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tests.tiny_model import build_tiny_model


@pytest.mark.parametrize("chat", [True, False])
def test_the_tiny_model_is_the_same_for_the_same_seed(tmp_path: Path, chat: bool) -> None:
    one, two, other = (
        build_tiny_model(tmp_path / str(i), seed=seed, chat=chat) for i, seed in enumerate((0, 0, 1))
    )
    weights = [(folder / "model.safetensors").read_bytes() for folder in (one, two, other)]
    assert weights[0] == weights[1] != weights[2]
    tokenizer = AutoTokenizer.from_pretrained(one)
    assert bool(tokenizer.chat_template) is chat
    assert tokenizer.decode(tokenizer("Ünïcode 漢字 🙂\n\ttext")["input_ids"]) == "Ünïcode 漢字 🙂\n\ttext"
    assert None not in (tokenizer.pad_token_id, tokenizer.eos_token_id)
