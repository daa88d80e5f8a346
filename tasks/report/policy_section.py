"""The report's section on policies trained by reinforcement learning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.report.choice import choose
from tasks.report.drawing import Curve
from tasks.report.policies import Contest, PolicyFigures, policy_figures, policy_rows, readable_policies
from tasks.report.policies import Row as PolicyRow
from tasks.report.policy_cautions import policy_cautions
from tasks.report.policy_curves import draw_policy_curves, tested_rewards
from tasks.report.records import IterationRecord
from tasks.reward_model.evaluation import PairEvaluation

MOST_OF_ALL = 6
"""Prompts shown of all, at first sight: what the policy says as a rule."""


@dataclass(frozen=True)
class Outcome:
    """Prompts that ended alike: how many, and some of them."""

    words: str
    count: int
    shown: list[Contest]


@dataclass(frozen=True)
class SideBySide:
    """The contests of one iteration, by their outcome."""

    iteration: int
    outcomes: list[Outcome]


@dataclass(frozen=True)
class Policies:
    """What the section shows, and what the figures say against the policies."""

    figures: list[PolicyFigures]
    rows: list[PolicyRow]
    table: list[dict[str, Any]]
    """The rows in words, for Prefect."""
    tested: list[tuple[str, PairEvaluation]]
    """What was learned from preferences, on held-out pairs."""
    curves: list[Curve]
    contests: list[SideBySide]
    cautions: list[str]
    """Of the last policy."""


def read_policies(
    records: Sequence[IterationRecord],
    *,
    settings: Mapping[str, Any],
    most: int,
    confidence: float,
    seed: int,
) -> Policies:
    """The section of a loop, some iteration of which trained a policy by reinforcement learning."""
    found = policy_figures(records, confidence, seed)
    rows = policy_rows(found)
    share = -(-most // len(found))
    return Policies(
        figures=found,
        rows=rows,
        table=readable_policies(rows),
        tested=list(tested_rewards(found[-1]).items()),
        curves=draw_policy_curves(found),
        contests=[side_by_side(figures, share, seed) for figures in found],
        cautions=policy_cautions(found[-1], learned=settings.get("reward.by") == "model"),
    )


def side_by_side(figures: PolicyFigures, most: int, seed: int) -> SideBySide:
    """Some of all prompts, and a third of `most` each of those that the policy won, tied and lost by the reward: a
    choice by the seed, whatever the rewards."""
    contests, share = figures.contests, -(-most // 3)
    groups = {
        "Of all prompts": (contests, min(share, MOST_OF_ALL)),
        "Won by the policy": ([one for one in contests if one.policy_reward > one.start_reward], share),
        "Even": ([one for one in contests if one.policy_reward == one.start_reward], share),
        "Lost by the policy": ([one for one in contests if one.policy_reward < one.start_reward], share),
    }
    return SideBySide(
        figures.iteration,
        [
            Outcome(words, len(those), choose(those, shown, f"{seed} {words} {figures.iteration}"))
            for words, (those, shown) in groups.items()
        ],
    )
