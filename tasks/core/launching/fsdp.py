"""PyTorch's FSDP, where an accelerate configuration file asks for it."""

import os
from pathlib import Path
from typing import Any

import yaml

from tasks.core.errors import UserError


def asks_for_fsdp(launcher: str, config_file: str) -> bool:
    """Whether trainings that are launched so are shared by FSDP; False for a file that is missing, which `check_launch`
    refuses, or no mapping. Raises UserError for a file that is no YAML."""
    return launcher == "accelerate" and _read(config_file).get("distributed_type") == "FSDP"


def names_machines(config_file: str) -> bool:
    """Whether an accelerate configuration file lets DeepSpeed's own launcher reach the machines of a list. Raises as
    `asks_for_fsdp`."""
    deepspeed = _read(config_file).get("deepspeed_config")
    return isinstance(deepspeed, dict) and bool(deepspeed.get("deepspeed_hostfile"))


def _read(config_file: str) -> dict[str, Any]:
    if not Path(config_file).is_file():
        return {}
    try:
        settings = yaml.safe_load(Path(config_file).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            f"{config_file} is no YAML: {str(error).splitlines()[0]}",
            field="launch.config_file",
            mend="name a file that `accelerate config` has written",
        ) from error
    return settings if isinstance(settings, dict) else {}


def in_fsdp() -> bool:
    """Whether accelerate's launcher has told this process to share its training by FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP") == "true"


def holds_a_part() -> bool:
    """Whether this is one of several processes that FSDP shares a model among. A stage that is no training runs in one
    process, launched as trainings are."""
    return in_fsdp() and int(os.environ.get("WORLD_SIZE", "1")) > 1


def share_on_cpus() -> None:
    """Let accelerate follow FSDP between processes on CPUs, which it passes over there and trains by plain DDP; torch's
    FSDP works on them, over gloo. Call it before a trainer's arguments are made; does nothing twice."""
    from accelerate.state import AcceleratorState, PartialState  # type: ignore[import-untyped]
    from accelerate.utils import DistributedType  # type: ignore[import-untyped]

    made = AcceleratorState.__init__
    if getattr(made, "shares_on_cpus", False):
        return

    def make(state: Any, *arguments: Any, **keywords: Any) -> None:
        fresh = AcceleratorState._shared_state == {}
        made(state, *arguments, **keywords)
        plugin = keywords.get("fsdp_plugin")
        if fresh and plugin is not None and state.distributed_type == DistributedType.MULTI_CPU:
            if state._mixed_precision != "no":
                plugin.set_mixed_precision(state._mixed_precision)
            state.distributed_type, state.fsdp_plugin = DistributedType.FSDP, plugin
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    make.shares_on_cpus = True  # type: ignore[attr-defined]
    AcceleratorState.__init__ = make
