"""The choice among rows that pass all rules: those whose label their teacher gives them again, and of these those whose
answer the judges find likeliest."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from tasks.core.examples import Example
from tasks.filter.rules import Rejection


def mean_probability(judgements: Sequence[dict[str, float | None]]) -> dict[str, float]:
    """The answers' mean probability over judges, by row id, from each judge's log-probabilities; None, of a row that is
    too long for the judge, counts as no probability at all."""

    def probability(row: str) -> float:
        known = (judgement[row] for judgement in judgements)
        return sum(math.exp(value) for value in known if value is not None) / len(judgements)

    return {row: probability(row) for row in judgements[0]}


def choose_likeliest(
    rows: Sequence[Example], probability: dict[str, float], share: float
) -> tuple[list[Example], list[Rejection]]:
    """Keep the `share` of every target's rows (at least one) with the highest probability, in the rows' own order.

    Target by target: over all rows together the classes that judges know best would crowd out the others. In their own
    order: whoever takes the first few of the kept rows takes any of them, not the ones that judges know already.
    """
    by_target: dict[str, list[Example]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (-probability[row.id], row.id)):
        by_target[row.target].append(row)
    chosen = {row.id for mates in by_target.values() for row in mates[: max(1, round(share * len(mates)))]}
    kept = [row for row in rows if row.id in chosen]
    rejected = [
        Rejection(example=row, reason="judged", detail=f"mean probability {probability[row.id]:.2f}")
        for row in rows
        if row.id not in chosen
    ]
    return kept, rejected


def keep_agreed(
    rows: Sequence[Example], labelled: Iterable[dict[str, Any]]
) -> tuple[list[Example], list[Rejection]]:
    """Keep the rows whose answer by a vote is right by their own target; one without an answer is not kept."""
    votes = {row["id"]: row for row in labelled}
    kept = [row for row in rows if votes[row.id]["value"] >= 1]
    rejected = [
        Rejection(
            example=row,
            reason="relabelled",
            detail=_relabelled(vote),
        )
        for row in rows
        if (vote := votes[row.id])["value"] < 1
    ]
    return kept, rejected


def _relabelled(vote: dict[str, Any]) -> str:
    if vote["answer"] is None:
        return f"no readable label in {vote['rounds']} rounds"
    return f"labelled {vote['answer']!r}, by {vote['agreement']:.0%} of {vote['rounds']} rounds"
