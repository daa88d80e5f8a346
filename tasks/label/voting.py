"""From the ballots of several rounds to one answer, and when a row needs no further round. Pure functions."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from tasks.label.reading import Ballot

Vote = Literal["majority", "weighted"]


def vote(ballots: Sequence[Ballot | None], kind: Vote = "majority", unsure_weight: float = 0.2) -> str | None:
    """The answer of most rounds, or None when no round had one (arXiv 2309.00384, section 2.2).

    `majority` counts every ballot as one; `weighted` a confident one as 1 and another as `unsure_weight`. Of answers
    that are equal in this, the one with more confident ballots wins, then the one that was given first.
    """
    cast = [ballot for ballot in ballots if ballot is not None]
    weights: dict[str, float] = defaultdict(float)
    sure: dict[str, int] = defaultdict(int)
    for ballot in cast:
        weights[ballot.answer] += 1.0 if ballot.confident or kind == "majority" else unsure_weight
        sure[ballot.answer] += ballot.confident
    # 0.2 is no sum of powers of two: weights that are equal on paper must not differ in the last digit.
    return max(
        weights, key=lambda answer: (round(weights[answer], 9), sure[answer]), default=None
    )  # of equals the first


def settled(ballots: Sequence[Ballot | None]) -> bool:
    """Whether the last two rounds were confident of the same answer: self-reflection-guided early stopping
    (arXiv 2309.00384, section 2.3; the printed algorithm forgets to keep the last round's confidence)."""
    if len(ballots) < 2:
        return False
    before, last = ballots[-2], ballots[-1]
    return before is not None and last is not None and before.confident and last.confident and before == last


def agreement(ballots: Sequence[Ballot | None], answer: str | None) -> float:
    """The share of the rounds that gave this answer; 0 without any."""
    return (
        sum(ballot is not None and ballot.answer == answer for ballot in ballots) / len(ballots)
        if ballots
        else 0.0
    )
