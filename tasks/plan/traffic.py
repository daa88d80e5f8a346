"""What a whole run sends to a store on S3, and reads from there."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.improve import config as improve
from tasks.plan.memory import Machine
from tasks.plan.stages import StagePlan
from tasks.plan.storage import stored
from tasks.plan.work import Amounts, row_tokens, work_of


@dataclass(frozen=True)
class Traffic:
    """Bytes of all calls of all stages together, without rows and without the base: it comes from the hub or lies
    in a folder."""

    results: float = 0.0
    """Sent: models and adapters that were trained."""
    checkpoints: float = 0.0
    """Sent: checkpoints of trainings under way, if they are mirrored (`launch.mirror_checkpoints`); a store that is too
    slow gets fewer."""
    mirrored: int = 0
    """So many of them."""
    read: float = 0.0
    """By each machine: every result once, by the stages behind it."""

    @property
    def total(self) -> float:
        """Both ways, for one machine."""
        return self.results + self.checkpoints + self.read


def traffic(config: Any, stages: Sequence[StagePlan], machine: Machine, amounts: Amounts) -> Traffic:
    """The traffic of a flow's run, with a checkpoint every so many steps and one at the end of each training."""
    results = sent = 0.0
    mirrored = 0
    for stage in stages:
        calls, kept = _calls(config, stage), stored(config, stage, machine)
        results += calls * kept.model
        if config.launch.mirror_checkpoints and kept.checkpoint:
            written = _checkpoints(config, stage, calls, amounts)
            mirrored += written
            sent += written * kept.checkpoint
    return Traffic(results, sent, mirrored, read=results)


def _calls(config: Any, stage: StagePlan) -> int:
    """How often a stage leaves a model."""
    if stage.kind == "reward":
        return 1 + bool(getattr(config, "judge", False))
    if stage.kind != "fine-tune" or hasattr(config, "ppo"):
        return 1
    if hasattr(config, "grow"):
        steps = config.iterations * len(improve.planned(config.improve, config.method).levels)
        return int(steps + config.warm_start + config.equal_steps)
    if hasattr(config, "augment"):
        return int(config.iterations + (config.equal_steps and config.iterations > 1))
    return 1


def _checkpoints(config: Any, stage: StagePlan, calls: int, amounts: Amounts) -> int:
    """How many checkpoints all calls of a training write, each as many as the others."""
    if stage.kind == "ppo":  # whose last step writes none
        return int((config.ppo.total_steps() - 1) // config.checkpoint_steps)
    training = getattr(config, stage.part)
    rows = work_of(config, amounts)[stage.name].trained / row_tokens(config, amounts)
    if stage.kind == "reward":  # a pair is two rows
        rows /= 2
    steps = rows / calls / (training.batch_size * training.gradient_accumulation)
    if training.max_steps:
        steps = training.max_steps
    return calls * math.ceil(steps / training.checkpoint_steps)
