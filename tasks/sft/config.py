"""How a student is trained."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from tasks.core.config import PLACEMENT, Config
from tasks.core.errors import UserError
from tasks.core.models import Precision, four_bit_config


class AdapterConfig(Config):
    """The low-rank adapter (LoRA) that is trained instead of the weights."""

    rank: int = Field(16, ge=1, le=1024)
    """Rank of the update."""
    alpha: int = Field(32, ge=1, le=4096)
    """Scale of the update; it is applied as alpha / rank."""
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Dropout on the adapter's input."""
    modules: str = "all-linear"
    """`all-linear`, or names of modules separated by commas (`q_proj,v_proj`)."""


class TrainingConfig(Config):
    """How the student is trained."""

    method: Literal["lora", "qlora", "full"] = "lora"
    """Train an adapter, an adapter on 4-bit weights (needs bitsandbytes), or all weights."""
    learning_rate: float = Field(2e-4, gt=0.0, le=1.0)
    """Peak learning rate. Full fine-tuning wants less (2e-5 in the paper) than an adapter."""
    epochs: float = Field(3.0, gt=0.0, le=1000.0)
    """Passes over the data."""
    max_steps: int = Field(0, ge=0)
    """Optimizer steps; 0 leaves it to `epochs`."""
    batch_size: int = Field(8, ge=1, le=4096)
    """Rows per forward pass and process. Lower it when memory runs out, and raise `gradient_accumulation`."""
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
    batching: Literal["length", "random", "packed"] = "length"
    """Rows of similar length together (little padding), at random, or several rows packed into one sequence."""
    weighting: Literal["equal", "reward"] = "equal"
    """Every row counts alike, or, for scored samples, in proportion to its reward."""
    precision: Precision = "auto"
    """Number format of the weights; auto is bfloat16 on GPUs that have it, else float32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    select: Literal["last", "best"] = "last"
    """Keep the last step's weights, or the epoch's with the lowest loss on the validation set."""
    checkpoint_steps: int = Field(50, ge=1, json_schema_extra=PLACEMENT)
    """A killed training goes on from a checkpoint at most this many steps old."""
    deepspeed: str = ""
    """A DeepSpeed configuration file (ZeRO); empty trains without."""
    seed: int = Field(0, ge=0, le=2**31)
    """Seed of the adapter's initial weights and of the order of the rows."""
    adapter: AdapterConfig = AdapterConfig()
    """The adapter, for `lora` and `qlora`."""


def check(config: TrainingConfig, *, has_validation: bool) -> None:
    """Raise UserError for settings that this machine or this data cannot follow, before anything is loaded."""
    if config.select == "best" and not has_validation:
        raise UserError("`best` needs a validation set", field="training.select", mend="set data.validation")
    if config.weighting == "reward" and config.batching == "packed":
        raise UserError(
            "rows packed into one sequence cannot be weighted",
            field="training.batching",
            mend="choose `length`",
        )
    if config.method == "qlora":
        four_bit_config("float32")
    if config.deepspeed and not Path(config.deepspeed).is_file():
        raise UserError(f"there is no file {config.deepspeed}", field="training.deepspeed")
