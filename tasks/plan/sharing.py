"""What of a training lies on one of several devices that share it: copies (DDP), or parts (ZeRO, arXiv 1910.02054)."""

from dataclasses import replace
from typing import Any

from tasks.core.launching.fsdp import asks_for_fsdp
from tasks.core.launching.launch import LaunchConfig
from tasks.core.launching.zero import read_deepspeed
from tasks.plan.activations import FLOAT32
from tasks.plan.architecture import Architecture
from tasks.plan.memory import Machine, Memory, Trained

_LIVE = 10**9
"""Parameters that ZeRO-3 gathers at most (`stage3_max_live_parameters`)."""


def zero_section(deepspeed: str, *, field: str) -> dict[str, Any]:
    """The part of a DeepSpeed configuration, by name or file, that says what is shared; empty where none is named.

    Raises UserError, which names `field`, for a file that is not there.
    """
    return dict(read_deepspeed(deepspeed, field=field)["zero_optimization"]) if deepspeed else {}


def launched(machine: Machine, launch: LaunchConfig) -> Machine:
    """The machine with as many devices as are launched, and shared as they are told."""
    fsdp = asks_for_fsdp(launch.launcher, launch.config_file)
    return replace(machine, processes=launch.total, fsdp=fsdp)


def rows_of_device(rows: int, machine: Machine) -> int:
    """Rows of a batch that one device takes."""
    return -(-rows // machine.processes)


def placed(
    static: Memory, trained: Trained, machine: Machine, zero: dict[str, Any], parameters: int
) -> tuple[Memory, float]:
    """The memory that lasts on one of the machine's devices, with the optimizer's, and the bytes of the gradients.

    `static` has all weights of the model, of so many `parameters`. ZeRO shares among all devices the optimizer's state
    from stage 1 on, gradients from stage 2 on, weights from stage 3 on; its state holds float32 copies of the weights
    that are trained. What is offloaded is `host` memory, and with the optimizer's state go float32 gradients: 18 bytes
    a parameter where all weights are trained in 16 bits (DeepSpeed's `estimate_zero3_model_states_mem_needs`).
    """
    devices, stage = machine.processes, int(zero.get("stage", 0))
    if not stage:
        buckets = trained.size if devices > 1 else 0.0  # in which DDP sends gradients
        return replace(static, optimizer=trained.moments), trained.size + buckets
    numbers = FLOAT32 * trained.parameters / devices
    place = _offloaded(zero, "offload_optimizer")
    optimizer, host = _put(3 * numbers, 4 * numbers, place, machine)
    gradients = trained.size / (devices if stage >= 2 else 1)
    if stage >= 3:
        part = static.weights / devices
        own, away = _put(part, part, _offloaded(zero, "offload_param"), machine)
        host += away
        gathered = static.weights * min(1.0, _LIVE / parameters)
        static = replace(static, weights=own + gathered)
    return replace(static, optimizer=optimizer, host=host), gradients


def _put(here: float, away: float, place: str, machine: Machine) -> tuple[float, float]:
    """The bytes on the device and in main memory of what takes so many `here`, or `away` in the `place` where it is
    offloaded to. A machine without a GPU has but one memory."""
    if not place:
        return here, 0.0
    if place != "cpu":
        return 0.0, 0.0
    return (away, 0.0) if machine.cpu else (0.0, away)


def fully_sharded(
    static: Memory, trained: Trained, machine: Machine, shape: Architecture, parameters: int
) -> tuple[Memory, float]:
    """The same with PyTorch's FSDP: weights, adapters, gradients and moments in equal parts. Whole are, in turn, the
    weights of the block that computes and of the next, and all the time what belongs to no block (embeddings); so are
    their gradients."""
    devices = machine.processes
    blocks = shape.layers * shape.block_parameters()
    whole = (parameters - blocks + min(2, shape.layers) * shape.block_parameters()) / parameters
    lasting = replace(
        static,
        weights=static.weights * (1 / devices + whole),
        adapters=static.adapters / devices,
        optimizer=trained.moments / devices,
    )
    return lasting, trained.size * (1 / devices + whole)


def _offloaded(zero: dict[str, Any], part: str) -> str:
    """Where a part (`offload_optimizer`, `offload_param`) lies if not on the device: `cpu`, the machine's main memory,
    or `nvme`, its disk."""
    device = str(dict(zero.get(part) or {}).get("device", "none"))
    return "" if device == "none" else device
