"""Stage: which rows the student fails, and so which the teacher writes from.

A student that has memorised its seed rows is never wrong on them, and the published loop stands still then; besides
the published `train` there are two ways to look behind what it memorised.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from tasks.core.config import Config
from tasks.core.examples import Example, read_examples, read_records, write_rows
from tasks.core.references import DatasetRef
from tasks.core.stage import Report, Stage


class FailuresConfig(Config):
    """Which rows count as failures."""

    by: Literal["train", "folds", "margin"] = "train"
    """`train`: rows the student answers wrong (published). `folds`: rows that a student trained without them
    answers wrong. `margin`: the rows whose right answer it finds least likely."""
    folds: int = Field(3, ge=2, le=20)
    """Students per iteration for `folds`, each trained without one part of the seed rows."""
    share: float = Field(0.5, gt=0.0, le=1.0)
    """Share of the rows taken by `margin`."""
    source: Literal["seed_only", "seed_and_synthetic"] = "seed_only"
    """Write from failed seed rows alone (published), or from failed synthetic rows as well."""
    target: Literal["failures", "untargeted"] = "failures"
    """`untargeted` takes as many seed rows at random instead: the control that shows what targeting brings."""
    seed: int = Field(0, ge=0, le=2**31)
    """Seed of the folds and of the untargeted choice."""


class FailuresInputs(BaseModel):
    """The rows that may be augmented and what the student answered to them."""

    train: DatasetRef
    predictions: list[DatasetRef]
    step: int


class FailuresResult(BaseModel):
    """The chosen rows."""

    failures: DatasetRef
    wrong: int
    """Rows answered wrong among those that may be augmented."""


def run(config: FailuresConfig, inputs: FailuresInputs, out: Path, report: Report) -> FailuresResult:
    """Choose the failed rows, in the order of the training data."""
    eligible = [
        row
        for row in read_examples(inputs.train)
        if row.origin == "seed" or config.source == "seed_and_synthetic"
    ]
    answers = {record["id"]: record for ref in inputs.predictions for record in read_records(ref)}
    judged = [row for row in eligible if row.id in answers]
    wrong = [row for row in judged if answers[row.id]["value"] < 1]
    chosen = wrong
    if config.by == "margin":
        logprobs = {row.id: answers[row.id]["logprob"] for row in judged}
        chosen = least_likely(judged, logprobs, config.share)
    if config.target == "untargeted":
        seeds = [row for row in eligible if row.origin == "seed"]
        picked = random.Random(f"{config.seed} {inputs.step}").sample(
            range(len(seeds)), min(len(chosen), len(seeds))
        )
        chosen = [seeds[index] for index in sorted(picked)]
    return FailuresResult(failures=write_rows(out / "failures.jsonl", chosen), wrong=len(wrong))


def least_likely(rows: Sequence[Example], logprobs: dict[str, float | None], share: float) -> list[Example]:
    """The `share` of the rows (at least one) with the lowest log-probability of the right answer, in order; not those
    without one, which are too long for the student."""
    known = {row.id: value for row in rows if (value := logprobs[row.id]) is not None}
    count = max(1, round(share * len(known))) if known else 0
    lowest = set(sorted(known, key=lambda row: (known[row], row))[:count])
    return [row for row in rows if row.id in lowest]


STAGE = Stage("failures", run, FailuresConfig, FailuresInputs, FailuresResult)


class FoldsInputs(BaseModel):
    """The training data of an iteration."""

    train: DatasetRef


class Fold(BaseModel):
    """One fold: what its student trains on, and the seed rows it is judged on."""

    train: DatasetRef
    held_out: DatasetRef


class FoldsResult(BaseModel):
    """All folds; every seed row is held out in exactly one."""

    folds: list[Fold]


def split_folds(rows: Sequence[Example], folds: int, seed: int) -> list[tuple[list[Example], list[Example]]]:
    """(train, held out) per fold. A fold trains on no held-out row and on no synthetic row that stems from one.

    Seed rows are dealt class by class, so that folds are stratified; with fewer seed rows than folds there are fewer.
    """
    seeds = [row for row in rows if row.origin == "seed"]
    order = sorted(seeds, key=lambda row: (row.target, random.Random(f"{seed} {row.id}").random()))
    fold_of = {row.id: index % folds for index, row in enumerate(order)}
    result = []
    for fold in range(min(folds, len(seeds))):
        held_out = [row for row in seeds if fold_of[row.id] == fold]
        train = [row for row in rows if fold_of[row.root or row.id] != fold]
        if held_out and train:
            result.append((train, held_out))
    return result


def run_folds(config: FailuresConfig, inputs: FoldsInputs, out: Path, report: Report) -> FoldsResult:
    """Write the folds' data sets."""
    folds = [
        Fold(
            train=write_rows(out / f"fold-{number}" / "train.jsonl", train),
            held_out=write_rows(out / f"fold-{number}" / "held-out.jsonl", held_out),
        )
        for number, (train, held_out) in enumerate(
            split_folds(read_examples(inputs.train), config.folds, config.seed), start=1
        )
    ]
    return FoldsResult(folds=folds)


FOLDS = Stage("folds", run_folds, FailuresConfig, FoldsInputs, FoldsResult)
