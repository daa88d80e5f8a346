"""What is left of a training: the model's folder, and the mean of its losses."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.models import tidy_model
from tasks.core.references import ModelRef

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def save_trained(
    trainer: Any, folder: Path, base: ModelRef | None, tokenizer: "PreTrainedTokenizerBase | None" = None
) -> None:
    """Write a trainer's model to `folder` and make equal models equal files; every process has to call it.

    `base` is what an adapter lies on, None for full weights. `tokenizer` is written in the place of the trainer's own.
    """
    from accelerate.utils import disable_fsdp_ram_efficient_loading  # type: ignore[import-untyped]
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    trainer.save_model(str(folder))  # every process takes part: sharded weights are gathered
    if trainer.accelerator.is_main_process:
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        tidy_model(folder, base)
    trainer.accelerator.wait_for_everyone()
    # A model that is loaded from here on is loaded whole, and by every process.
    unset_hf_deepspeed_config()
    disable_fsdp_ram_efficient_loading()


def mean_loss(trainer: Any) -> float:
    """The mean over all steps; what `train` returns leaves out the steps before a resume."""
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return float(sum(losses) / len(losses))
