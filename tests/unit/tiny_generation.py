"""A tiny model to generate with, prompts of many lengths, and what transformers itself answers to them."""

import itertools
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasks.core.generators.base import Message
from tasks.core.generators.local import TransformersGenerator
from tasks.core.models import render
from tests.tiny_model import build_tiny_model

CONTEXT = 256
TEXT = "play some music by Anna in the kitchen and find out what the weather will be like tomorrow"
WORDS = TEXT.split()


def tiny_network(folder: Path) -> SimpleNamespace:
    """Model, tokenizer, and how a conversation becomes token ids."""
    build_tiny_model(folder, context=CONTEXT)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return SimpleNamespace(
        model=AutoModelForCausalLM.from_pretrained(folder).eval(),
        tokenizer=tokenizer,
        encode=partial(render, tokenizer),
    )


def prompt(text: str, system: str = "Classify the sentence.") -> list[Message]:
    """A conversation: the system's instruction, which prompts share, and one turn of the user."""
    return [{"role": "system", "content": system}, {"role": "user", "content": text}]


def prompts_of_many_lengths(count: int = 13) -> list[list[Message]]:
    """Conversations of 1 to 23 words each, in no order of length."""
    return [
        prompt(" ".join(itertools.islice(itertools.cycle(WORDS), i, i + 1 + 7 * i % 23)))
        for i in range(count)
    ]


def generator(tiny: SimpleNamespace, **limits: int) -> TransformersGenerator:
    """The engine under test."""
    return TransformersGenerator(tiny.model, tiny.encode, tiny.tokenizer, **limits)


def reference(
    tiny: SimpleNamespace, messages: list[Message], new: int, eos: list[int] | None = None
) -> list[int]:
    """The new tokens of transformers' own greedy generate for one prompt."""
    ids = torch.tensor([tiny.encode(messages)])
    out = tiny.model.generate(
        ids, max_new_tokens=new, do_sample=False, eos_token_id=eos or tiny.tokenizer.eos_token_id
    )
    return out[0, ids.shape[1] :].tolist()


def reference_text(tiny: SimpleNamespace, tokens: list[int]) -> str:
    """The text of a reference's tokens."""
    return tiny.tokenizer.decode(tokens, skip_special_tokens=True)


def end_early(tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """End-of-sequence ids with which the prompts of many lengths end at different steps, some never."""
    plain = [reference(tiny, messages, 12) for messages in prompts_of_many_lengths()]
    seen = Counter(token for tokens in plain for token in set(tokens[:8]))
    often = next(token for token, count in seen.most_common() if count < len(plain))
    ends = [tiny.tokenizer.eos_token_id, often]
    monkeypatch.setattr(tiny.model.generation_config, "eos_token_id", ends)
    return ends
