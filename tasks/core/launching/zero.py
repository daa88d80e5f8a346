"""DeepSpeed's ZeRO (arXiv 1910.02054): the layouts that go by a name, and files of one's own."""

import fcntl
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError

_OFFLOADED = {"device": "cpu", "pin_memory": True}
_STAGE_2 = {"stage": 2, "overlap_comm": True, "contiguous_gradients": True}
_STAGE_3 = {**_STAGE_2, "stage": 3, "stage3_gather_16bit_weights_on_model_save": True}
LAYOUTS: dict[str, dict[str, Any]] = {
    "zero2": _STAGE_2,
    "zero3": _STAGE_3,
    "zero3-offload": {**_STAGE_3, "offload_optimizer": _OFFLOADED, "offload_param": _OFFLOADED},
}
"""The section `zero_optimization` by name: gradients and optimizer in parts, the weights too, and these in the
machine's memory."""

_DECIDED_BY_THE_TRAINER = {
    "bf16": {"enabled": "auto"},
    "fp16": {"enabled": "auto"},
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
}


def read_deepspeed(name: str, *, field: str = "training.deepspeed") -> dict[str, Any]:
    """DeepSpeed's configuration of that name, or in that file.

    Raises UserError, which names `field`, for a file that is missing or has no section `zero_optimization`.
    """
    if name in LAYOUTS:
        return {"zero_optimization": deepcopy(LAYOUTS[name]), **deepcopy(_DECIDED_BY_THE_TRAINER)}
    names = ", ".join(LAYOUTS)
    try:
        settings = json.loads(Path(name).read_text(encoding="utf-8"))
        if not isinstance(settings["zero_optimization"]["stage"], int):
            raise ValueError("its stage is no number")
    except OSError as error:
        raise UserError(
            f"there is no DeepSpeed configuration {name}: {error.strerror}",
            field=field,
            mend=f"take {names}, or the path of a file",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{name} is no DeepSpeed configuration with a section zero_optimization: {error}",
            field=field,
            mend=f"take {names}, or mend the file",
        ) from error
    return dict(settings)


def build_operator() -> None:
    """Compile what DeepSpeed sends numbers with between processes without a GPU (once on a machine, about a minute).

    A process at a time: a build that is killed leaves torch's own lock behind, for which every later process would
    wait without end.
    """
    import torch

    if torch.accelerator.is_available():
        return
    from deepspeed.accelerator import get_accelerator
    from torch.utils.cpp_extension import _get_build_directory

    builder = get_accelerator().create_op_builder("ShareMemCommBuilder")
    folder = Path(_get_build_directory(builder.name, verbose=False))
    with folder.with_suffix(".building").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # freed by the kernel when its holder dies
        (folder / "lock").unlink(missing_ok=True)
        builder.load()
