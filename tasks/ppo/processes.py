"""Several processes that train one policy: how they meet, who has which responses, and who writes."""

import os
from typing import TYPE_CHECKING, Any

from tasks.ppo.masked import process_count, sum_over_processes

if TYPE_CHECKING:
    from torch import Generator, Tensor


def join_processes() -> None:
    """Meet the other processes that torchrun or accelerate started with this one (NCCL with GPUs, else gloo) and take
    the GPU that is this one's; a lone process does nothing. To be called before a model is loaded."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        import torch
        from accelerate import PartialState  # type: ignore[import-untyped]

        PartialState(cpu=not torch.cuda.is_available())


def process_number() -> int:
    """This process's rank; 0 in a lone one. The first alone writes files."""
    import torch.distributed as dist

    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def share(total: int) -> range:
    """The positions in a batch of `total` that this process takes: as many as every other, one after the other, in the
    order of the ranks. Raises ValueError where that is impossible (`config.check_processes` says so before)."""
    each, rest = divmod(total, process_count())
    if rest:
        raise ValueError(f"{process_count()} processes cannot share {total} evenly")
    return range(process_number() * each, (process_number() + 1) * each)


def positions(here: int) -> tuple[int, int]:
    """The position of the first of this process's `here` responses among those of all processes, which follow one
    another in the order of the ranks, and the number of all. Every process has to call it."""
    import torch

    if process_count() == 1:
        return 0, here
    counts = torch.zeros(process_count(), dtype=torch.long, device=_device())
    counts[process_number()] = here
    counts = sum_over_processes(counts)
    return int(counts[: process_number()].sum()), int(counts.sum())


def shared_minibatches(responses: int, size: int, generator: "Generator") -> list["Tensor"]:
    """The positions 0 to `responses` - 1 at random in minibatches of `size` or, where that does not divide them, of
    nearly equal size below it; one optimizer step each.

    Of every `responses` / `size` neighbours each minibatch gets one, a different order for all of them. So processes
    that each hold a run of neighbours have equally many rows of every minibatch (where their number divides `size`),
    and the minibatches are the same ones however many processes there are.
    """
    import torch

    parts = -(-responses // min(size, responses))
    neighbours = -(-responses // parts)
    order = torch.rand(neighbours, parts, generator=generator, device=generator.device).argsort(dim=1)
    table = torch.arange(neighbours, device=order.device)[:, None] * parts + order
    return [column[column < responses] for column in table.unbind(dim=1)]


def from_first(value: Any) -> Any:
    """What the first process gave as `value`, a JSON value; the others' is not looked at. Nobody goes on before all
    have it, so that what the first has written is there for everyone."""
    import torch.distributed as dist

    if process_count() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    wait_for_all()
    return box[0]


def last_of_processes(text: str) -> str:
    """The last text that is not empty, of those that the processes give in the order of their ranks. Every process has
    to call it."""
    import torch.distributed as dist

    if process_count() == 1:
        return text
    texts = [""] * process_count()
    dist.all_gather_object(texts, text)
    return next((said for said in reversed(texts) if said), "")


def wait_for_all() -> None:
    """Go on when every process has come here."""
    import torch.distributed as dist

    if process_count() > 1:
        dist.barrier()


def _device() -> str:
    """Where processes can send from: NCCL knows GPUs alone."""
    import torch.distributed as dist

    return "cuda" if dist.get_backend() == "nccl" else "cpu"
