"""What every training of a model has in common: steps, learning rate, memory, checkpoints, seed and adapter."""

from collections.abc import Callable
from typing import Literal, TypeVar

from pydantic import Field

from tasks.core.config import PLACEMENT, Config
from tasks.core.models import Precision
from tasks.sft.adapter import AdapterConfig


class OptimiserConfig(Config):
    """How a model is trained."""

    method: Literal["lora", "qlora", "full"] = "lora"
    """Train an adapter, an adapter on 4-bit weights (needs bitsandbytes), or all weights."""
    learning_rate: float = Field(2e-4, gt=0.0, le=1.0)
    """Peak learning rate. Full fine-tuning wants less than an adapter."""
    epochs: float = Field(3.0, gt=0.0, le=1000.0)
    """Passes over the data."""
    max_steps: int = Field(0, ge=0)
    """Optimizer steps; 0 leaves it to `epochs`."""
    batch_size: int = Field(8, ge=1, le=4096)
    """Rows per forward pass, shared by all processes. Lower it when memory runs out, and raise
    `gradient_accumulation`."""
    gradient_accumulation: int = Field(1, ge=1, le=1024)
    """Forward passes per optimizer step."""
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    """How the learning rate falls."""
    warmup: float = Field(0.03, ge=0.0, lt=1.0)
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = Field(0.0, ge=0.0, le=1.0)
    """Decoupled weight decay."""
    max_length: int = Field(1024, ge=8, le=1_048_576)
    """Longest row in tokens; longer ones lose the beginning of their input, never their answer."""
    batching: Literal["length", "random", "packed", "shared_prefix"] = "length"
    """Rows of similar length together (little padding), at random, several rows packed into one sequence, or a batch in
    one sequence behind the beginning that all its prompts share, which is computed once: quicker where a long
    instruction stands before short inputs."""
    precision: Precision = "auto"
    """Number format of the weights; auto is bfloat16 on GPUs that have it, else float32. With `full` the weights are
    held in float32 and multiplied in this format."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    checkpoint_steps: int = Field(50, ge=1, json_schema_extra=PLACEMENT)
    """A killed training goes on from a checkpoint at most this many steps old."""
    deepspeed: str = Field("", json_schema_extra=PLACEMENT)
    """ZeRO, where several processes train: `zero2` (gradients and optimizer in parts), `zero3` (the weights too),
    `zero3-offload` (in the machine's memory), or a DeepSpeed configuration file; empty trains without."""
    seed: int = Field(0, ge=0, le=2**31)
    """Seed of the adapter's initial weights and of the order of the rows."""
    adapter: AdapterConfig = AdapterConfig()
    """The adapter, where one is trained."""


T = TypeVar("T", bound=Config)


def placed(**after: str) -> Callable[[type[T]], type[T]]:
    """A decorator: in forms and `--help` each of these fields of a subclass stands `after` that one (`select="seed"`).

    Pydantic itself puts all fields of a base class before those of its subclasses.
    """

    def reorder(model: type[T]) -> type[T]:
        fields = dict(model.model_fields)
        names = [name for name in fields if name not in after]
        for name, before in after.items():
            names.insert(names.index(before) + 1, name)
        model.__pydantic_fields__ = {name: fields[name] for name in names}
        model.model_rebuild(force=True)
        return model

    return reorder
