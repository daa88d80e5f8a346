"""How much better each token did than the value function expected."""

from typing import TYPE_CHECKING

from tasks.ppo.masked import masked_moments

if TYPE_CHECKING:
    from torch import Tensor


def generalised_advantages(
    rewards: "Tensor", values: "Tensor", mask: "Tensor", *, gamma: float, lam: float
) -> tuple["Tensor", "Tensor"]:
    """Advantages and returns [B, R] of the valid tokens, 0 at padding, without gradients.

    Generalised advantage estimation (Schulman et al. 2016, eq. 16) over a finite horizon: with `values` [B, R] before
    each token, delta_t = reward_t + gamma * value_{t+1} - value_t, where the value after a response's last token is 0,
    and advantage_t = delta_t + gamma * lam * advantage_{t+1}. The return, which the value function is fitted to, is
    advantage + value. `lam` 1 makes it the discounted sum of the rewards that were to come; `mask` has one run of valid
    tokens per row.
    """
    import torch

    rewards = rewards.detach().masked_fill(~mask, 0.0)
    values = values.detach().masked_fill(~mask, 0.0)
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    deltas = rewards + gamma * following - values
    advantages = torch.zeros_like(deltas)
    later = torch.zeros_like(deltas[:, 0])
    for time in reversed(range(deltas.shape[1])):
        later = (deltas[:, time] + gamma * lam * later).masked_fill(~mask[:, time], 0.0)
        advantages[:, time] = later
    return advantages, advantages + values


def whiten(numbers: "Tensor", mask: "Tensor", *, shift_mean: bool = True) -> "Tensor":
    """The valid entries [B, R] brought to mean 0 and variance 1, over all processes; 0 at padding.

    Without `shift_mean` they keep their mean and only their spread becomes 1. A lone valid entry, or equal ones, become
    0 (or stay as they are without the shift), never NaN. Huang et al. 2024, "reward and advantage whitening".
    """
    mean, variance = masked_moments(numbers, mask)
    white = (numbers - mean) * (variance + 1e-8).rsqrt()
    if not shift_mean:
        white = white + mean
    return white.masked_fill(~mask, 0.0)
