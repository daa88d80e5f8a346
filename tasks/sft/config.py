"""How a student is trained."""

from typing import Literal

from pydantic import Field

from tasks.core.errors import UserError
from tasks.core.launching.zero import read_deepspeed
from tasks.core.models import check_four_bit
from tasks.sft.adapter import AdapterConfig
from tasks.sft.optimiser_config import OptimiserConfig, placed
from tasks.sft.shared_batches import check_share


@placed(too_long="max_length", weighting="batching", select="gradient_checkpointing")
class TrainingConfig(OptimiserConfig):
    """How the student is trained."""

    learning_rate: float = Field(2e-4, gt=0.0, le=1.0)
    """Peak learning rate. Full fine-tuning wants less (2e-5 in the paper) than an adapter."""
    too_long: Literal["refuse", "drop"] = "refuse"
    """What becomes of rows with an answer that alone does not fit into `max_length`: an error that names one, or leave
    them out and count them."""
    weighting: Literal["equal", "reward"] = "equal"
    """Every row counts alike, or, for scored samples, in proportion to its reward."""
    select: Literal["last", "best"] = "last"
    """Keep the last step's weights, or the epoch's with the lowest loss on the validation set."""
    adapter: AdapterConfig = AdapterConfig()
    """The adapter, for `lora` and `qlora`."""


def check(config: TrainingConfig, *, has_validation: bool, processes: int = 1) -> None:
    """Raise UserError for settings that this machine, this data or so many processes cannot follow, before anything is
    loaded."""
    if config.select == "best" and not has_validation:
        raise UserError("`best` needs a validation set", field="training.select", mend="set data.validation")
    if config.weighting == "reward" and config.batching == "packed":
        raise UserError(
            "rows packed into one sequence cannot be weighted",
            field="training.batching",
            mend="choose `length`",
        )
    check_processes(config, processes, field="training")


def check_processes(config: OptimiserConfig, processes: int, *, field: str) -> None:
    """Raise UserError when a training with these settings, which stand in `field`, cannot be shared by so many
    processes, or not run on this machine at all."""
    check_sharing(config, processes, field=field)
    if config.method == "qlora":
        check_four_bit(field=f"{field}.method")


def check_sharing(config: OptimiserConfig, processes: int, *, field: str) -> None:
    """The same of what hangs on the settings alone, whatever is installed here."""
    check_share(config.batch_size, processes, field="launch.processes")
    if config.deepspeed and config.batching == "shared_prefix":
        raise UserError(
            "rows share a sequence only where every process holds the whole model without DeepSpeed",
            field=f"{field}.batching",
            mend="choose `length`, or leave deepspeed empty",
        )
    if config.deepspeed:
        read_deepspeed(config.deepspeed, field=f"{field}.deepspeed")
        if config.method == "qlora":
            raise UserError(
                "DeepSpeed does not shard 4-bit weights here",
                field=f"{field}.deepspeed",
                mend="leave it empty: every process then holds the 4-bit weights; or set the method to lora",
            )


def check_beside_fsdp(config: OptimiserConfig, *, field: str) -> None:
    """Raise UserError for a training, whose settings stand in `field`, that FSDP cannot share: what DeepSpeed shares
    already, 4-bit weights, or a model whose rows share a sequence."""
    if config.deepspeed:
        raise UserError(
            f"the processes are launched for FSDP and {field}.deepspeed is {config.deepspeed}: both share the weights",
            field="launch.config_file",
            mend="leave out one of them",
        )
    if config.method == "qlora":
        raise UserError(
            "FSDP does not shard 4-bit weights here",
            field="launch.config_file",
            mend="take launcher auto: every process then holds the 4-bit weights; or set the method to lora",
        )
    if config.batching == "shared_prefix":
        raise UserError(
            "rows share a sequence only where every process holds the whole model",
            field=f"{field}.batching",
            mend="choose `length`, or take launcher auto",
        )
