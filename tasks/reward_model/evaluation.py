"""How good a reward model is on held-out pairs: which answer it prefers, and how sure it may be of that."""

import math
from collections.abc import Sequence

from pydantic import BaseModel

from tasks.evaluate import bootstrap_interval

BINS = 10


class CalibrationBin(BaseModel):
    """Comparisons whose predicted probability lies in one tenth of [0, 1]."""

    comparisons: int
    predicted: float
    """Mean predicted probability that the first answer is the better one."""
    observed: float
    """How often it was."""


class PairEvaluation(BaseModel):
    """Figures of a reward model on held-out pairs."""

    pairs: int
    accuracy: float
    """Share of the pairs whose better answer has the higher reward; ties count half."""
    low: float
    high: float
    """Bootstrap interval of the accuracy."""
    margin: float
    """Mean raw reward of the better answer less that of the worse."""
    calibration_error: float
    """Expected calibration error: mean distance of predicted and observed, weighted by comparisons."""
    calibration: list[CalibrationBin]
    """The tenths that hold any comparison, in order."""

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        return {
            "reward/accuracy": self.accuracy,
            "reward/accuracy_low": self.low,
            "reward/accuracy_high": self.high,
            "reward/calibration_error": self.calibration_error,
            "reward/margin": self.margin,
        }


def evaluate_pairs(
    chosen: Sequence[float], rejected: Sequence[float], *, confidence: float, resamples: int, seed: int
) -> PairEvaluation:
    """The figures from the raw rewards of the pairs' better and worse answers (at least one pair).

    The predicted probability that an answer is better than another is the logistic function of the difference of
    their rewards (Bradley and Terry 1952). Each pair is compared both ways round, as nothing else tells its sides
    apart, so the calibration is symmetric about 1/2.
    """
    margins = [better - worse for better, worse in zip(chosen, rejected, strict=True)]
    right = [(1.0 if margin > 0 else 0.5 if margin == 0 else 0.0) for margin in margins]
    low, high = bootstrap_interval(right, confidence, resamples, seed)
    calibration = calibrate(margins)
    error = sum(row.comparisons * abs(row.predicted - row.observed) for row in calibration)
    return PairEvaluation(
        pairs=len(margins),
        accuracy=sum(right) / len(right),
        low=low,
        high=high,
        margin=sum(margins) / len(margins),
        calibration_error=error / (2 * len(margins)),
        calibration=calibration,
    )


def calibrate(margins: Sequence[float]) -> list[CalibrationBin]:
    """Predicted against observed, by tenths of the predicted probability (Guo et al. 2017, section 2)."""
    comparisons = [(logistic(margin), 1) for margin in margins] + [
        (logistic(-margin), 0) for margin in margins
    ]
    bins: dict[int, list[tuple[float, int]]] = {}
    for probability, better in comparisons:
        bins.setdefault(min(BINS - 1, int(probability * BINS)), []).append((probability, better))
    return [
        CalibrationBin(
            comparisons=len(members),
            predicted=sum(probability for probability, _ in members) / len(members),
            observed=sum(better for _, better in members) / len(members),
        )
        for _, members in sorted(bins.items())
    ]


def logistic(x: float) -> float:
    """1 / (1 + exp(-x)), for any x."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
