"""The decision: a candidate takes the champion's place only if it is better on held-out rows by a paired test."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, Field

from tasks.core.config import Config
from tasks.core.errors import UserError
from tasks.evaluate import Prediction
from tasks.promotion.approval import Answer, ApprovalConfig
from tasks.promotion.paired_tests import PairedTest, paired_test
from tasks.report.compare import pair


class PromotionConfig(Config):
    """When a candidate becomes champion."""

    test: Literal["auto", "mcnemar", "bootstrap"] = "auto"
    """McNemar's exact test counts rows right in full; the paired bootstrap takes scores in between as they are. `auto`
    is the first where every score is 0 or 1, else the second."""
    level: float = Field(0.05, gt=0.0, lt=1.0)
    """Promoted only with a p-value (two-sided) below this."""
    minimum_gain: float = Field(0.0, ge=0.0, le=1.0)
    """Promoted only with at least this gain in the mean score (0.01 is one point)."""
    first: Literal["compare_with_base", "promote"] = "compare_with_base"
    """Where there is no champion: compare with the base model, or promote without a comparison."""
    resamples: int = Field(10_000, ge=100, le=1_000_000)
    """Bootstrap resamples."""
    seed: int = Field(0, ge=0, le=2**31)
    """Seed of the bootstrap."""
    approval: ApprovalConfig = ApprovalConfig()
    """Whether a person has the last word."""


class Decision(BaseModel):
    """Whether the candidate was promoted, why in words, and the figures behind it."""

    promoted: bool
    reason: str
    opponent: Literal["champion", "base model", "none"]
    """What it was compared with."""
    accuracy: float
    """Mean score of the candidate on the held-out rows,"""
    opponent_accuracy: float | None = None
    """and of what it was compared with."""
    level: float
    minimum_gain: float
    test: PairedTest | None = None
    answer: Answer | None = None
    """A person's, where one was asked."""

    @property
    def words(self) -> str:
        """The reason, and what a person answered."""
        return f"{self.reason}; {self.answer.words}" if self.answer else self.reason

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        figures = {"promotion/promoted": float(self.promoted), "promotion/accuracy": self.accuracy}
        if self.opponent_accuracy is not None:
            figures["promotion/opponent_accuracy"] = self.opponent_accuracy
        if self.test is not None:
            found = self.test.model_dump(include={"rows", "gain", "low", "high", "p", "fixed", "broken"})
            figures |= {f"promotion/{name}": float(value) for name, value in found.items()}
        return figures


def decide(
    candidate: Sequence[Prediction],
    opponent: Sequence[Prediction] | None,
    config: PromotionConfig,
    *,
    against: Literal["champion", "base model"] = "champion",
) -> Decision:
    """Compare the answers of two models to the same held-out rows; without an opponent the candidate is promoted.

    The test is two-sided and the gain has to be positive: at level 0.05 a model that is no better is promoted in at
    most 2.5 of 100 cases. Raises UserError when there is no row, or the rows are not the same.
    """
    if not candidate:
        raise UserError(
            "there is no held-out row to compare models on",
            field="data.test",
            mend="give test rows: nothing is promoted without a comparison",
        )
    accuracy = sum(one.value for one in candidate) / len(candidate)
    facts = {"accuracy": accuracy, "level": config.level, "minimum_gain": config.minimum_gain}
    if opponent is None:
        reason = "there was no champion, and none is asked to be beaten (first: promote)"
        return Decision(promoted=True, reason=reason, opponent="none", **facts)
    pairs = pair(opponent, candidate, "data.test")
    found = paired_test(
        [before.value for before, _ in pairs],
        [after.value for _, after in pairs],
        test=config.test,
        confidence=1 - config.level,
        resamples=config.resamples,
        seed=config.seed,
    )
    promoted, reason = _verdict(found, config, against)
    before = sum(one.value for one in opponent) / len(opponent)
    return Decision(
        promoted=promoted, reason=reason, opponent=against, opponent_accuracy=before, test=found, **facts
    )


def _verdict(found: PairedTest, config: PromotionConfig, against: str) -> tuple[bool, str]:
    points = f"{found.gain * 100:+.1f} points against the {against}"
    # Above the level a p-value that rounds to it would read as if the test had been passed.
    interval = f"{1 - config.level:.0%} interval {found.low * 100:+.1f} to {found.high * 100:+.1f}"
    figures = f"{points} on {found.rows} rows ({interval}, p = {found.p:.3g}, {found.test})"
    if found.gain <= 0:
        return False, f"not better: {figures}"
    if found.gain < config.minimum_gain:
        return (
            False,
            f"better by less than the minimum gain of {config.minimum_gain * 100:g} points: {figures}",
        )
    if found.p >= config.level:
        return False, f"better, but chance may explain it (level {config.level:g}): {figures}"
    return True, f"better: {figures}"
