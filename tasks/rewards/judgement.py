"""The worth of one answer, and what counts as a number for it."""

from dataclasses import dataclass
from typing import Any, Literal

_ROUNDING = 1e-6


@dataclass(frozen=True)
class Judgement:
    """The worth of an answer, in [0, 1]. After a failure ("timed_out", "crashed", "invalid") it is 0."""

    reward: float
    failure: Literal["", "timed_out", "crashed", "invalid"] = ""
    reason: str = ""


def fit(value: Any) -> Judgement:
    """What a verifier returned as a judgement; True and False are 1 and 0.

    Anything but a number in [0, 1] is invalid and worth 0: a 7 clipped to 1 would make the best answer of one.
    """
    shown = "nothing" if value is None else repr(value)[:100]
    if not isinstance(value, int | float):
        return Judgement(0.0, "invalid", f"it returned {shown}, not a number")
    if not -_ROUNDING <= value <= 1 + _ROUNDING:  # nor is NaN within
        return Judgement(0.0, "invalid", f"it returned {shown}, not a number from 0 to 1")
    return Judgement(min(max(float(value), 0.0), 1.0))
