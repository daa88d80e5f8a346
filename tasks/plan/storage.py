"""What a call of a stage leaves in the store, holds on the disk and reads."""

from dataclasses import dataclass
from typing import Any

from tasks.plan.activations import FLOAT32
from tasks.plan.memory import Machine
from tasks.plan.stages import StagePlan

_CHECKPOINTS = 2
"""How many a training keeps."""


@dataclass(frozen=True)
class Stored:
    """Bytes."""

    model: float = 0.0
    """Of the model or adapter that a stage leaves in the store."""
    checkpoints: float = 0.0
    """On the disk of the machine that trains, until it has ended: weights that are trained, and two moments of each; by
    ZeRO both moments and a copy in float32."""
    read: float = 0.0
    """Of models that the stage reads."""

    @property
    def checkpoint(self) -> float:
        """Of one of them."""
        return self.checkpoints / _CHECKPOINTS


def stored(config: Any, stage: StagePlan, machine: Machine) -> Stored:
    """The bytes of one call of a stage. Rows are left out: they are small beside weights."""
    whole = float(machine.number * stage.shape.parameters())
    if stage.kind == "merge":
        return Stored(model=whole, read=whole)
    if stage.kind not in ("fine-tune", "reward", "ppo"):
        return Stored(read=whole)
    training = config.roles if stage.kind == "ppo" else getattr(config, stage.part)
    zero = stage.kind != "ppo" and bool(training.deepspeed)
    if training.method == "full":
        # Trained and saved in float32; DeepSpeed saves its 16 bits, and float32 beside the moments.
        trained = float(FLOAT32 * stage.shape.parameters())
        saved, state = (whole, 3 * trained) if zero else (trained, 2 * trained)
        return Stored(saved, _CHECKPOINTS * (saved + state), whole)
    adapted = stage.shape.adapted(training.adapter, field=f"{stage.part}.adapter.modules")
    adapter = float(FLOAT32 * stage.shape.adapter_parameters(training.adapter.rank, adapted))
    return Stored(adapter, _CHECKPOINTS * (4 if zero else 3) * adapter, whole)
