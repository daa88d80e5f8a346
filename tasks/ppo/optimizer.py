"""The optimizer of policy and value function, and its learning rates as a function of the step alone."""

from typing import TYPE_CHECKING, Any

from tasks.ppo.config import PPOConfig
from tasks.ppo.masked import process_count
from tasks.ppo.roles import Roles
from tasks.ppo.sharding import ShardedOptimizer

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer


def make_optimizer(roles: Roles, config: PPOConfig) -> "Optimizer":
    """AdamW with two groups: the policy's parameters first, then those of the value function alone."""
    import torch

    groups: list[dict[str, Any]] = [
        {"params": roles.policy_parameters(), "lr": config.policy_learning_rate},
        {"params": roles.value_parameters(), "lr": config.value_learning_rate},
    ]
    return torch.optim.AdamW(groups, eps=config.adam_epsilon, weight_decay=0.0)


def set_learning_rates(optimizer: "Optimizer", config: PPOConfig, step: int) -> None:
    """Set the rates of step number `step`, counted from 0; there is no schedule's state to save."""
    left = 1.0 - step / config.total_steps() if config.schedule == "linear" else 1.0
    rates = (config.policy_learning_rate, config.value_learning_rate)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * max(0.0, left)


def go_back(loss: "Tensor", optimizer: Any) -> None:
    """Add the gradients of `loss` to those that the optimizer's next step is made of."""
    import torch

    if not torch.is_grad_enabled():
        return
    if isinstance(optimizer, ShardedOptimizer):
        optimizer.backward(loss)
    else:
        loss.backward()


def reduce_gradients(optimizer: "Optimizer", most: float) -> "Tensor":
    """Add the gradients of all processes up, shorten them together to the norm `most` (0 leaves them) and return the
    norm they had.

    A sum and no mean: each process has divided its loss by the tokens of all.
    """
    import torch
    import torch.distributed as dist

    parameters = [part for group in optimizer.param_groups for part in group["params"]]
    if process_count() > 1:
        for part in parameters:
            if part.grad is None:  # this process may have had no response of the minibatch
                part.grad = torch.zeros_like(part)
            dist.all_reduce(part.grad)
    norm: Tensor = torch.nn.utils.clip_grad_norm_(parameters, most or float("inf"))
    return norm
