"""Before anything is loaded: is the model there, and can this machine hold what its training keeps for good?"""

import os
from typing import Any

from tasks import base_model
from tasks.core.errors import UserError
from tasks.core.launching.forking import GPU_DEVICES
from tasks.plan.devices import judge
from tasks.plan.memory import CONTEXT, CPU, GB, GPU, Machine
from tasks.plan.sharing import launched
from tasks.plan.stages import plan_stages, planned_model


def check_model(config: Any) -> None:
    """Raise UserError for a model that is not there, and for a stage whose weights, gradients and optimizer alone are
    more than a device has; `config` is the configuration of a flow that trains.

    Activations are not held against it: rows may be shorter than they may be. A model whose shape the plan cannot
    count is let pass.
    """
    field, model = planned_model(config)
    base_model.locate(model, field)
    machine, bytes_there = _machine(config)
    if not config.launch.check_memory:
        return
    prompt = config.training.max_length
    try:
        stages = plan_stages(config, machine, prompt=prompt)
    except UserError:  # what is wrong with it is said where it is used
        return
    worst = max(stages, key=lambda stage: stage.memory.lasting, default=None)
    if worst is None or worst.memory.lasting <= bytes_there:
        return
    verdict = judge(config, machine, (bytes_there + CONTEXT) / GB, prompt=prompt)
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
