"""From raw rewards, whose scale is an accident of training, to [0, 1]."""

import math
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tasks.core.errors import UserError

FILE = "reward.json"
"""Lies beside the weights of a reward model."""
_PERCENTILES = (1, 99)


class Normalisation(BaseModel):
    """An affine map fitted on a reference set: `low` becomes 0, `high` becomes 1, what lies beyond is clipped."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: float
    """The 1st percentile of the reference set's raw rewards."""
    high: float
    """Their 99th."""
    mean: float
    std: float
    answers: int
    """Answers in the reference set."""
    reference: str
    """What they were: "held-out pairs" or "training pairs"."""

    def __call__(self, raw: float) -> float:
        """The reward in [0, 1]."""
        return min(1.0, max(0.0, (raw - self.low) / (self.high - self.low)))

    def save(self, folder: Path) -> None:
        """Write it beside the weights."""
        (folder / FILE).write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")


def fit_normalisation(raw: Sequence[float], reference: str) -> Normalisation:
    """Fit the map on raw rewards. Raises UserError when they are one and the same, or not finite."""
    import numpy as np

    rewards = np.asarray(raw)
    low, high = np.percentile(rewards, _PERCENTILES)
    if not high - low > 1e-6 * max(1.0, abs(low), abs(high)):
        raise UserError(
            f"the trained reward model gives the answers of all {reference} the same reward, {rewards.mean():g}",
            field="reward_model.learning_rate",
            mend="it has learnt nothing: train for more steps, lower or raise the rate, or look at the pairs",
        )
    return Normalisation(
        low=float(low),
        high=float(high),
        mean=float(rewards.mean()),
        std=float(rewards.std()),
        answers=len(rewards),
        reference=reference,
    )


def read_normalisation(folder: Path) -> Normalisation:
    """The map that lies beside a reward model's weights. Raises UserError for a folder that is no reward model."""
    try:
        found = Normalisation.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise UserError(
            f"{folder} is no reward model: it has no valid {FILE}",
            field="reward.model",
            mend="give the folder that the stage reward_model wrote",
        ) from error
    if not (math.isfinite(found.low) and math.isfinite(found.high) and found.low < found.high):
        raise UserError(f"{folder / FILE} has no range", field="reward.model", mend="train the model again")
    return found
