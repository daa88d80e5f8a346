"""RLOO (Ahmadian et al. 2024, arXiv 2402.14740) and GRPO (Shao et al. 2024, arXiv 2402.03300) by TRL's trainers.

Both do without a value function: what a response is worth beyond expectation is told by the other responses to its
prompt. RLOO takes the mean of the others off its reward, GRPO the mean of all, in units of their standard deviation.
"""

import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tasks.core.digests import folder_digest
from tasks.core.models import load_model, torch_dtype
from tasks.core.references import ModelRef
from tasks.core.stage import Report
from tasks.ppo.config import PPOConfig
from tasks.ppo.group_arguments import group_arguments
from tasks.ppo.group_config import GroupConfig, check_group
from tasks.ppo.group_episodes import GroupEpisodes
from tasks.ppo.group_progress import figures_of_steps, following, group_warning_signs, last_failure
from tasks.ppo.group_trainer import on_episodes
from tasks.ppo.mixed_precision import computing
from tasks.ppo.roles_config import RolesConfig
from tasks.ppo.roles_config import check as check_roles
from tasks.ppo.sampling import PolicySampler
from tasks.ppo.scores import Failures, Score
from tasks.ppo.shared_base import check_bases
from tasks.ppo.training import Prompt, Trained, batch_of
from tasks.ppo.warning_signs import before, said_of_steps
from tasks.sft.adapter import lora_config
from tasks.sft.checkpoints import reporting, train_to_the_end
from tasks.sft.saving import save_trained

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class GroupPolicy:
    """A policy without a value function beside it, before a trainer has it; a sampler's `roles`."""

    model: Any
    """The causal language model, into which the trainer puts the adapter."""
    base: ModelRef
    """The full weights it was loaded from: the reference."""
    temperature: float
    sampling: AbstractContextManager[None]

    def sampler(self, config: PPOConfig, tokenizer: "PreTrainedTokenizerBase") -> PolicySampler:
        """What draws responses from the policy, as it is at the time."""
        return PolicySampler(
            cast(Any, self), tokenizer, max_new_tokens=config.max_new_tokens, seed=config.seed
        )


def load_group_policy(
    config: PPOConfig, group: GroupConfig, roles: RolesConfig, base: ModelRef
) -> GroupPolicy:
    """The policy that `make_group_trainer` trains. Raises UserError for settings that contradict each other and for a
    `base` that is an adapter."""
    check_roles(roles)
    check_group(config, group)
    check_bases(base, None)
    if roles.method != "full":
        model = load_model(base, precision=roles.precision, four_bit=roles.method == "qlora")
        return GroupPolicy(model, base, config.temperature, nullcontext())
    # The trainer, too, computes in `roles.precision` under autocast.
    model = load_model(base, precision="float32")
    return GroupPolicy(model, base, config.temperature, computing(model, roles.precision))


def make_group_trainer(
    config: PPOConfig,
    group: GroupConfig,
    roles: RolesConfig,
    policy: GroupPolicy,
    tokenizer: "PreTrainedTokenizerBase",
    score: Score,
    prompts: Sequence[Prompt],
    checkpoints: Path,
    checkpoint_steps: int = 10,
    failures: Failures | None = None,
) -> Any:
    """TRL's trainer for `config.algorithm`, with a new adapter on the policy's model or (`full`) the model itself, and
    its reference: the model with the adapter off, or a copy."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    keywords = group_arguments(config, group, checkpoints, checkpoint_steps, torch_dtype(roles.precision)) | {
        "seed": roles.seed,
        "gradient_checkpointing": roles.gradient_checkpointing,
        "trust_remote_code": bool(policy.base.facts.get("trust_remote_code", False)),
    }
    if config.algorithm == "rloo":
        kind, arguments = (
            RLOOTrainer,
            RLOOConfig(normalize_advantages=group.scale_rewards == "batch", **keywords),
        )
    else:
        scale = "group" if group.scale_rewards == "auto" else group.scale_rewards
        kind = GRPOTrainer
        arguments = GRPOConfig(
            scale_rewards=scale,
            loss_type=group.loss,
            importance_sampling_level=group.ratio,
            entropy_coef=config.entropy_coefficient,
            **keywords,
        )
    asked = config.total_steps() * (config.batch_size // group.responses)
    places = batch_of(0, asked, len(prompts), config.seed)
    episodes = GroupEpisodes(
        config, group.responses, policy.sampler(config, tokenizer), score, prompts, failures
    )
    adapter = None
    if roles.method != "full":
        adapter = lora_config(roles.adapter, policy.model, field="roles.adapter.modules")
    return on_episodes(kind, episodes, config.seed)(
        model=policy.model,
        reward_funcs=episodes.scores,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": [str(place) for place in places]}),
        processing_class=tokenizer,
        peft_config=adapter,
    )


def train_group_relative(
    config: PPOConfig,
    group: GroupConfig,
    roles: RolesConfig,
    policy: GroupPolicy,
    tokenizer: "PreTrainedTokenizerBase",
    score: Score,
    prompts: Sequence[Prompt],
    checkpoints: Path,
    checkpoint_steps: int,
    report: Report,
    folder: Path,
    failures: Failures | None = None,
) -> tuple[Trained, ModelRef]:
    """Train the policy, from the newest whole checkpoint on if there is one, and save it to `folder` as `save_policy`
    does: an adapter on its base, or full weights.

    Of several processes each takes its share of every batch; all have to call it. Ends early when the policy has
    collapsed to one token or has left the reference for good (`kl_alarm`), and when it is asked to (SIGTERM), then by
    an EndedEarly behind a checkpoint between two batches. Raises UserError for numbers that are not finite and for
    batches that the processes cannot share.
    """
    trainer = make_group_trainer(
        config, group, roles, policy, tokenizer, score, prompts, checkpoints, checkpoint_steps, failures
    )
    trainer.add_callback(reporting(lambda event: None))  # marks checkpoints that are whole
    progress = following(config, group, report, failures or Failures())
    trainer.add_callback(progress)
    train_to_the_end(trainer, checkpoints, every=group.iterations)
    figures = figures_of_steps(trainer.state.log_history, config, group)
    if trainer.is_world_process_zero():
        shutil.rmtree(folder, ignore_errors=True)  # what an attempt that was killed here has left
    base = policy.base if roles.method != "full" else None
    save_trained(trainer, folder, base, tokenizer)
    model = ModelRef(uri=str(folder), digest=folder_digest(folder), base=base, facts=policy.base.facts)
    failure = last_failure(trainer.state.log_history)
    signs = [
        group_warning_signs(step, config, failure, earlier=before(figures, number))
        for number, step in enumerate(figures)
    ]
    warnings = said_of_steps(signs)
    return Trained(figures, warnings, warnings[0] if progress.stopped else ""), model
