"""Pairs that a tiny model can learn to tell apart, and the raw reward of one answer computed the long way."""

from pathlib import Path
from typing import Any

from tasks.core.examples import write_rows
from tasks.core.generators.base import Message
from tasks.core.models import load_tokenizer, render
from tasks.core.references import ModelRef
from tasks.core.stage import Report
from tasks.reward_model.config import RewardTrainingConfig
from tasks.reward_model.pairs import Preference, make_preference
from tasks.reward_model.stage import RewardTrainingInputs, RewardTrainingResult, run

QUICK = {"max_steps": 3, "batch_size": 4, "learning_rate": 0.01, "warmup": 0.0, "resamples": 100}
PLACES = ("Berlin", "Paris", "the kitchen", "the capital", "a cold town", "my favourite city", "France")
KIND = ("you are very welcome", "here is what you need", "it will be sunny")
RUDE = ("go away now", "I do not care at all", "find it out yourself")


def ask(text: str) -> list[Message]:
    """A conversation of one turn."""
    return [{"role": "user", "content": text}]


PAIRS = [
    make_preference(
        ask(f"What is number {number} in {place}?" + " Tell me, please." * (number % 3)),
        f"{KIND[number % 3]}, {place}",
        f"{RUDE[(number + at) % 3]}, {place}",
    )
    for number in range(6)
    for at, place in enumerate(PLACES)
]
TRAIN, TEST = PAIRS[:30], PAIRS[30:]


def train_reward(
    folder: Path,
    model: ModelRef,
    train: list[Preference] = TRAIN,
    test: list[Preference] | None = None,
    *,
    report: Report = lambda event: None,
    **changes: Any,
) -> RewardTrainingResult:
    """The stage's result, its job in `folder`."""
    inputs = RewardTrainingInputs(
        model=model,
        train=write_rows(folder / "train.jsonl", train),
        test=write_rows(folder / "test.jsonl", test) if test else None,
    )
    return run(RewardTrainingConfig(**QUICK | changes), inputs, folder / "out", report)


def sequence(ref: ModelRef, prompt: list[Message], answer: str) -> list[int]:
    """The tokens whose last one bears the reward."""
    tokenizer = load_tokenizer(ref)
    return [
        *render(tokenizer, prompt),
        *tokenizer(answer, add_special_tokens=False)["input_ids"],
        tokenizer.eos_token_id,
    ]


def raw_reward(network: Any, ids: list[int]) -> float:
    """The reward of one sequence from a classifier of transformers, alone and without padding: at its last token."""
    import torch

    network.eval()
    network.config.pad_token_id = None
    with torch.no_grad():
        return float(network(input_ids=torch.tensor([ids])).logits[0, 0])
