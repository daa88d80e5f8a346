"""The losses of policy and value function.

Every number here is a sum over valid tokens divided by `tokens`, the number of valid tokens of the whole minibatch over
all its micro batches and processes (when None: of this batch). So the losses, gradients and figures of the parts of a
minibatch add up to those of the whole, whatever the parts: each token counts alike, and a long response more than a
short one.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.ppo.masked import token_mean

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """A loss with its gradients, and figures without."""

    loss: "Tensor"
    clipped: "Tensor"
    """Share of the tokens whose loss is that of the clipped term."""


def clipped_policy_loss(
    new: "Tensor",
    old: "Tensor",
    advantages: "Tensor",
    mask: "Tensor",
    *,
    clip: float,
    tokens: "Tensor | float | None" = None,
) -> Loss:
    """-min(r A, clip(r, 1 - clip, 1 + clip) A) with r = exp(new - old) (Schulman et al. 2017, eq. 7).

    `new` and `old` are log-probabilities [B, R] of the sampled tokens under the policy and the one that sampled.
    """
    import torch

    ratio = log_ratio(new, old, mask).exp()
    plain = -advantages * ratio
    bounded = -advantages * ratio.clamp(1.0 - clip, 1.0 + clip)
    chosen = token_mean(torch.maximum(plain, bounded), mask, tokens)
    return Loss(chosen, token_mean((bounded > plain).to(plain.dtype), mask, tokens).detach())


def reinforce_loss(
    new: "Tensor", advantages: "Tensor", mask: "Tensor", *, tokens: "Tensor | float | None" = None
) -> Loss:
    """-log(policy) * A: the policy gradient with a baseline (Williams 1992), which PERL trains with."""
    import torch

    loss = token_mean(-advantages.masked_fill(~mask, 0.0) * new, mask, tokens)
    return Loss(loss, torch.zeros_like(loss).detach())


def clipped_value_loss(
    new: "Tensor",
    old: "Tensor",
    returns: "Tensor",
    mask: "Tensor",
    *,
    clip: float,
    tokens: "Tensor | float | None" = None,
) -> Loss:
    """0.5 max((v - G)^2, (clip(v, v_old - clip, v_old + clip) - G)^2) with returns G (Huang et al. 2024, "value
    function loss clipping"); a `clip` of 0 is none."""
    import torch

    plain = (new - returns).square()
    if not clip:
        loss = 0.5 * token_mean(plain, mask, tokens)
        return Loss(loss, torch.zeros_like(loss).detach())
    bounded = (torch.minimum(torch.maximum(new, old - clip), old + clip) - returns).square()
    loss = 0.5 * token_mean(torch.maximum(plain, bounded), mask, tokens)
    return Loss(loss, token_mean((bounded > plain).to(plain.dtype), mask, tokens).detach())


def log_ratio(new: "Tensor", old: "Tensor", mask: "Tensor") -> "Tensor":
    """log(policy / the one that sampled) of each token [B, R]; 0 at padding."""
    return (new - old).masked_fill(~mask, 0.0)


def approximate_kl(
    new: "Tensor", old: "Tensor", mask: "Tensor", *, tokens: "Tensor | float | None" = None
) -> "Tensor":
    """0.5 (new - old)^2 per token, how far the policy has moved from the one that sampled: the estimator k2 (Schulman
    2020), the one that is known as `approxkl`. Without gradients."""
    return token_mean(0.5 * log_ratio(new, old, mask).detach().square(), mask, tokens)
