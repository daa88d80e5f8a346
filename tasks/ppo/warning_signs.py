"""What shows that a training goes wrong although every number is finite: collapse, explosion, no signal."""

from typing import TYPE_CHECKING

from tasks.ppo.config import PPOConfig
from tasks.ppo.rollout import Rollout

if TYPE_CHECKING:
    from torch import Tensor

SHORTEST = 4
"""Responses of fewer tokens may well repeat one."""
MOST_COLLAPSED = 0.9


def one_token(rollout: Rollout) -> "Tensor":
    """True [B] for responses that are nothing but one token over and over, or nothing but the end token.

    The end token at the end does not count as another one; fewer than 4 tokens before it are never a repetition.
    """
    from tasks.ppo.reward_signal import last_token

    words = rollout.mask & ~(last_token(rollout.mask) & rollout.ended[:, None])
    lengths = words.sum(dim=1)
    same = ((rollout.responses == rollout.responses[:, :1]) | ~words).all(dim=1)
    return (same & (lengths >= SHORTEST)) | (lengths == 0)


def warning_signs(metrics: dict[str, float], config: PPOConfig) -> list[str]:
    """Sentences about what is wrong in an update's metrics, each with what to do; none when nothing shows.

    The first two mean that going on is no use: the policy has collapsed, or has left the reference for good.
    """
    found = []
    if metrics["val/one_token_share"] > MOST_COLLAPSED:
        found.append(
            f"the policy has collapsed: {metrics['val/one_token_share']:.0%} of the responses are one token over and "
            "over, or only the end token. Go back to an earlier checkpoint, lower ppo.policy_learning_rate, raise "
            "ppo.kl_coefficient"
        )
    if metrics["objective/kl"] > config.kl_alarm:
        found.append(
            f"the KL has exploded: {metrics['objective/kl']:.3g} nats per response from the reference. Lower "
            "ppo.policy_learning_rate or ppo.target_kl, raise ppo.kl_coefficient"
        )
    if metrics["val/episodes"] > 1 and metrics["reward/std"] == 0.0:
        found.append(
            f"all {metrics['val/episodes']:.0f} responses have the same reward, {metrics['reward/mean']:g}: there is "
            "nothing to learn from but the KL penalty. Look at the reward, or raise ppo.batch_size"
        )
    if metrics["val/num_eos_tokens"] == 0:
        found.append(
            f"all responses were cut at the limit of {config.max_new_tokens} tokens. Raise ppo.max_new_tokens or "
            "ppo.missing_eos_penalty"
        )
    return found
