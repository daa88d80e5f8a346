"""What RLOO and GRPO tell of each step, by the names that TRL's PPO had, and when they end early."""

from collections.abc import Sequence
from math import isfinite
from statistics import fmean
from typing import TYPE_CHECKING, Any

from tasks.core.errors import UserError
from tasks.core.stage import Report
from tasks.ppo.config import PPOConfig
from tasks.ppo.group_config import GroupConfig
from tasks.ppo.reward_signal import SMALLEST_STD
from tasks.ppo.scores import Failures
from tasks.ppo.warning_signs import ENDING, ENOUGH, warning_signs

if TYPE_CHECKING:
    from transformers import TrainerCallback

_NAMES = {
    "loss": "loss/policy_avg",
    "entropy": "policy/entropy_avg",
    "clip_ratio/region_mean": "policy/clipfrac_avg",
    "cispo_clip_ratio": "policy/clipfrac_avg",
    "grad_norm": "val/grad_norm",
    "learning_rate": "lr",
}
"""What TRL's trainers log, and the figure it is."""
_OURS = ("objective/", "reward/", "val/")
"""How the figures begin that `GroupEpisodes` and the trainer leave by their own names."""
_FAILURE = "failure"
"""Why a verifier failed, in the trainer's log."""


def figures_of_steps(
    history: Sequence[dict[str, Any]], config: PPOConfig, group: GroupConfig
) -> list[dict[str, float]]:
    """The figures of every step from a trainer's log, in which an optimizer step is an entry: means over the step's
    iterations of what each of them logs."""
    entries = [entry for entry in history if "loss" in entry]
    size = group.iterations
    parts = [entries[first : first + size] for first in range(0, len(entries), size)]
    return [_figures(part, config, group) for part in parts]


def _figures(entries: Sequence[dict[str, Any]], config: PPOConfig, group: GroupConfig) -> dict[str, float]:
    seen: dict[str, list[float]] = {}
    for entry in entries:
        for key, value in entry.items():
            if key in _NAMES or key.startswith(_OURS):
                seen.setdefault(_NAMES.get(key, key), []).append(float(value))
    figures = {name: fmean(values) for name, values in seen.items()}
    figures["objective/kl_coefficient"] = config.kl_coefficient
    figures["policy/optimizer_steps"] = float(group.iterations)
    if config.algorithm == "rloo" and "objective/kl" in figures:  # GRPO's penalty is no part of the reward
        figures["objective/non_score_reward"] = -config.kl_coefficient * figures["objective/kl"]
        figures["objective/rlhf_reward"] = figures["objective/scores"] + figures["objective/non_score_reward"]
    return figures


def last_failure(history: Sequence[dict[str, Any]]) -> str:
    """Why a verifier failed last, from a trainer's log, which lies in its checkpoints; empty where none did."""
    return next((str(entry[_FAILURE]) for entry in reversed(history) if entry.get(_FAILURE)), "")


def group_warning_signs(
    figures: dict[str, float],
    config: PPOConfig,
    failure: str = "",
    *,
    earlier: Sequence[dict[str, float]] = (),
) -> dict[str, str]:
    """`warning_signs` of a step's figures, with those that concern groups. Without a reference no KL is known."""
    found = warning_signs({"objective/kl": 0.0} | figures, config, failure, earlier=earlier)
    if figures["reward/frac_zero_std"] == 1.0 and figures["reward/std"] > SMALLEST_STD:
        found["groups"] = (
            "the responses to each prompt all have the same reward: there is nothing to learn from but the KL penalty. "
            "Raise group.responses or ppo.temperature, or leave out prompts that are too easy or too hard"
        )
    return found


def following(config: PPOConfig, group: GroupConfig, report: Report, failures: Failures) -> "TrainerCallback":
    """A callback that passes every step's figures and progress to `report`, notes in the trainer's log why a verifier
    failed (`failures`), and ends a training that has collapsed or whose KL has exploded; `stopped` is then true.

    Raises UserError, before anything is saved, for a loss or a gradient that is not finite.
    """
    from transformers import TrainerCallback

    class Following(TrainerCallback):
        def __init__(self) -> None:
            self.stopped = False

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
            if "loss" not in logs:
                return
            # The scaler of float16 skips steps whose gradient overflows, and goes on with a smaller scale.
            _check(logs, ("loss",) if args.fp16 else ("loss", "grad_norm"))
            if failures.count:
                state.log_history[-1][_FAILURE] = failures.reason
            step, iterations_left = divmod(state.global_step, group.iterations)
            if iterations_left:
                return
            # Of the last steps, which lie in checkpoints: a resumed training ends where it would have ended.
            *earlier, figures = figures_of_steps(
                state.log_history[-(ENOUGH + 1) * group.iterations :], config, group
            )
            if state.is_world_process_zero:
                report({"step": step} | figures)
                kl = f", KL {figures['objective/kl']:.2f}" if "objective/kl" in figures else ""
                text = f"reward {figures['reward/mean']:.3f}{kl}"
                report({"progress": [step, config.total_steps()], "text": text})
            if not ENDING.isdisjoint(group_warning_signs(figures, config, earlier=earlier)):
                self.stopped = True
                control.should_training_stop = True
                control.should_save = False  # a run resumed from here would go on

    return Following()


def _check(logs: dict[str, Any], names: Sequence[str]) -> None:
    faulty = [name for name in names if not isfinite(float(logs.get(name, 0.0)))]
    if faulty:
        raise UserError(
            f"the update is not finite any more: {', '.join(faulty)}",
            field="ppo.policy_learning_rate",
            mend="lower it and run again: the training starts anew; with float16, take bfloat16 or float32",
        )
