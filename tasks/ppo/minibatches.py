"""Which responses are learnt from together."""

from typing import TYPE_CHECKING

from tasks.ppo.masked import process_count, sum_over_processes

if TYPE_CHECKING:
    from torch import Generator, Tensor


def minibatches(mask: "Tensor", size: int, generator: "Generator") -> list["Tensor"]:
    """The rows of a batch, `mask` [B, R], in random order and parts of nearly equal size, one per optimizer step.

    `size` is that over all processes, whose numbers of parts are the same even if their numbers of rows are not.
    """
    import torch

    everywhere = int(sum_over_processes(mask.new_tensor(len(mask), dtype=torch.long)))
    parts = -(-everywhere // max(size, process_count()))
    order = torch.randperm(len(mask), generator=generator, device=generator.device)
    return list(order.to(mask.device).tensor_split(parts))


def micro_batches(rows: "Tensor", mask: "Tensor", size: int) -> list["Tensor"]:
    """`rows` in parts of at most `size`, responses of similar length together, for less padding."""
    if not len(rows):
        return []
    lengths = mask[rows].sum(dim=1)
    return list(rows[lengths.argsort(descending=True, stable=True)].split(size))
