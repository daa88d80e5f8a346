"""Two models on one test set: the paired difference, whether chance explains it, which answers changed."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, Field

from tasks.core.errors import UserError
from tasks.core.examples import read_records
from tasks.core.references import DatasetRef
from tasks.evaluate import Prediction, bootstrap_interval
from tasks.report.choice import choose

RESAMPLES = 2000  # bootstrap resamples, as many as the evaluation draws unless told otherwise

Pair = tuple[Prediction, Prediction]
"""One test row as two models answered it."""


class Comparison(BaseModel):
    """A baseline beside the loop: "seed-only, equal steps"."""

    name: str
    metrics: dict[str, float] = Field(default_factory=dict)
    """By the names used in MLflow."""
    steps: int = Field(ge=0)
    """Optimizer steps of its training."""
    rows: int = Field(ge=0)
    """Rows it trained on."""
    predictions: DatasetRef
    """Its answers to the loop's test rows."""


@dataclass(frozen=True)
class Difference:
    """How much better the second of two models is; `mean`, `low` and `high` are shares, not points."""

    rows: int
    mean: float
    low: float
    high: float
    fixed: int
    """Rows that only the second model answers right."""
    broken: int
    """Rows that only the first one answers right."""
    p: float
    """McNemar's exact p-value."""


def pair(first: Sequence[Prediction], second: Sequence[Prediction], field: str) -> list[Pair]:
    """Both models' answers, row by row in the first one's order. Raises UserError for different test rows.

    A row may stand in a test set twice: the first one is paired with the first, the second with the second.
    """
    waiting: dict[str, list[Prediction]] = {}
    for prediction in reversed(second):
        waiting.setdefault(prediction.id, []).append(prediction)
    pairs = [(prediction, waiting[prediction.id].pop()) for prediction in first if waiting.get(prediction.id)]
    if not len(pairs) == len(first) == len(second):
        raise UserError(
            f"of {len(first)} and {len(second)} test rows only {len(pairs)} are the same",
            field=field,
            mend="evaluate both models on one test set: a paired comparison needs the same rows",
        )
    return pairs


def difference(pairs: Sequence[Pair], confidence: float, seed: int) -> Difference:
    """The mean of the second model's scores less the first one's, with a percentile bootstrap interval over
    rows: a row is drawn with both of its answers (Efron & Tibshirani 1993, ch. 13)."""
    gains = [second.value - first.value for first, second in pairs]
    low, high = bootstrap_interval(gains, confidence, RESAMPLES, seed)
    fixed = sum(first.value < 1 <= second.value for first, second in pairs)
    broken = sum(second.value < 1 <= first.value for first, second in pairs)
    return Difference(len(pairs), sum(gains) / len(gains), low, high, fixed, broken, mcnemar(fixed, broken))


def mcnemar(fixed: int, broken: int) -> float:
    """Two-sided p-value of the exact binomial form of McNemar's test (McNemar 1947, Psychometrika 12).

    How probable a split at least as uneven as `fixed` to `broken` is when both directions are equally likely.
    """
    changed = fixed + broken
    tail, term = 0, 1
    for count in range(min(fixed, broken) + 1):
        tail += term
        term = term * (changed - count) // (count + 1)
    return min(1.0, 2 * tail / 2**changed)  # whole numbers up to here: exact for any number of rows


@dataclass(frozen=True)
class Changes:
    """Test rows whose answer became right, or wrong: how many, and some of them."""

    count: int
    shown: list[Pair]


def changes(pairs: Sequence[Pair], *, fixed: bool, most: int, seed: int) -> Changes:
    """The rows that were `fixed`, or else broken; of more than `most` a random choice, in their order."""
    found = [(a, b) for a, b in pairs if (a.value < 1 <= b.value if fixed else b.value < 1 <= a.value)]
    return Changes(len(found), choose(found, most, seed))


def read_predictions(ref: DatasetRef) -> list[Prediction]:
    """The predictions behind a reference, its bytes checked against the digest first."""
    return [Prediction.model_validate(record) for record in read_records(ref)]
