"""Sums and moments over the valid tokens of a batch, and over all processes that train together."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def sum_over_processes(numbers: "Tensor") -> "Tensor":
    """The element-wise sum of every process's `numbers`, without gradients; in a lone process they themselves.

    Every process has to call it the same number of times with the same shape.
    """
    import torch.distributed as dist

    numbers = numbers.detach()
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        numbers = numbers.clone()
        dist.all_reduce(numbers)
    return numbers


def process_count() -> int:
    """How many processes train together."""
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def token_mean(numbers: "Tensor", mask: "Tensor", tokens: "Tensor | float | None" = None) -> "Tensor":
    """The sum over valid tokens of `numbers` [B, R], divided by `tokens`; by their number here when None.

    With `tokens` the number of valid tokens of the whole minibatch, the results of its micro batches add up to the
    minibatch's mean, however unequally its tokens are spread over them.
    """
    if tokens is None:
        tokens = mask.sum().clamp(min=1)
    return numbers.masked_fill(~mask, 0.0).sum() / tokens


def masked_moments(numbers: "Tensor", mask: "Tensor") -> tuple["Tensor", "Tensor"]:
    """Mean and unbiased variance of the valid entries, of all processes together, without gradients.

    The variance of fewer than two entries is 0, and so is the mean of none.
    """
    import torch

    valid = numbers.detach().masked_fill(~mask, 0.0)
    total, count = sum_over_processes(torch.stack([valid.sum(), mask.sum().to(valid.dtype)]))
    mean = total / count.clamp(min=1)
    # A second pass: the difference of two large sums of squares would lose the digits that count.
    deviations = (valid - mean).masked_fill(~mask, 0.0).square().sum()
    return mean, sum_over_processes(deviations) / (count - 1).clamp(min=1)
