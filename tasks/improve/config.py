"""How the policy is improved on its own samples: which of them are kept, in what steps, and from where training starts.

ReST (arXiv 2308.08998) and ReST-EM (arXiv 2312.06585) differ in fields of this configuration; `auto`, -1 and an empty
list stand for what the chosen method does.
"""

from itertools import pairwise
from typing import Literal

from pydantic import Field

from tasks.core.config import Config
from tasks.core.errors import UserError
from tasks.sft import config as sft
from tasks.sft.config import TrainingConfig

Method = Literal["rest", "rest-em"]

REST_THRESHOLDS = (0.0, 0.7, 0.8, 0.9, 0.95, 0.99)
ALL_BUT_RIGHT = 0.99
"""ReST-EM's reward is 1 or 0: strictly above this is right in full."""
_LEVELS = {"percentile": (50.0, 75.0, 90.0), "top_n": (4.0, 2.0, 1.0)}


class ImproveConfig(Config):
    """Which samples are kept, and how the policy is trained on them."""

    by: Literal["threshold", "percentile", "top_n"] = "threshold"
    """Keep samples with a reward strictly above a threshold (published), at or above a percentile of their prompt's
    rewards, or the best n of every prompt."""
    levels: tuple[float, ...] = ()
    """One Improve step for each: rising thresholds in [0, 1), rising percentiles in [0, 100), or falling n. Empty:
    0, 0.7, 0.8, 0.9, 0.95, 0.99 for `rest`, 0.99 for `rest-em`, 50, 75, 90 percent, or 4, 2, 1 samples."""
    floor: float = Field(0.0, ge=-1.0, le=1.0)
    """`percentile` and `top_n` never keep a sample whose reward is not above this; -1 lets all of them pass."""
    most_per_prompt: int = Field(-1, ge=-1)
    """Keep at most so many samples of a prompt, chosen at random; 0 is no limit, -1 the method's (10 for `rest-em`)."""
    mix_data: Literal["auto", "yes", "no"] = "auto"
    """Whether the training rows themselves stand among the samples and pass the same filter (`rest`: yes)."""
    start: Literal["auto", "previous", "base", "warm"] = "auto"
    """What an Improve step trains: the previous policy (`rest`), the base model (`rest-em`), or the warm start."""
    learning_rate: float = Field(0.0, ge=0.0, le=1.0)
    """Learning rate of the first Improve step; 0 takes that of `training`."""
    decay: float = Field(0.5, gt=0.0, le=1.0)
    """Every further Improve step of an iteration has so many times the learning rate of the one before."""
    loss: Literal["nll", "reward_weighted"] = "nll"
    """Every kept row counts alike, or in proportion to its reward."""
    keep_cut: bool = False
    """Also keep samples that were cut at their token limit; training on them teaches the policy to end anywhere."""
    stop_on_reward: bool = True
    """End an iteration's Improve steps, and go back one, when the reward on the validation rows does not rise. Without
    validation rows every step is taken."""
    seed: int = Field(0, ge=0, le=2**31)
    """Seed of the choice among too many samples of a prompt."""


def check(config: ImproveConfig, training: TrainingConfig, processes: int = 1) -> None:
    """Raise UserError for levels that are no rising (or falling) row of their kind, for settings of the training that
    are the Improve step's to decide, and for what a step trained by so many processes cannot follow."""
    if training.weighting == "reward":
        raise UserError(
            "the warm start's rows have no rewards to be weighted by",
            field="training.weighting",
            mend="leave it at equal; improve.loss=reward_weighted weights the samples",
        )
    if training.select == "best":
        raise UserError(
            "`best` goes by a loss on validation rows, and here the reward on them decides",
            field="training.select",
            mend="leave it at last; improve.stop_on_reward goes back one step where the reward does not rise",
        )
    levels = config.levels
    if config.by == "top_n":
        fine = all(level >= 1 and level.is_integer() for level in levels) and _strict(levels[::-1])
        wanted = "whole numbers from 1, each less than the one before (4,2,1)"
    else:
        most = 1 if config.by == "threshold" else 100
        fine = all(0 <= level < most for level in levels) and _strict(levels)
        wanted = f"numbers from 0 to below {most}, each greater than the one before"
    if not fine:
        shown = ", ".join(f"{level:g}" for level in levels)
        raise UserError(
            f"{shown} are no levels for {config.by}", field="improve.levels", mend=f"give {wanted}"
        )
    weighted = training.model_copy(update={"weighting": weighting(config)})
    # No loss is computed on validation rows: what the policy's answers to them are worth decides.
    sft.check(weighted, has_validation=False, processes=processes)


def weighting(config: ImproveConfig) -> Literal["equal", "reward"]:
    """How the rows of an Improve step count."""
    return "reward" if config.loss == "reward_weighted" else "equal"


def planned(config: ImproveConfig, method: Method) -> ImproveConfig:
    """The configuration with everything that is left to the method filled in."""
    published = method == "rest"
    changes: dict[str, object] = {}
    if not config.levels:
        thresholds = REST_THRESHOLDS if published else (ALL_BUT_RIGHT,)
        changes["levels"] = _LEVELS.get(config.by, thresholds)
    if config.most_per_prompt < 0:
        changes["most_per_prompt"] = 0 if published else 10
    if config.mix_data == "auto":
        changes["mix_data"] = "yes" if published else "no"
    if config.start == "auto":
        changes["start"] = "previous" if published else "base"
    return config.model_copy(update=changes)


def _strict(levels: tuple[float, ...]) -> bool:
    return all(low < high for low, high in pairwise(levels))
