"""The outer loop of RLHF: sample responses to a batch of prompts, reward them, learn from them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.examples import Example
from tasks.core.launching.termination import EndedEarly, heeding_termination
from tasks.core.stage import Report
from tasks.ppo.checkpoints import TrainingState, load_checkpoint, save_checkpoint
from tasks.ppo.config import PPOConfig
from tasks.ppo.kl_control import make_controller
from tasks.ppo.masked import process_count
from tasks.ppo.optimisation import update
from tasks.ppo.optimizer import make_optimizer, set_learning_rates
from tasks.ppo.processes import share
from tasks.ppo.roles import LanguageModelRoles
from tasks.ppo.running_moments import RunningMoments
from tasks.ppo.sampling import Sampler, SamplingEnded
from tasks.ppo.scores import Failures, Score
from tasks.ppo.sharding import ShardedOptimizer, whole_weights
from tasks.ppo.warning_signs import ENDING, before, said_of_steps, warning_signs


@dataclass(frozen=True)
class Prompt:
    """What is asked: the row, and its prompt as token ids."""

    example: Example
    tokens: list[int]


@dataclass(frozen=True)
class Trained:
    """How a training went."""

    figures: list[dict[str, float]]
    """Of every step."""
    warnings: list[str]
    """Of all steps, each with when it was seen."""
    stopped: str
    """Why not all steps were taken."""
    optimizer: Any = None
    """As it ended: `whole_weights` needs it, to save what is sharded."""


def train_policy(
    config: PPOConfig,
    roles: LanguageModelRoles,
    sampler: Sampler,
    score: Score,
    prompts: Sequence[Prompt],
    checkpoints: Path,
    checkpoint_steps: int,
    report: Report,
    failures: Failures | None = None,
) -> Trained:
    """Train the policy that `roles` holds, from the newest checkpoint on if there is one. `failures` are those that
    `score` counts.

    Of several processes each samples, rewards and learns from its share of every batch; all return the same, and the
    first alone writes checkpoints, from which any number of processes can go on. Ends early when the policy has
    collapsed to one token or has left the reference for good (`kl_alarm`), and when it is asked to (SIGTERM), then by
    an EndedEarly behind a checkpoint. Raises UserError for numbers that are not finite.
    """
    import torch

    controller, moments = make_controller(config), RunningMoments()
    # An entropy that nothing is paid for needs no gradient, which spares a product with the head.
    roles.entropy_gradient = config.entropy_coefficient > 0
    optimizer: Any
    resumed, optimizer = load_checkpoint(
        checkpoints, roles, lambda: _optimizer(roles, config), controller, moments
    )
    figures = resumed.figures if resumed else []
    failures = failures or Failures()
    failures.reason = resumed.failure if resumed else ""
    total, stopped = config.total_steps(), False
    # Streams are numbered over the whole batch: its responses do not hang on the number of processes.
    streams = share(config.batch_size)

    def keep(step: int) -> None:
        state = TrainingState(
            step=step,
            controller=controller.state_dict(),
            moments=moments.state_dict(),
            figures=figures,
            failure=failures.reason,
        )
        save_checkpoint(checkpoints, state, roles, optimizer)

    with heeding_termination() as asked:
        for step in range(len(figures), total):
            places = batch_of(step, config.batch_size, len(prompts), config.seed)
            batch = [prompts[places[stream]] for stream in streams]
            try:
                with whole_weights(optimizer):
                    rollout = sampler.sample([prompt.tokens for prompt in batch], step=step, streams=streams)
            except SamplingEnded as error:
                if not step or not asked():
                    raise
                # It heard what this process was asked as well.
                if not (checkpoints / f"step-{step}").exists():
                    keep(step)
                raise EndedEarly(f"asked to end; there is a checkpoint of step {step}") from error
            scores = score(rollout, [prompt.example for prompt in batch])
            set_learning_rates(optimizer, config, step)
            generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
            metrics = update(
                roles,
                rollout,
                scores,
                config,
                controller,
                optimizer,
                generator,
                moments=moments,
                separate_graphs=not roles.value_on_trunk,
            )
            metrics["reward/failed"] = float(failures.count)
            figures.append(metrics)
            report({"step": step + 1} | metrics)
            text = f"reward {metrics['reward/mean']:.3f}, KL {metrics['objective/kl']:.2f}"
            report({"progress": [step + 1, total], "text": text})
            stopped = not ENDING.isdisjoint(warning_signs(metrics, config, earlier=before(figures, step)))
            if stopped or step + 1 == total:  # asked to end or not, what is left is to save the policy
                break
            ends = asked()
            if ends or (step + 1) % checkpoint_steps == 0:
                keep(step + 1)
            if ends:
                raise EndedEarly(f"asked to end; there is a checkpoint of step {step + 1}")
    # From the figures, which are those of all steps in a resumed training as well.
    signs = [
        warning_signs(metrics, config, failures.reason, earlier=before(figures, number))
        for number, metrics in enumerate(figures)
    ]
    warnings = said_of_steps(signs)
    return Trained(figures, warnings, warnings[0] if stopped else "", optimizer)


def _optimizer(roles: LanguageModelRoles, config: PPOConfig) -> Any:
    optimizer = make_optimizer(roles, config)
    if not config.deepspeed or process_count() == 1:
        return optimizer
    return ShardedOptimizer(roles, optimizer, config.deepspeed, config.max_grad_norm)


def batch_of(step: int, size: int, prompts: int, seed: int) -> list[int]:
    """The places of a step's prompts: every prompt once in an order of its own for each pass over the data, then the
    next pass. It hangs on the arguments alone, so that a resumed training sees the same."""
    places: list[int] = []
    orders: dict[int, list[int]] = {}
    for position in range(step * size, (step + 1) * size):
        lap, place = divmod(position, prompts)
        if lap not in orders:
            orders[lap] = random.Random(f"{seed} {lap}").sample(range(prompts), prompts)
        places.append(orders[lap][place])
    return places
