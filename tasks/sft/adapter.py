"""The low-rank adapter (LoRA, arXiv 2106.09685) that is trained instead of the weights."""

from typing import TYPE_CHECKING, Any

from pydantic import Field

from tasks.core.config import Config
from tasks.core.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ALL_LINEAR = "all-linear"


class AdapterConfig(Config):
    """The low-rank adapter (LoRA) that is trained instead of the weights."""

    rank: int = Field(16, ge=1, le=1024)
    """Rank of the update."""
    alpha: int = Field(32, ge=1, le=4096)
    """Scale of the update; it is applied as alpha / rank."""
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Dropout on the adapter's input."""
    modules: str = ALL_LINEAR
    """`all-linear`, or names of modules separated by commas (`q_proj,v_proj`)."""


def lora_config(config: AdapterConfig, model: "PreTrainedModel", *, field: str, head: str = "") -> Any:
    """PEFT's configuration of the adapter on `model`: a language model, or a classifier whose `head` trains whole.

    Raises UserError, which names `field` (`training.adapter.modules`), for a module that the model does not have.
    """
    from peft import LoraConfig

    modules: str | list[str] = config.modules
    if modules != ALL_LINEAR:
        modules = [name.strip() for name in config.modules.split(",")]
        _check_modules(modules, model, field, head)
    return LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=modules,
        modules_to_save=[head] if head else None,
        task_type="SEQ_CLS" if head else "CAUSAL_LM",
    )


def _check_modules(names: list[str], model: "PreTrainedModel", field: str, head: str) -> None:
    """Every name has to be the end of a matrix's path: PEFT's own rule, but PEFT is content when one of them is."""
    import torch
    from transformers.pytorch_utils import Conv1D

    kinds = (torch.nn.Linear, Conv1D, torch.nn.Embedding)
    paths = [path for path, part in model.named_modules() if isinstance(part, kinds)]
    unknown = {name for name in names if not any(f".{path}".endswith(f".{name}") for path in paths)}
    if unknown:
        known = {path.rpartition(".")[2] for path in paths} - {head, "lm_head", "embed_tokens"}
        raise UserError(
            f"the model has no linear module named {', '.join(sorted(unknown))}",
            field=field,
            mend=f"choose among {', '.join(sorted(known))}, or {ALL_LINEAR}",
        )
