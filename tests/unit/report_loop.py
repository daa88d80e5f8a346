"""A loop on disk for the report's tests: iterations whose every figure can be counted by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.core.examples import Example, make_example, write_rows
from tasks.core.references import ModelRef
from tasks.evaluate import EvaluationConfig, Prediction, SplitResult, summarise
from tasks.filter.rules import Rejection
from tasks.report.compare import Comparison
from tasks.report.records import IterationRecord

LABELS = ("music", "weather")
QUICK = EvaluationConfig(resamples=200)


def held_out(count: int) -> list[Example]:
    """Test rows whose labels take turns."""
    return [make_example(f"test sentence {number}", LABELS[number % 2]) for number in range(count)]


def answers(rows: Sequence[Example], right: Sequence[bool]) -> list[Prediction]:
    """A prediction per row, right or wrong as told; a wrong one names the other label."""
    return [
        Prediction(
            id=row.id,
            input=row.input,
            target=row.target,
            prompt=f"user: {row.input}",
            completion=row.target if is_right else f"not {row.target}",
            answer=row.target if is_right else LABELS[1 - LABELS.index(row.target)],
            value=float(is_right),
            finish="stop",
        )
        for row, is_right in zip(rows, right, strict=True)
    ]


def split(path: Path, predictions: Sequence[Prediction]) -> SplitResult:
    """Predictions on disk with their figures."""
    return summarise(predictions, write_rows(path, predictions), QUICK)


def written_from(parent: Example, text: str, step: int) -> Example:
    """A synthetic row."""
    return make_example(
        text, parent.target, origin="synthetic", parent=parent.id, root=parent.root or parent.id, step=step
    )


def exchange(parent: Example, rows: int, **other: Any) -> dict[str, Any]:
    """A request to the teacher with its answer."""
    return {
        "parent": parent.id,
        "prompt": [{"role": "user", "content": f"Write rows like: {parent.input}"}],
        "text": f"{rows} rows",
        "finish": "stop",
        "error": "",
        "prompt_tokens": 20,
        "completion_tokens": 7,
        "rows": rows,
    } | other


def small_loop(folder: Path, right: Sequence[Sequence[bool]], rows: int = 8) -> list[IterationRecord]:
    """Iterations on `rows` seed rows, `right` telling which test rows each one answers right.

    Every iteration but the last fails its first two seed rows. From the first of them the teacher writes one
    kept row and one that is rejected; its request for the second is not answered.
    """
    seeds = [make_example(f"seed sentence {number}", LABELS[number % 2]) for number in range(rows)]
    train, records = list(seeds), []
    for number, verdicts in enumerate(right, start=1):
        place = folder / f"iteration-{number}"
        tested = held_out(len(verdicts))
        record = IterationRecord(
            number=number,
            metrics={"data/wrong": 2.0, "data/generated": 2.0, "data/kept": 1.0, "data/shortfall": 1.0}
            | {"train/steps": 10.0 * number, "train/loss": 1.25},
            model=ModelRef(uri=f"models/{number}", digest=str(number)),
            train=write_rows(place / "train.jsonl", train),
            splits={
                "test": split(place / "test-answers.jsonl", answers(tested, verdicts)),
                "train": split(
                    place / "train-answers.jsonl", answers(seeds, [index > 1 for index in range(rows)])
                ),
            },
        )
        if number < len(right):
            kept = written_from(seeds[0], f"kept sentence {number}", number)
            refused = written_from(seeds[0], f"refused sentence {number}", number)
            rejection = Rejection(example=refused, reason="contamination", against=tested[0].id, score=0.9)
            failed = exchange(seeds[1], 0, text="", finish="error", error="connection refused")
            record = record.model_copy(
                update={
                    "failures": write_rows(place / "failures.jsonl", seeds[:2]),
                    "kept": write_rows(place / "kept.jsonl", [kept]),
                    "rejected": [write_rows(place / "rejected.jsonl", [rejection])],
                    "exchanges": [write_rows(place / "exchanges.jsonl", [exchange(seeds[0], 2), failed])],
                    "counts": {"kept": 1, "contamination": 1, "rouge": 0},
                }
            )
            train = [*train, kept]
        records.append(record)
    return records


def baseline(folder: Path, right: Sequence[bool], steps: int, name: str = "seed only") -> Comparison:
    """A compared training with answers to the loop's test rows."""
    predictions = write_rows(folder / "baseline.jsonl", answers(held_out(len(right)), right))
    return Comparison(name=name, steps=steps, rows=8, predictions=predictions, metrics={"train/loss": 0.5})
