"""Which responses pass through the network together."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def micro_batches(rows: "Tensor", mask: "Tensor", size: int) -> list["Tensor"]:
    """`rows` in parts of at most `size`, responses of similar length together, for less padding."""
    if not len(rows):
        return []
    lengths = mask[rows].sum(dim=1)
    return list(rows[lengths.argsort(descending=True, stable=True)].split(size))
