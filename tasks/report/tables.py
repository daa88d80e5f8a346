"""The tables of a report: iterations, classes, the filter's counts."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.evaluate import ClassRow, SplitResult
from tasks.report.records import IterationRecord

Row = dict[str, float | int | None]
"""A row of the iteration table."""

FIGURES = {
    "train_steps": "train/steps",
    "train_loss": "train/loss",
    "wrong": "data/wrong",
    "generated": "data/generated",
    "kept": "data/kept",
    "shortfall": "data/shortfall",
}
"""Columns of the iteration table that stand among an iteration's metrics; one that is missing stays empty."""

REWARDS = {
    "reward_mean": "reward/mean",
    "reward_validation": "reward/validation",
    "reward_test": "reward/test",
}
"""Further columns, each only where an iteration has the metric: of all samples, and of answers to held-out rows."""

_HEADINGS = {
    "exact": "Right in full",
    "train_rows": "Trained on",
    "train_steps": "Steps",
    "train_loss": "Loss",
    "wrong": "Wrong",
    "generated": "Generated",
    "kept": "Kept",
    "shortfall": "Missing",
}
_SAMPLE_HEADINGS = {
    "exact": "Right in full",
    "train_rows": "Trained on",
    "train_steps": "Steps",
    "train_loss": "Loss",
    "wrong": "Nothing kept",
    "generated": "Drawn",
    "kept": "Kept",
    "reward_mean": "Reward, samples",
    "reward_validation": "Reward, validation",
    "reward_test": "Reward, test",
}
_POLICY_HEADINGS = {
    "exact": "Right in full",
    "train_rows": "Prompts",
    "train_steps": "Steps",
    "reward_test": "Reward, test",
}

REASONS = {
    "malformed": "the problem cannot use the row",
    "length": "too short or too long",
    "label": "none of the labels",
    "contamination": "too close to a test row",
    "exact_duplicate": "equal to a training row but for case, punctuation and spaces",
    "near_duplicate": "too close to a training row of any iteration",
    "rouge": "too close to a failed row or to a row kept in this iteration",
    "relabelled": "its teacher, asked anew, gives it another label",
    "judged": "the judges find the answer of other rows of its class likelier",
    "surplus": "passed, but its failed row had all the rows it needs",
}
"""Why a row was not kept, in the order in which the rules are applied."""


def iteration_rows(records: Sequence[IterationRecord]) -> list[Row]:
    """The iterations in figures: rows trained on, FIGURES, test accuracy (0 to 1) and its interval, REWARDS; also the
    share that is right in full, where the accuracy counts rows in part."""
    partial = any(record.splits["test"].exact != record.splits["test"].accuracy for record in records)
    rewards = {
        column: metric
        for column, metric in REWARDS.items()
        if any(metric in record.metrics for record in records)
    }
    return [
        {"iteration": record.number, "train_rows": record.trained_on.rows if record.trained_on else 0}
        | {column: _whole(record.metrics.get(metric)) for column, metric in FIGURES.items()}
        | {"accuracy": test.accuracy, "accuracy_low": test.low, "accuracy_high": test.high}
        | ({"exact": test.exact} if partial else {})
        | {column: record.metrics.get(metric) for column, metric in rewards.items()}
        for record in records
        for test in (record.splits["test"],)
    ]


def headings(rows: Sequence[Row], *, sampled: bool, reinforced: bool = False) -> dict[str, str]:
    """The columns of the iteration table beside the accuracy, each with what the page calls it. `sampled`: the loop
    trained on its policy's own samples; `reinforced`: by reinforcement learning."""
    names = _POLICY_HEADINGS if reinforced else _SAMPLE_HEADINGS if sampled else _HEADINGS
    return {column: words for column, words in names.items() if column in rows[0]}


def _whole(value: float | None) -> float | int | None:
    """Counts are recorded as floats, as MLflow wants them; a table says 3, not 3.0."""
    return int(value) if value is not None and value.is_integer() else value


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write a table; a missing figure is an empty cell, and a table without rows an empty file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
        if rows:
            writer.writeheader()
        writer.writerows(rows)


def readable(rows: Sequence[Row], *, sampled: bool = False, reinforced: bool = False) -> list[dict[str, Any]]:
    """The iteration table in words, for a terminal and for Prefect."""
    names = {"wrong": "wrong", "generated": "generated", "kept": "kept"}
    if reinforced:
        names = {"train_steps": "steps", "reward_test": "test reward"}
    elif sampled:
        names = {"wrong": "nothing kept", "generated": "drawn", "kept": "kept", "reward_mean": "mean reward"}
    return [
        {
            "iteration": row["iteration"],
            "trained on": row["train_rows"],
            **{words: _or_dash(row[name]) for name, words in names.items() if name in row},
            "test accuracy": _with_interval(row),
            **({"right in full": f"{row['exact']:.1%}"} if "exact" in row else {}),
        }
        for row in rows
    ]


def _or_dash(value: float | int | None) -> float | int | str:
    if value is None:
        return "–"
    return value if isinstance(value, int) else round(value, 4)


def _with_interval(row: Row) -> str:
    return f"{row['accuracy']:.1%} ({row['accuracy_low']:.1%} to {row['accuracy_high']:.1%})"


@dataclass(frozen=True)
class ClassChange:
    """One target in the first and in the last iteration."""

    first: ClassRow
    last: ClassRow

    @property
    def recall(self) -> float:
        """Recall gained."""
        return self.last.recall - self.first.recall


def class_changes(first: SplitResult, last: SplitResult) -> list[ClassChange]:
    """The classes, the one that lost most recall first; none when answers are free text."""
    before = {row.target: row for row in first.classes}
    found = [ClassChange(before[row.target], row) for row in last.classes if row.target in before]
    return sorted(found, key=lambda change: (change.recall, change.first.target))


@dataclass(frozen=True)
class FilterCounts:
    """What became of the teacher's rows, an iteration a row of `counts`, which follow `columns`."""

    columns: list[str]
    counts: list[tuple[int, list[int]]]


def filter_counts(records: Sequence[IterationRecord]) -> FilterCounts:
    """Rows kept and rejected by reason; a reason that never occurred is left out."""
    counted = [record for record in records if record.counts]
    occurred = {reason for record in counted for reason, count in record.counts.items() if count}
    known = ["kept", *(reason for reason in REASONS if reason in occurred)]
    columns = [*known, *sorted(occurred.difference(known))]
    return FilterCounts(columns, [(r.number, [r.counts.get(name, 0) for name in columns]) for r in counted])
