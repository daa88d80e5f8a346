"""Before anything is loaded: is the model there, and can this machine hold what its training keeps for good?"""

import os
from collections.abc import Sequence
from typing import Any

from tasks import base_model
from tasks.base_model import ModelConfig
from tasks.core.errors import UserError
from tasks.core.flow_run import FlowConfig
from tasks.core.generators.load import EngineConfig
from tasks.core.launching.forking import GPU_DEVICES
from tasks.core.launching.fsdp import asks_for_fsdp
from tasks.core.launching.launch import LaunchConfig
from tasks.plan.accepted import check_fsdp
from tasks.plan.architecture import Architecture
from tasks.plan.devices import judge
from tasks.plan.known_models import architecture_of
from tasks.plan.memory import CONTEXT, CPU, GB, GPU, Machine
from tasks.plan.sharing import launched
from tasks.plan.stages import StagePlan, plan_stages, planned_model
from tasks.plan.trainers import fine_tuning
from tasks.sft.config import TrainingConfig, check_beside_fsdp


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
    machine, bytes_there = _machine(config.launch)
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


def check_asked(config: FlowConfig, model: ModelConfig, engine: EngineConfig, *, field: str) -> None:
    """Raise UserError, which names `field`, for a local model that the flow only asks and whose weights alone are more
    than a device has, which one process has to itself. A model whose shape the plan cannot count is let pass, and one
    that is asked on the machines of a cluster."""
    if engine.engine == "openai" or config.fan_out.cluster:
        return
    launch = config.launch
    machine, bytes_there = _machine(launch.model_copy(update={"processes": 1, "nodes": 1}))
    spread = engine.tensor_parallel if engine.engine == "vllm" else 1
    shape = _counted(model, launch, field)
    weights = machine.bytes_of(engine.precision) * shape.parameters() / spread if shape else 0.0
    if weights <= bytes_there:
        return
    raise UserError(
        f"{model.model} has {weights / GB:.1f} GB of weights, and there are {bytes_there / GB:.1f} GB",
        field=field,
        mend="take a smaller model, or a server's (engine openai); launch.check_memory=false starts it nevertheless",
    )


def check_trained(
    model: ModelConfig, training: TrainingConfig, launch: LaunchConfig, *, field: str, part: str
) -> None:
    """As `check_model`, for a fine-tuning beside what a flow is for; its settings stand in `part`."""
    if asks_for_fsdp(launch.launcher, launch.config_file):
        check_beside_fsdp(training, field=part)
    shape = _counted(model, launch, field)
    if shape is None:
        return
    machine, bytes_there = _machine(launch)
    memory = fine_tuning(shape, training, machine)
    check_main_memory(
        [StagePlan("fine-tune", memory, "fine-tune", shape, part)], launch.processes, model.model
    )
    if memory.lasting > bytes_there:
        raise UserError(
            f"its training keeps {memory.lasting / GB:.1f} GB of {model.model} in memory for good, and there are "
            f"{bytes_there / GB:.1f} GB",
            field=field,
            mend=f"take a smaller model, set {part}.method to lora, or {part}.deepspeed to zero3 on several GPUs; "
            "launch.check_memory=false starts it nevertheless",
        )


def _counted(model: ModelConfig, launch: LaunchConfig, field: str) -> Architecture | None:
    """The model's shape; None where it cannot be counted, or is not to be checked."""
    if not launch.check_memory:
        return None
    try:
        return architecture_of(model, field=field)
    except UserError:
        return None


def _machine(launch: LaunchConfig) -> tuple[Machine, float]:
    """What a device of this machine is, and how many bytes each of its processes may have."""
    if any(os.path.exists(device) for device in GPU_DEVICES):
        import torch

        if torch.cuda.is_available():
            total = float(torch.cuda.get_device_properties(0).total_memory)
            return launched(GPU, launch), total - CONTEXT
    import psutil

    machine = launched(CPU, launch)
    return machine, float(psutil.virtual_memory().total) / launch.processes
