"""Bytes that a stage holds on one device at its fullest moment, by what they are for."""

from dataclasses import dataclass, fields, replace

from tasks.core.models import Precision
from tasks.plan.architecture import Architecture

GB = 1e9
CONTEXT = 0.8e9
"""Set aside on a GPU for CUDA's context and the workspaces of its libraries."""
FRAGMENTS = 0.05
"""Set aside for memory that the allocator holds and cannot use, as a share of what is needed."""
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes per number in 4 bits with double quantisation: a byte per 64, and four per 64 x 256 (arXiv 2305.14314)."""


@dataclass(frozen=True)
class Machine:
    """What decides how many bytes the same stage takes."""

    number: int = 2
    """Bytes of a weight where the precision is left to the machine: 2 on GPUs (bfloat16), 4 on CPUs."""
    fused: bool = True
    """Whether kernels of Triton run, which compute on logits in place."""
    processes: int = 1
    """Devices in all that train together."""
    fsdp: bool = False
    """Whether FSDP shares the trainings of TRL among them, where DeepSpeed does not. It does not share PPO's."""
    cpu: bool = False
    """Whether the device's memory is the machine's main memory, so that nothing can be put away there."""

    def bytes_of(self, precision: Precision) -> int:
        """Bytes of a weight."""
        return self.number if precision == "auto" else 4 if precision == "float32" else 2


GPU, CPU = Machine(), Machine(number=4, fused=False, cpu=True)


@dataclass(frozen=True)
class Memory:
    """Bytes at one moment of a stage."""

    moment: str = ""
    weights: float = 0
    """Of all models, without adapters."""
    adapters: float = 0
    gradients: float = 0
    optimizer: float = 0
    activations: float = 0
    """What layers keep for the backward pass, and what the one that computes holds."""
    logits: float = 0
    """What the output layer takes: logits and what is made of them."""
    cache: float = 0
    """Keys and values of generation."""
    host: float = 0
    """In the machine's main memory, where weights or the optimizer are offloaded: no part of the device's bytes."""
    most_kept: float = 0
    """Of all the stage's moments: the most that weights, adapters, gradients and optimizer take together."""

    @property
    def lasting(self) -> float:
        """What the stage needs however few and short its rows are."""
        return max(self.most_kept, self.weights + self.adapters + self.gradients + self.optimizer)

    @property
    def total(self) -> float:
        """All that the device holds, without the reserve."""
        return float(sum(getattr(self, name) for name in PARTS))

    def at(self, moment: str, **more: float) -> "Memory":
        """The same with `more` bytes in some of its parts."""
        return replace(
            self, moment=moment, **{name: getattr(self, name) + size for name, size in more.items()}
        )


PARTS = tuple(field.name for field in fields(Memory) if field.name not in ("moment", "host", "most_kept"))


def needed(total: float, machine: Machine = GPU) -> float:
    """What a device has to have for a stage that holds `total` bytes: with the reserve, and on a GPU with CUDA's."""
    return total * (1 + FRAGMENTS) + (0.0 if machine.cpu else CONTEXT)


def fullest(moments: list[Memory]) -> Memory:
    """The moment at which most memory is held. What lasts may be most at another one: long rows make the backward pass
    the fullest, and gradients are whole when the optimizer steps."""
    held = max(moments, key=lambda memory: memory.total)
    return replace(held, most_kept=max(memory.lasting for memory in moments))


def weight_bytes(shape: Architecture, parameters: int, number: int, *, four_bit: bool = False) -> float:
    """Bytes of `parameters` weights of a model; with `four_bit` the layers' matrices are quantised, the rest is not."""
    if not four_bit:
        return number * parameters
    matrices = shape.matrix_parameters()
    return NF4 * matrices + number * (parameters - matrices)


def copied(shape: Architecture, number: int, beside: int = 0) -> float:
    """Bytes of the copies in 16 bits that autocast computes with, of the layers' matrices and so many numbers `beside`
    them, while weights that are trained are held in float32; 0 where float32 is computed with."""
    return number * float(shape.matrix_parameters() + beside) if number < 4 else 0.0


@dataclass(frozen=True)
class Trained:
    """Parameters that an optimizer changes. AdamW keeps two moments of each, in the parameter's own format; weights
    that are trained whole are float32 (with DeepSpeed, which keeps such a copy, in 16 bits beside it)."""

    parameters: int
    number: int

    @property
    def size(self) -> float:
        """Bytes of the parameters, and of their gradients."""
        return self.parameters * self.number

    @property
    def moments(self) -> float:
        """Bytes of the optimizer's state."""
        return 2 * self.parameters * self.number
