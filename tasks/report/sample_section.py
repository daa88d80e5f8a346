"""The report's section on a policy's own samples and their rewards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.evaluate import Prediction
from tasks.report.beginning import Beginning
from tasks.report.calibration import calibration_curve
from tasks.report.compare import difference, pair
from tasks.report.drawing import Curve
from tasks.report.records import IterationRecord
from tasks.report.reward_cautions import RewardChange, reward_cautions
from tasks.report.reward_curves import draw_reward_curves
from tasks.report.samples import (
    HeldOutReward,
    KeptSamples,
    Step,
    held_out_reward,
    improve_steps,
    kept_samples,
    rejected_reasons,
)
from tasks.report.tables import Row
from tasks.reward_model.evaluation import PairEvaluation
from tasks.reward_model.stage import RewardTrainingResult


@dataclass(frozen=True)
class Samples:
    """What the section shows, and what the figures say against the loop."""

    steps: list[Step]
    reasons: list[str]
    """Why samples were rejected, as far as it occurred."""
    curves: list[Curve]
    kept: list[KeptSamples]
    cautions: list[str]
    tested: list[tuple[str, PairEvaluation]]
    """The reward model on held-out pairs, where the reward is one."""


def read_samples(
    records: Sequence[IterationRecord],
    rows: Sequence[Row],
    beginning: Beginning,
    first: Beginning,
    last: Sequence[Prediction],
    reward_model: RewardTrainingResult | None = None,
    *,
    settings: Mapping[str, Any],
    most: int,
    confidence: float,
    seed: int,
) -> Samples:
    """The section of a loop from `beginning`, whose `first` iteration and `last` answers to the test rows are known;
    `reward_model` is what rewarded, where that was learned."""
    steps, held_out = improve_steps(records, settings), held_out_reward(records)
    change = None
    if held_out is not None:
        change = _reward_change(held_out, beginning, first, last, confidence, seed)
    held_out_pairs = reward_model.held_out if reward_model else None
    tested = {"reward model": held_out_pairs} if held_out_pairs else {}
    return Samples(
        steps=steps,
        reasons=rejected_reasons(steps),
        curves=[
            *draw_reward_curves(rows, steps, held_out, beginning),
            *([calibration_curve(tested)] if tested else []),
        ],
        kept=kept_samples(records, most, seed),
        cautions=reward_cautions(steps, change, confidence),
        tested=list(tested.items()),
    )


def _reward_change(
    held_out: HeldOutReward,
    beginning: Beginning,
    first: Beginning,
    last: Sequence[Prediction],
    confidence: float,
    seed: int,
) -> RewardChange | None:
    """From the policy that the loop set out from, if its reward is known, or else from the first iteration; None when
    that is the last one, too."""
    since = beginning if held_out.metric in beginning.metrics else first
    if since.is_iteration and len(held_out.values) == 1:
        return None
    change = difference(pair(since.answers, last, "iterations"), confidence, seed)
    reward = since.metrics[held_out.metric]
    return RewardChange(since.name, held_out.rows, reward, held_out.values[-1], change)
