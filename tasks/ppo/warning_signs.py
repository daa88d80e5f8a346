"""What shows that a training goes wrong although every number is finite: collapse, explosion, no signal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.ppo.config import PPOConfig
from tasks.ppo.reward_signal import SMALLEST_STD, last_token
from tasks.ppo.rollout import Rollout

if TYPE_CHECKING:
    from torch import Tensor

SHORTEST = 4
"""Responses of fewer tokens may well repeat one."""
MOST_COLLAPSED = 0.9
ENOUGH = 16
"""Responses that a collapse is told by: those of the last steps together where a batch has fewer. One of a single
response, which may well be only the end token, shows nothing."""
SIGNS = ("collapsed", "exploded", "failed", "constant", "groups", "cut")
"""The names of what may be wrong, the gravest first."""
ENDING = {"collapsed", "exploded"}
_KEPT = "The policy that was kept is the one of this step"


def one_token(rollout: Rollout) -> "Tensor":
    """True [B] for responses that are nothing but one token over and over, or nothing but the end token.

    The end token at the end does not count as another one; fewer than 4 tokens before it are never a repetition.
    """
    words = rollout.mask & ~(last_token(rollout.mask) & rollout.ended[:, None])
    lengths = words.sum(dim=1)
    same = ((rollout.responses == rollout.responses[:, :1]) | ~words).all(dim=1)
    return (same & (lengths >= SHORTEST)) | (lengths == 0)


def warning_signs(
    metrics: dict[str, float],
    config: PPOConfig,
    failure: str = "",
    *,
    earlier: Sequence[dict[str, float]] = (),
) -> dict[str, str]:
    """Sentences about what is wrong in an update's metrics, each with what to do, by a name; none when nothing shows.
    `failure` is why a verifier failed last; `earlier` are the metrics of (at least the last 16) steps before, which a
    collapse is told by as well where the batch is small.

    `collapsed` and `exploded` mean that going on is no use: the policy has collapsed, or has left the reference for
    good.
    """
    found = {}
    share, responses = _one_token_share([*earlier[-ENOUGH:], metrics])
    if responses >= ENOUGH and share > MOST_COLLAPSED:
        found["collapsed"] = (
            f"the policy has collapsed: {share:.0%} of the last {responses:.0f} responses are one token over and "
            f"over, or only the end token. {_KEPT}. Lower ppo.policy_learning_rate or raise ppo.kl_coefficient, and "
            "run again: the training starts anew"
        )
    if metrics["objective/kl"] > config.kl_alarm:
        found["exploded"] = (
            f"the KL has exploded: {metrics['objective/kl']:.3g} nats per response from the reference. "
            f"{_KEPT}. Lower ppo.policy_learning_rate or ppo.target_kl or raise ppo.kl_coefficient, and run again: the "
            "training starts anew"
        )
    if failed := metrics.get("reward/failed", 0.0):
        found["failed"] = (
            f"{failed:.0f} of {metrics['val/episodes']:.0f} responses have the reward 0 because the verifier failed on "
            f"them, at last because {failure}. Mend the problem's score or reward.function"
        )
    if metrics["val/episodes"] > 1 and metrics["reward/std"] <= SMALLEST_STD:
        found["constant"] = (
            f"all {metrics['val/episodes']:.0f} responses have the same reward, {metrics['reward/mean']:g}: there is "
            "nothing to learn from but the KL penalty. Look at the reward, or raise ppo.batch_size"
        )
    if metrics["val/num_eos_tokens"] == 0:
        found["cut"] = (
            f"all responses were cut at the limit of {config.max_new_tokens} tokens. Raise ppo.max_new_tokens or "
            "ppo.missing_eos_penalty"
        )
    return found


def _one_token_share(steps: Sequence[dict[str, float]]) -> tuple[float, float]:
    """The share of the last responses that are one token, over as many steps as have ENOUGH, and how many these are."""
    collapsed = responses = 0.0
    for step in reversed(steps):
        collapsed += step["val/one_token_share"] * step["val/episodes"]
        responses += step["val/episodes"]
        if responses >= ENOUGH:
            break
    return collapsed / responses, responses


def before(steps: Sequence[dict[str, float]], number: int) -> Sequence[dict[str, float]]:
    """The steps before the one at place `number` that `warning_signs` may look at."""
    return steps[max(0, number - ENOUGH) : number]


def said_of_steps(steps: Sequence[dict[str, str]]) -> list[str]:
    """What was found wrong at any of the steps, once each, as it was last said, with at which steps; what ends a
    training comes first."""
    return [
        f"{[step[name] for step in steps if name in step][-1]} ({_when(name, steps)})"
        for name in SIGNS
        if any(name in step for step in steps)
    ]


def _when(name: str, steps: Sequence[dict[str, str]]) -> str:
    seen = [number for number, step in enumerate(steps, 1) if name in step]
    return f"at {len(seen)} of {len(steps)} steps, last at step {seen[-1]}"
