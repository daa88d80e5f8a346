"""What the update knows of a rollout before it changes the policy that made it."""

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from tasks.core.errors import UserError
from tasks.ppo.advantages import generalised_advantages, whiten
from tasks.ppo.config import PPOConfig
from tasks.ppo.masked import masked_moments, sum_over_processes
from tasks.ppo.minibatches import micro_batches
from tasks.ppo.reward_signal import kl_k1, kl_k3, shape_scores, token_rewards
from tasks.ppo.roles import Roles
from tasks.ppo.rollout import Rollout
from tasks.ppo.running_moments import RunningMoments
from tasks.ppo.warning_signs import one_token

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Experience:
    """A rollout with what is learnt from it, all [B, R], without gradients."""

    rollout: Rollout
    log_probabilities: "Tensor"
    """Of the policy that sampled."""
    values: "Tensor"
    """Before the update."""
    advantages: "Tensor"
    returns: "Tensor"


def gather_experience(
    roles: Roles,
    rollout: Rollout,
    scores: "Tensor",
    config: PPOConfig,
    *,
    kl_coefficient: float,
    moments: RunningMoments | None = None,
) -> tuple[Experience, dict[str, float]]:
    """Judge every token of a rollout with `scores` [B], and figures of it (means over all processes' responses).

    Raises UserError for a score that is not finite, before anything is computed, and for a KL that is not.
    """
    import torch

    _check_scores(scores)
    mask = rollout.mask
    policy, reference, values = evaluate(roles, rollout, config.micro_batch_size)
    shaped = shape_scores(
        scores.to(policy),
        rollout.ended,
        missing_eos_penalty=config.missing_eos_penalty,
        normalise=config.normalise_scores,
        clip=config.score_clip,
        moments=moments,
    )
    kl = kl_k1(policy, reference, mask)
    rewards = token_rewards(kl, shaped, mask, kl_coefficient)
    lam = config.lam if config.algorithm == "ppo" else 1.0
    advantages, returns = generalised_advantages(rewards, values, mask, gamma=config.gamma, lam=lam)
    unexplained, variance = (float(masked_moments(part, mask)[1]) for part in (advantages, returns))
    per_response = {
        "objective/kl": kl.sum(dim=1),
        "objective/kl_k3": kl_k3(policy, reference, mask).sum(dim=1),
        "objective/entropy": -policy.masked_fill(~mask, 0.0).sum(dim=1),
        "objective/non_score_reward": -kl_coefficient * kl.sum(dim=1),
        "objective/rlhf_reward": shaped - kl_coefficient * kl.sum(dim=1),
        "objective/scores": shaped,
        "reward/mean": scores,
        "val/response_tokens": mask.sum(dim=1),
        "val/num_eos_tokens": rollout.ended,
        "val/one_token_share": one_token(rollout),
    }
    sums = torch.stack([numbers.double().sum() for numbers in per_response.values()])
    episodes = float(sum_over_processes(sums.new_tensor(float(len(rollout)))))
    figures = dict(zip(per_response, (sum_over_processes(sums) / episodes).tolist(), strict=True))
    if not isfinite(figures["objective/kl"]):
        raise UserError(
            "the log-probabilities of the policy or the reference are not finite",
            field="ppo.policy_learning_rate",
            mend="lower it and run again: the training starts anew; with float16, take bfloat16 or float32",
        )
    figures["val/num_eos_tokens"] *= episodes
    figures |= {
        "reward/std": float(masked_moments(scores[:, None], torch.ones_like(mask[:, :1]))[1] ** 0.5),
        "objective/kl_coefficient": kl_coefficient,
        "val/episodes": episodes,
        "val/explained_variance": 1.0 - unexplained / variance if variance > 0 else 0.0,
    }
    if config.whiten:
        advantages = whiten(advantages, mask, shift_mean=config.whiten_mean)
    return Experience(rollout, policy, values, advantages, returns), figures


def evaluate(roles: Roles, rollout: Rollout, size: int) -> tuple["Tensor", "Tensor", "Tensor"]:
    """Log-probabilities under policy and reference, and values, all [B, R] without gradients, `size` rows at a time."""
    import torch

    rows = torch.arange(len(rollout), device=rollout.mask.device)
    found: list[Tensor] = []
    with torch.no_grad():
        for part in micro_batches(rows, rollout.mask, size):
            some = rollout.select(part)
            policy, _ = roles.policy(some)
            values = roles.values(some)  # right after the policy: a head on its trunk reuses that pass
            for number, tensor in enumerate((policy, roles.reference(some), values)):
                if number == len(found):
                    found.append(tensor.new_zeros(rollout.mask.shape))
                found[number][part] = tensor
    policy, reference, values = found
    return policy, reference, values


def _check_scores(scores: "Tensor") -> None:
    faulty = int(sum_over_processes((~scores.isfinite()).sum()))
    if faulty:
        raise UserError(
            f"{faulty} of the batch's rewards are not finite",
            field="reward",
            mend="look at what the reward does with these responses; a reward model in float16 overflows: take "
            "bfloat16 or float32",
        )
