"""Before anything is loaded: is the model there, and can this machine hold what its training keeps for good?"""

import os
from collections.abc import Sequence
from typing import Any

from tasks import base_model
from tasks.core.errors import UserError
from tasks.core.launching.forking import GPU_DEVICES
from tasks.plan.accepted import check_fsdp
from tasks.plan.devices import judge
from tasks.plan.memory import CONTEXT, CPU, GB, GPU, Machine
from tasks.plan.sharing import launched
from tasks.plan.stages import StagePlan, plan_stages, planned_model


def check_model(config: Any) -> None:
    """Raise UserError for a model that is not there, for trainings that FSDP cannot share, and for a stage whose
    weights, gradients and optimizer alone are more than a device has, or offloaded more than the machine's main memory
    has; `config` is the flow's, which trains.

    Activations are not held against it: rows may be shorter than they may be. A model whose shape the plan cannot
    count is let pass.
    """
    field, model = planned_model(config)
    base_model.locate(model, field)
    check_fsdp(config, config.launch.total)
    machine, bytes_there = _machine(config)
    if not config.launch.check_memory:
        return
    prompt = config.training.max_length
    try:
        stages = plan_stages(config, machine, prompt=prompt)
    except UserError:  # what is wrong with it is said where it is used
        return
    check_main_memory(stages, config.launch.processes, model.model)
    worst = max(stages, key=lambda stage: stage.memory.lasting, default=None)
    if worst is None or worst.memory.lasting <= bytes_there:
        return
    verdict = judge(config, machine, (bytes_there + (0.0 if machine.cpu else CONTEXT)) / GB, prompt=prompt)
    mend = (
        " ".join(verdict.flags)
        or "take a smaller model, or several GPUs (`python -m flows plan` names layouts)"
    )
    raise UserError(
        f"{worst.name} keeps {worst.memory.lasting / GB:.1f} GB of {model.model} in memory for good, and there are "
        f"{bytes_there / GB:.1f} GB",
        field=field,
        mend=f"{mend}; launch.check_memory=false starts it nevertheless",
    )


def check_main_memory(stages: Sequence[StagePlan], processes: int, model: str) -> None:
    """Raise UserError for a stage of which so many processes, those of this machine, put more into its main memory
    than there is."""
    import psutil

    worst = max(stages, key=lambda stage: stage.memory.host, default=None)
    there = float(psutil.virtual_memory().total)
    if worst is None or worst.memory.host * processes <= there:
        return
    raise UserError(
        f"{worst.name} puts {worst.memory.host * processes / GB:.1f} GB of {model} into this machine's main memory, "
        f"which has {there / GB:.1f} GB",
        field=f"{worst.part}.deepspeed",
        mend=f"take zero3, set {worst.part}.method to lora, or launch.nodes to more machines; "
        "launch.check_memory=false starts it nevertheless",
    )


def _machine(config: Any) -> tuple[Machine, float]:
    """What a device of this machine is, and how many bytes each of its processes may have."""
    if any(os.path.exists(device) for device in GPU_DEVICES):
        import torch

        if torch.cuda.is_available():
            total = float(torch.cuda.get_device_properties(0).total_memory)
            return launched(GPU, config.launch), total - CONTEXT
    import psutil

    machine = launched(CPU, config.launch)
    return machine, float(psutil.virtual_memory().total) / config.launch.processes
