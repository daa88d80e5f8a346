"""The result in words: how far the loop came, and what the figures can and cannot say."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.evaluate import SplitResult
from tasks.report.beginning import SET_OUT_FROM, Beginning
from tasks.report.compare import Comparison, Difference
from tasks.report.records import IterationRecord
from tasks.report.wording import p_value, percent, points, span

NOTE = (
    "The intervals cover the choice of test rows. Every accuracy comes from one training: how much it would "
    "vary with another training seed is not in them."
)


@dataclass(frozen=True)
class Headline:
    """The result, the reading of it, what speaks against that reading, and what no interval here holds."""

    result: str
    reading: str
    cautions: list[str]
    note: str = NOTE


def headline(
    records: Sequence[IterationRecord],
    beginning: Beginning,
    change: Difference | None,
    comparisons: Sequence[Comparison],
    confidence: float,
    cautions: Sequence[str] = (),
) -> Headline:
    """The headline of a loop; `change` is the last iteration against the beginning, None for a single iteration with
    nothing before it. `cautions` come before those that are found here."""
    first, last = beginning.test, records[-1].splits["test"]
    rows = f"{last.rows:,} test row{'' if last.rows == 1 else 's'}"
    if change is None:
        return Headline(
            result=f"Test accuracy is {_measured(last)} on {rows}.",
            reading="There was one iteration, so there is no earlier one to compare it with.",
            cautions=list(cautions),
        )
    training_time = _training_time if beginning.is_iteration else _training_time_since
    return Headline(
        result=f"Test accuracy went from {_measured(first)} {beginning.place} {beginning.name} "
        f"to {_measured(last)} in iteration {records[-1].number}, on {rows}.",
        reading=f"{_difference(change, confidence)} {_meaning(first, last, change)}",
        cautions=[*cautions, *_earlier_best(records), *training_time(records, comparisons)],
    )


def _measured(split: SplitResult) -> str:
    return f"{percent(split.accuracy)} ({span(split.low, split.high)})"


def _difference(change: Difference, confidence: float) -> str:
    return (
        f"That is {points(change.mean)} points (paired {100 * confidence:g}\u00a0% interval "
        f"{points(change.low)} to {points(change.high)}): {change.fixed:,} answers became right, "
        f"{change.broken:,} became wrong ({p_value(change.p)})."
    )


def _meaning(first: SplitResult, last: SplitResult, change: Difference) -> str:
    overlapping = first.low <= last.high and last.low <= first.high
    overlap = (
        "The intervals of the two accuracies overlap" if overlapping else "The two intervals do not overlap"
    )
    if change.low <= 0 <= change.high:
        return f"{overlap}, and that of the difference holds zero: these test rows do not tell the two apart."
    direction = "better" if change.mean > 0 else "worse"
    finding = f"the last iteration is {direction} by more than the choice of test rows"
    if overlapping:
        return f"{overlap}, but row by row, which is the sharper comparison, {finding} explains."
    return f"{overlap}: {finding} explains."


def _earlier_best(records: Sequence[IterationRecord]) -> list[str]:
    best = max(records, key=lambda record: record.splits["test"].accuracy)
    if best.splits["test"].accuracy <= records[-1].splits["test"].accuracy:
        return []
    return [
        f"Iteration {best.number} reached {percent(best.splits['test'].accuracy)}, more than the last one. "
        "Who picks it for that picks by the test set, and has to measure it on other rows."
    ]


def _training_time(records: Sequence[IterationRecord], comparisons: Sequence[Comparison]) -> list[str]:
    first, last = (record.metrics.get("train/steps") for record in (records[0], records[-1]))
    if (
        first is None
        or last is None
        or last <= first
        or any(baseline.steps >= last for baseline in comparisons)
    ):
        return []
    return [
        f"The last training took {last:,.0f} optimizer steps, the first one {first:,.0f}: part of the "
        "difference may be training time. A baseline on the seed rows with as many steps would tell."
    ]


def _training_time_since(records: Sequence[IterationRecord], comparisons: Sequence[Comparison]) -> list[str]:
    """The same for a loop that went on from a policy: its steps come on top of that policy's."""
    steps = [record.metrics.get("train/steps", 0) for record in records]
    others = (other.steps for other in comparisons if other.name not in SET_OUT_FROM)
    if not sum(steps) or any(other >= steps[-1] for other in others):
        return []
    return [
        f"The loop trained for {sum(steps):,.0f} optimizer steps in all: part of the difference may be training "
        "time. A baseline on the training rows with as many steps would tell."
    ]
