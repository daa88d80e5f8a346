"""Paired tests of two models on the same rows: McNemar's for right and wrong, a bootstrap for scores in between."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel

from tasks.report.compare import mcnemar

if TYPE_CHECKING:
    from numpy import ndarray

TestName = Literal["mcnemar", "bootstrap"]


class PairedTest(BaseModel):
    """What a test found; `gain`, `low` and `high` are shares of 1, not points."""

    test: TestName
    rows: int
    gain: float
    """Mean score of the candidate less that of the other model."""
    low: float
    high: float
    """Percentile bootstrap interval of the gain."""
    p: float
    """Two-sided: how probable a difference at least as large is when there is none."""
    fixed: int
    """Rows that only the candidate answers right in full."""
    broken: int
    """Rows that only the other model answers right in full."""


def paired_test(
    before: Sequence[float],
    after: Sequence[float],
    *,
    test: Literal["auto", "mcnemar", "bootstrap"] = "auto",
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> PairedTest:
    """Compare the scores in [0, 1] of two models on the same rows in the same order.

    `auto` is McNemar's test where every score is 0 or 1, and the bootstrap otherwise; `mcnemar` counts a row as right
    only when it is right in full. Raises ValueError for no row or for two lengths.
    """
    if len(before) != len(after) or not before:
        raise ValueError(f"{len(before)} and {len(after)} scores make no pairs")
    whole = all(score in (0, 1) for score in (*before, *after))
    name: TestName = ("mcnemar" if whole else "bootstrap") if test == "auto" else test
    pairs = list(zip(before, after, strict=True))
    gains = [second - first for first, second in pairs]
    fixed = sum(first < 1 <= second for first, second in pairs)
    broken = sum(second < 1 <= first for first, second in pairs)
    means = resampled_means(gains, resamples, seed)
    low, high = _interval(means, confidence)
    gain = sum(gains) / len(gains)
    p = mcnemar(fixed, broken) if name == "mcnemar" else bootstrap_p(means, gain)
    return PairedTest(
        test=name, rows=len(pairs), gain=gain, low=low, high=high, p=p, fixed=fixed, broken=broken
    )


def resampled_means(gains: Sequence[float], resamples: int, seed: int) -> "ndarray":
    """The means of `resamples` draws of as many rows with replacement; a row is drawn with both of its scores."""
    import numpy as np

    generator, array = np.random.default_rng(seed), np.asarray(gains, dtype=float)
    # Draw by draw: all indices at once would take gigabytes for a large test set.
    return np.array([array[generator.integers(0, len(array), len(array))].mean() for _ in range(resamples)])


def bootstrap_p(means: "ndarray", gain: float) -> float:
    """Two-sided p-value of "the mean gain is 0" from resampled means, shifted so that this is true of them
    (Efron & Tibshirani 1993, sec. 16.4); never below 1 / (resamples + 1)."""
    import numpy as np

    if gain == 0:
        return 1.0
    # The tolerance lets a draw that repeats the sample count, whatever order its terms were added in.
    extreme = int(np.sum(np.abs(means - gain) >= abs(gain) * (1 - 1e-9)))
    return (extreme + 1) / (len(means) + 1)


def _interval(means: "ndarray", confidence: float) -> tuple[float, float]:
    import numpy as np

    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
