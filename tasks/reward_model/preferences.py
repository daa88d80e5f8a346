"""Stage: read preference pairs, check every one, hold some out."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from tasks.core.errors import UserError
from tasks.core.examples import write_rows
from tasks.core.references import DatasetRef
from tasks.core.stage import Report, Stage
from tasks.data.faults import refuse
from tasks.reward_model.config import PreferenceConfig
from tasks.reward_model.pairs import Preference, in_seeded_order, seeded
from tasks.reward_model.reading import read_pairs


class PreferenceInputs(BaseModel):
    """What the addresses hold, independent of row order and file format."""

    train: str
    test: str


class PreparedPreferences(BaseModel):
    """The pairs a reward model learns from and is tested on, and what was left out."""

    train: DatasetRef
    test: DatasetRef | None
    """None when nothing is held out."""
    duplicates: int
    """Rows that stand before, word for word."""
    contradictory: int
    """Rows that prefer A to B where another one prefers B to A; both are left out."""
    faulty: int
    """Rows that are no pair (`faulty: drop`)."""
    too_long: int
    """Pairs whose prompt is longer than `longest_prompt`."""
    shared: int
    """Training pairs left out because `test` has their prompt."""

    def cautions(self) -> list[str]:
        """What a reader of the results should know."""
        found = {
            "no pair (empty, equal or missing sides)": self.faulty,
            "with a prompt that is too long": self.too_long,
            "contradicted by another row": self.contradictory,
            "repetitions": self.duplicates,
            "of a prompt that is tested on": self.shared,
        }
        counts = ", ".join(f"{count:,} {words}" for words, count in found.items() if count)
        return [f"Preference rows that were left out: {counts}."] if counts else []


class Selection(NamedTuple):
    """The pairs that are taken, and how many rows were not, by reason."""

    train: list[Preference]
    test: list[Preference]
    left_out: Counter[str]


def prepare(config: PreferenceConfig, out: Path) -> PreparedPreferences:
    """Read, check and split the pairs; write train.jsonl and, if pairs are held out, test.jsonl.

    The same content gives the same files in whatever order the rows come. Raises UserError for everything a user can
    mend in data or configuration.
    """
    train, test, left_out = select(config)
    return PreparedPreferences(
        train=write_rows(out / "train.jsonl", train),
        test=write_rows(out / "test.jsonl", test) if test else None,
        duplicates=left_out["duplicate"],
        contradictory=left_out["contradictory"],
        faulty=left_out["faulty"],
        too_long=left_out["too long"],
        shared=left_out["shared"],
    )


def check(config: PreferenceConfig) -> None:
    """Raise UserError for all that `prepare` would refuse, writing nothing."""
    select(config)


def select(config: PreferenceConfig) -> Selection:
    """The pairs `prepare` writes. A prompt that is tested on is never learnt from."""
    left_out: Counter[str] = Counter()
    pool = _consistent(_sound(config, "train", left_out), left_out)
    if config.test:
        held_out = _consistent(_sound(config, "test", left_out), left_out)
        tested = {_prompt(pair) for pair in held_out}
        train = [pair for pair in pool if _prompt(pair) not in tested]
        left_out["shared"] = len(pool) - len(train)
    else:
        train, held_out = _hold_out(config, pool)
    if not train:
        raise UserError(
            "no pair is left to learn from",
            field="preferences.train",
            mend="give pairs of different answers to prompts that preferences.test has not, no longer than "
            "preferences.longest_prompt; of answers with scores an input needs two with different ones",
        )
    if config.test and not held_out:
        raise UserError(
            "no pair is left to test on", field="preferences.test", mend="give other pairs, or leave it empty"
        )
    return Selection(
        in_seeded_order(train, config.seed)[: config.rows or None],
        in_seeded_order(held_out, config.seed)[: config.test_rows or None],
        left_out,
    )


def _sound(config: PreferenceConfig, split: str, left_out: Counter[str]) -> list[Preference]:
    read = read_pairs(config, split)
    if config.faulty == "refuse":
        refuse(
            read.faults,
            field=f"preferences.{split}",
            mend="mend or remove these rows, or leave them out with --preferences.faulty=drop",
        )
    left_out["faulty"] += len(read.faults)
    longest = config.longest_prompt
    short = [pair for pair in read.pairs if not longest or _letters(pair) <= longest]
    left_out["too long"] += len(read.pairs) - len(short)
    return short


def _letters(pair: Preference) -> int:
    return sum(len(message["content"]) for message in pair.prompt)


def _consistent(pairs: Sequence[Preference], left_out: Counter[str]) -> list[Preference]:
    """Every pair once, and none whose two sides stand in both orders."""
    unique = {pair.id: pair for pair in pairs}
    left_out["duplicate"] += len(pairs) - len(unique)
    orders = Counter((_prompt(pair), *sorted((pair.chosen, pair.rejected))) for pair in unique.values())
    kept = [
        pair for pair in unique.values() if orders[_prompt(pair), *sorted((pair.chosen, pair.rejected))] == 1
    ]
    left_out["contradictory"] += len(unique) - len(kept)
    return kept


def _hold_out(
    config: PreferenceConfig, pool: Sequence[Preference]
) -> tuple[list[Preference], list[Preference]]:
    """Whole prompts are held out, in an order that the seed decides, until their pairs are as many as wanted."""
    if not config.test_fraction:
        return list(pool), []
    by_prompt: dict[str, list[Preference]] = {}
    for pair in pool:
        by_prompt.setdefault(_prompt(pair), []).append(pair)
    wanted = round(config.test_fraction * len(pool))
    train: list[Preference] = []
    test: list[Preference] = []
    for prompt in sorted(by_prompt, key=lambda prompt: seeded(config.seed, prompt)):
        (test if len(test) < wanted else train).extend(by_prompt[prompt])
    if pool and not (train and test):
        raise UserError(
            f"{config.test_fraction} of {len(pool)} pairs, whose prompts are {len(by_prompt)}, leaves training or "
            "test without pairs",
            field="preferences.test_fraction",
            mend="give more pairs, another fraction, or 0 to hold none out",
        )
    return train, test


def _prompt(pair: Preference) -> str:
    return json.dumps(pair.prompt)


def inputs(config: PreferenceConfig) -> PreferenceInputs:
    """What the stage's cache key depends on beside its configuration. Raises UserError as reading does."""

    def content(split: str) -> str:
        if not getattr(config, split):
            return ""
        read = read_pairs(config, split)
        ids = sorted(pair.id for pair in read.pairs)
        return hashlib.sha256(json.dumps([ids, len(read.faults)]).encode()).hexdigest()

    return PreferenceInputs(train=content("train"), test=content("test"))


def run(config: PreferenceConfig, inputs: PreferenceInputs, out: Path, report: Report) -> PreparedPreferences:
    """`prepare` as a stage."""
    return prepare(config, out)


STAGE = Stage("preferences", run, PreferenceConfig, PreferenceInputs, PreparedPreferences)
