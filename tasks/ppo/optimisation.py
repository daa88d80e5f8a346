"""The update: several epochs of minibatches over one rollout (Schulman et al. 2017, algorithm 1)."""

from math import isfinite
from typing import TYPE_CHECKING, Any

from tasks.core.errors import UserError
from tasks.ppo.config import PPOConfig
from tasks.ppo.experience import Experience, gather_experience
from tasks.ppo.kl_control import KLController
from tasks.ppo.losses import (
    approximate_kl,
    clipped_policy_loss,
    clipped_value_loss,
    log_ratio,
    reinforce_loss,
)
from tasks.ppo.masked import sum_over_processes, token_mean
from tasks.ppo.minibatches import micro_batches
from tasks.ppo.optimizer import go_back, reduce_gradients
from tasks.ppo.processes import positions, shared_minibatches
from tasks.ppo.roles import Roles
from tasks.ppo.rollout import Rollout
from tasks.ppo.running_moments import RunningMoments
from tasks.ppo.sharding import ShardedOptimizer

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.optim import Optimizer

FIGURES = (
    "loss/policy_avg",
    "loss/value_avg",
    "policy/entropy_avg",
    "policy/approxkl_avg",
    "policy/clipfrac_avg",
    "val/clipfrac_avg",
    "val/ratio",
)
"""Means over a minibatch's valid tokens, in the order in which `_accumulate` gives them."""


def update(
    roles: Roles,
    rollout: Rollout,
    scores: "Tensor",
    config: PPOConfig,
    controller: KLController,
    optimizer: "Optimizer",
    generator: "Generator",
    *,
    moments: RunningMoments | None = None,
    separate_graphs: bool = False,
) -> dict[str, float]:
    """Improve the policy and the value function on one rollout, of which `scores` [B] are the rewards, and tell how it
    went by the names that TRL's PPO had.

    The responses have to be the policy's own as it is now. With `algorithm: reinforce` the whole batch makes one
    optimizer step, the advantages are the rewards that were to come less the value (lam = 1), and clips do nothing.
    `moments` are those of `normalise_scores`. `separate_graphs` says that policy and values have no activations in
    common (anything but a value head on the policy's trunk): each then goes backward by itself, and the activations of
    one are let go before those of the other are made. Of several processes each gives responses of its own, those of
    the ranks following one another; what they learn is what one would have learnt from all of them with the same
    `generator`, and every one returns the same figures.

    Figures of the batch are means per response: `objective/*`, `reward/*`, `val/response_tokens`; `val/num_eos_tokens`
    counts. Those of the losses are means over the valid tokens of a minibatch, and then over the minibatches; the last
    one, on which `target_kl` may have ended the epochs, is among them, without having been learnt from.
    `val/ratio_var` is the variance of the minibatches' mean ratios. Raises UserError for a score, a KL, a loss or a
    gradient that is not finite; the weights are then those of the last good step.
    """
    import torch

    experience, metrics = gather_experience(
        roles, rollout, scores, config, kl_coefficient=controller.coefficient, moments=moments
    )
    controller.update(metrics["objective/kl"], round(metrics["val/episodes"]))
    on_policy = config.algorithm == "reinforce"
    first, everywhere = positions(len(rollout))
    size = everywhere if on_policy else config.minibatch_size
    seen: list[Tensor] = []
    norms: list[Tensor] = []
    stopped = False
    for _ in range(1 if on_policy else config.epochs):
        for those in shared_minibatches(everywhere, size, generator):
            rows = (those[(those >= first) & (those < first + len(rollout))] - first).to(rollout.mask.device)
            optimizer.zero_grad(set_to_none=True)
            # The first step is always made: before it, rounding alone parts the policy from the one that sampled.
            may_stop = not on_policy and bool(norms) and config.target_kl > 0.0
            if may_stop and isinstance(
                optimizer, ShardedOptimizer
            ):  # gradients, once there, could not be dropped
                with torch.no_grad():
                    looked = _accumulate(roles, experience, rows, config, separate_graphs, optimizer)
                if _moved(looked) > config.target_kl:
                    seen.append(looked)
                    stopped = True
                    break
            seen.append(_accumulate(roles, experience, rows, config, separate_graphs, optimizer))
            _check(seen[-1])
            stopped = may_stop and _moved(seen[-1]) > config.target_kl
            if stopped:
                break
            norms.append(_step(optimizer, config))
        if stopped:
            break
    optimizer.zero_grad(set_to_none=True)
    table = torch.stack(seen)
    metrics |= dict(zip(FIGURES, table.mean(dim=0).tolist(), strict=True))
    metrics |= {
        "val/ratio_var": float(table[:, FIGURES.index("val/ratio")].var(correction=0)),
        "val/grad_norm": float(torch.stack(norms).mean()),
        "policy/optimizer_steps": float(len(norms)),
        "policy/stopped_early": float(stopped),
        "lr": float(optimizer.param_groups[0]["lr"]),
    }
    return metrics


def _accumulate(
    roles: Roles,
    experience: Experience,
    rows: "Tensor",
    config: PPOConfig,
    separate_graphs: bool,
    optimizer: Any,
) -> "Tensor":
    """Add the gradients of a minibatch to those of the parameters, and return its FIGURES over all processes."""
    import torch

    tokens = sum_over_processes(experience.rollout.mask[rows].sum()).clamp(min=1)
    figures = torch.zeros(len(FIGURES), dtype=torch.float64, device=tokens.device)
    for part in micro_batches(rows, experience.rollout.mask, config.micro_batch_size):
        some = experience.rollout.select(part)
        mask, old = some.mask, experience.log_probabilities[part]
        advantages = experience.advantages[part]
        new, entropies = roles.policy(some)
        if config.algorithm == "reinforce":
            policy = reinforce_loss(new, advantages, mask, tokens=tokens)
        else:
            policy = clipped_policy_loss(new, old, advantages, mask, clip=config.clip, tokens=tokens)
        entropy = token_mean(entropies, mask, tokens)
        loss = policy.loss
        if config.entropy_coefficient:
            loss = loss - config.entropy_coefficient * entropy
        if separate_graphs:
            go_back(loss, optimizer)
            loss = loss.detach()
        value = clipped_value_loss(
            roles.values(some),  # right after the policy: a head on its trunk reuses that pass
            experience.values[part],
            experience.returns[part],
            mask,
            clip=config.value_clip,
            tokens=tokens,
        )
        go_back(loss + config.value_coefficient * value.loss, optimizer)
        moved = approximate_kl(new, old, mask, tokens=tokens)
        ratio = token_mean(log_ratio(new.detach(), old, mask).exp(), mask, tokens)
        parts = (policy.loss, value.loss, entropy, moved, policy.clipped, value.clipped, ratio)
        figures += torch.stack([number.detach().double() for number in parts])
    return sum_over_processes(figures)


def _step(optimizer: "Optimizer", config: PPOConfig) -> "Tensor":
    """Change the weights, unless the gradient is not finite; the norm it had."""
    if isinstance(optimizer, ShardedOptimizer):
        norm = optimizer.step()
        if not norm.isfinite():
            raise _not_finite("its gradient")
        return norm
    norm = reduce_gradients(optimizer, config.max_grad_norm)
    if not norm.isfinite():
        raise _not_finite("its gradient")
    optimizer.step()
    return norm


def _moved(figures: "Tensor") -> float:
    return float(figures[FIGURES.index("policy/approxkl_avg")])


def _check(figures: "Tensor") -> None:
    faulty = [name for name, number in zip(FIGURES, figures.tolist(), strict=True) if not isfinite(number)]
    if faulty:
        raise _not_finite(", ".join(faulty))


def _not_finite(what: str) -> UserError:
    return UserError(
        f"the update is not finite any more: {what}",
        field="ppo.policy_learning_rate",
        mend="lower it, ppo.value_learning_rate or ppo.target_kl, and run again: the training starts anew; with "
        "float16, take bfloat16 or float32",
    )
