"""Policies trained by reinforcement learning: their figures on held-out prompts, with intervals, as tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.core.examples import read_records
from tasks.evaluate import bootstrap_interval
from tasks.report.compare import RESAMPLES
from tasks.report.records import IterationRecord, PolicyRecord
from tasks.report.wording import decimals, percent, span
from tasks.side_by_side.stage import Voice
from tasks.side_by_side.win_rate import WinRate

Row = dict[str, float | int | str | None]
"""A row of the policy table in figures."""


@dataclass(frozen=True)
class Interval:
    """A mean over held-out prompts and its bootstrap interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{decimals(self.mean)} ({decimals(self.low)} to {decimals(self.high)})"


@dataclass(frozen=True)
class Contest:
    """Both policies' answers to one held-out prompt, with what the reward gives them."""

    id: str
    prompt: str
    start: str
    policy: str
    start_reward: float
    policy_reward: float


@dataclass(frozen=True)
class PolicyFigures:
    """One trained policy beside the one that it started from."""

    iteration: int
    record: PolicyRecord
    contests: list[Contest]
    start: Interval
    """Reward on the held-out prompts,"""
    policy: Interval
    """of both,"""
    gain: Interval
    """and of the policy less the start, prompt by prompt."""


def is_reinforced(records: Sequence[IterationRecord]) -> bool:
    """Whether a loop trained its policy by reinforcement learning."""
    return any(record.policy is not None for record in records)


def policy_figures(records: Sequence[IterationRecord], confidence: float, seed: int) -> list[PolicyFigures]:
    """The figures of every policy. The interval of the gain is paired: a prompt is drawn with both of its answers."""
    found = []
    for record in records:
        if record.policy is None:
            continue
        contests = [
            Contest(
                id=row["id"],
                prompt=row["input"],
                start=row["start"] or "",
                policy=row["policy"] or "",
                start_reward=row["start_reward"],
                policy_reward=row["policy_reward"],
            )
            for row in read_records(record.policy.compared.rows)
        ]
        start, policy, gain = (
            _interval(values, confidence, seed)
            for values in (
                [contest.start_reward for contest in contests],
                [contest.policy_reward for contest in contests],
                [contest.policy_reward - contest.start_reward for contest in contests],
            )
        )
        found.append(PolicyFigures(record.number, record.policy, contests, start, policy, gain))
    return found


def _interval(values: Sequence[float], confidence: float, seed: int) -> Interval:
    low, high = bootstrap_interval(values, confidence, RESAMPLES, seed)
    return Interval(sum(values) / len(values), low, high)


def policy_rows(found: Sequence[PolicyFigures]) -> list[Row]:
    """The policy table in figures: of every iteration the start and the policy; what only a trained policy has is None
    for the start."""
    rows: list[Row] = []
    for figures in found:
        trained, compared = figures.record.trained, figures.record.compared
        known = {"iteration": figures.iteration, "prompts": compared.prompts}
        begun = {"steps": None, "kl": None, "reward_training": None}
        ended = {
            "steps": trained.steps,
            "kl": trained.figures.get("objective/kl"),
            "reward_training": trained.figures.get("reward/mean"),
        }
        rows.append(
            known
            | {"policy": "start"}
            | begun
            | _held_out(figures.start, compared.start)
            | _wins("wins_reward", None)
            | _wins("wins_judge", None)
        )
        rows.append(
            known
            | {"policy": "policy"}
            | ended
            | _held_out(figures.policy, compared.policy)
            | _wins("wins_reward", compared.wins)
            | _wins("wins_judge", compared.judged)
        )
    return rows


def _held_out(reward: Interval, voice: Voice) -> Row:
    return {
        "reward_held_out": reward.mean,
        "reward_held_out_low": reward.low,
        "reward_held_out_high": reward.high,
        "words": voice.words,
        "distinct_1": voice.distinct_1,
        "distinct_2": voice.distinct_2,
        "cut": voice.cut,
    }


def _wins(name: str, wins: WinRate | None) -> Row:
    if wins is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: wins.rate, f"{name}_low": wins.low, f"{name}_high": wins.high}


def readable_policies(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The policy table in words, for Prefect."""
    several = len({row["iteration"] for row in rows}) > 1
    return [
        {
            **({"iteration": row["iteration"]} if several else {}),
            "policy": row["policy"],
            "steps": "–" if row["steps"] is None else row["steps"],
            "KL, nats": _decimals(row["kl"], 2),
            "reward, training": _decimals(row["reward_training"]),
            "reward, held out": _bounded(row, "reward_held_out", shares=False),
            "wins by reward": _bounded(row, "wins_reward", shares=True),
            "wins by judge": _bounded(row, "wins_judge", shares=True),
            "words": _decimals(row["words"], 1),
            "distinct-1": _decimals(row["distinct_1"]),
            "distinct-2": _decimals(row["distinct_2"]),
            "cut": _percent(row["cut"]),
        }
        for row in rows
    ]


def _decimals(value: Any, places: int = 3) -> str:
    return decimals(value, places).replace("-", "−")


def _percent(value: Any) -> str:
    return "–" if value is None else percent(value)


def _bounded(row: Row, name: str, *, shares: bool) -> str:
    value, low, high = (row[key] for key in (name, f"{name}_low", f"{name}_high"))
    if not (isinstance(value, float) and isinstance(low, float) and isinstance(high, float)):
        return "–"
    return f"{percent(value)} ({span(low, high)})" if shares else str(Interval(value, low, high))
