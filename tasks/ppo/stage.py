"""Stage: train a policy on rewards by PPO, REINFORCE, RLOO or GRPO, with adapters (PERL) or in full."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import BaseModel

from tasks.core.errors import UserError
from tasks.core.examples import read_examples, write_rows
from tasks.core.models import load_tokenizer, render
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.stage import Report, Stage
from tasks.ppo import sharding
from tasks.ppo.config import check_processes
from tasks.ppo.full_models import load_roles
from tasks.ppo.group_config import GROUP_RELATIVE
from tasks.ppo.group_relative import GroupPolicy, load_group_policy, train_group_relative
from tasks.ppo.masked import process_count
from tasks.ppo.processes import from_first, join_processes, process_number
from tasks.ppo.roles import LanguageModelRoles
from tasks.ppo.sampling import PolicySampler, SampledPrompts, Sampler
from tasks.ppo.saving import save_policy
from tasks.ppo.scores import Failures, Score, by_reward_model, by_role, by_verifier
from tasks.ppo.sharding import whole_weights
from tasks.ppo.shared_base import check_bases
from tasks.ppo.step_times import TimedReport
from tasks.ppo.training import Prompt, train_policy
from tasks.ppo.training_config import PolicyTrainingConfig
from tasks.problems.base import Problem, ProblemConfig
from tasks.problems.load import load_problem
from tasks.reward_model.cost import peak_memory_gb
from tasks.reward_model.scoring import load_reward_model
from tasks.sft.trainer_arguments import be_deterministic

_LAST = 10
"""Steps that the result's figures are means over: those of one batch are noisy."""


class PolicyTrainingInputs(BaseModel):
    """What a policy is trained from and on."""

    model: ModelRef
    """Full weights: the policy's start, and the reference."""
    prompts: DatasetRef
    problem: ProblemConfig
    reward_model: ModelRef | None = None
    """For `reward.by: model`."""
    code: str = ""
    """Digest of the user's reward function (`function_code`)."""


class PolicyTrainingResult(BaseModel):
    """The trained policy."""

    model: ModelRef
    steps: int
    prompts: int
    too_long: int
    """Prompts left out because they and a response do not fit into the context."""
    figures: dict[str, float]
    """Means over the last steps, by the names that TRL's PPO had."""
    history: DatasetRef
    """The figures of every step."""
    warnings: list[str]
    stopped: str
    step_s: float
    """Median seconds of a step in the process that finished the training; 0 when it took none."""
    peak_memory_gb: float
    """The most memory that process held."""

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        return {"train/steps": float(self.steps), "data/train_rows": float(self.prompts)} | self.figures


def run(
    config: PolicyTrainingConfig, inputs: PolicyTrainingInputs, out: Path, report: Report
) -> PolicyTrainingResult:
    """Train, and save the policy beneath `out`/model; goes on from the newest checkpoint beside `out`.

    Every process of a launch calls it, and all return the same. Raises UserError when no prompt fits, for a missing
    reward model, for batches that the processes cannot share, and for numbers that are not finite.
    """
    join_processes()
    check_processes(config.ppo, process_count())
    sharding.check(config.ppo, config.roles, process_count())
    be_deterministic()
    problem, tokenizer = load_problem(inputs.problem), load_tokenizer(inputs.model)
    group_relative = config.ppo.algorithm in GROUP_RELATIVE
    reward = _beside_policy(config, inputs)
    if config.roles.method != "full":
        check_bases(inputs.model, reward)
    examples = read_examples(inputs.prompts)
    roles: GroupPolicy | LanguageModelRoles
    room: SampledPrompts
    if group_relative:
        roles = load_group_policy(config.ppo, config.group, config.roles, inputs.model)
        room = roles.sampler(config.ppo, tokenizer)
    else:
        roles = load_roles(config.roles, inputs.model, reward, temperature=config.ppo.temperature)
        room = SampledPrompts(roles, config.ppo.max_new_tokens)
    asked = [Prompt(example, render(tokenizer, problem.prompt(example))) for example in examples]
    prompts = [prompt for prompt in asked if room.fits(len(prompt.tokens))]
    if not prompts:
        raise UserError(
            f"none of {len(asked)} prompts fits into the model's context with {config.ppo.max_new_tokens} new tokens",
            field="ppo.max_new_tokens",
            mend="lower it, or give prompts that are shorter",
        )
    timed, failures = TimedReport(report), Failures()
    checkpoints, every, folder = out.parent / "checkpoints", config.checkpoint_steps, out / "model"
    if isinstance(roles, GroupPolicy):
        score = _score(config, inputs, problem, tokenizer, failures)
        settings = (config.ppo, config.group, config.roles)
        trained, saved = train_group_relative(
            *settings, roles, tokenizer, score, prompts, checkpoints, every, timed, folder, failures
        )
    else:
        score = by_role(roles) if reward else _score(config, inputs, problem, tokenizer, failures)
        asking = (config, roles, tokenizer, inputs.model, prompts, out.parent / "adapter")
        with closing(_sampler(*asking)) as sampler:
            trained = train_policy(
                config.ppo, roles, sampler, score, prompts, checkpoints, every, timed, failures
            )
        with whole_weights(trained.optimizer):
            if process_number() == 0:
                saved = save_policy(roles, tokenizer, folder, inputs.model)
    if process_number() > 0:
        return PolicyTrainingResult.model_validate(from_first(None))
    result = PolicyTrainingResult(
        model=saved,
        steps=len(trained.figures),
        prompts=len(prompts),
        too_long=len(asked) - len(prompts),
        figures=_last(trained.figures),
        history=write_rows(out / "steps.jsonl", trained.figures),
        warnings=trained.warnings,
        stopped=trained.stopped,
        step_s=timed.step_s,
        peak_memory_gb=peak_memory_gb(),
    )
    from_first(result.model_dump(mode="json"))
    return result


def _sampler(
    config: PolicyTrainingConfig,
    roles: LanguageModelRoles,
    tokenizer: Any,
    base: ModelRef,
    prompts: Sequence[Prompt],
    folder: Path,
) -> Sampler:
    length, seed = config.ppo.max_new_tokens, config.ppo.seed
    if config.rollouts.engine == "policy":
        return PolicySampler(roles, tokenizer, max_new_tokens=length, seed=seed)
    from tasks.ppo.vllm_sampling import VLLMSampler

    return VLLMSampler(
        roles,
        tokenizer,
        base,
        folder,
        max_new_tokens=length,
        seed=seed,
        longest_prompt=max(len(prompt.tokens) for prompt in prompts),
        rank=config.roles.adapter.rank,
        memory=config.rollouts.memory,
        precision=config.roles.precision,
    )


def _beside_policy(config: PolicyTrainingConfig, inputs: PolicyTrainingInputs) -> ModelRef | None:
    """The reward model if it is one that plays its role beside the policy, and not by reading texts: an adapter."""
    reward = inputs.reward_model
    if config.reward.by != "model":
        return None
    if reward is None:
        raise UserError("there is no reward model", field="reward.by", mend="train one, or choose problem")
    # TRL's trainers hold the policy alone: there a reward model reads the texts, whatever its base.
    if reward.base is None or config.ppo.algorithm in GROUP_RELATIVE:
        return None
    # Full models share nothing, and an adapter of another base is one model more.
    if config.roles.method == "full" and reward.base.digest != inputs.model.digest:
        return None
    return reward


def _score(
    config: PolicyTrainingConfig,
    inputs: PolicyTrainingInputs,
    problem: Problem,
    tokenizer: object,
    failures: Failures,
) -> Score:
    if config.reward.by != "model":
        return by_verifier(config.reward, problem, tokenizer, failures)
    assert inputs.reward_model is not None
    model = load_reward_model(
        inputs.reward_model, precision=config.reward.precision, batch_size=config.reward.batch_size
    )
    return by_reward_model(model, problem, tokenizer)


def _last(figures: Sequence[dict[str, float]]) -> dict[str, float]:
    last = figures[-_LAST:]
    return {name: fmean(step[name] for step in last) for name in last[-1]}


STAGE = Stage(
    "policy_training",
    run,
    PolicyTrainingConfig,
    PolicyTrainingInputs,
    PolicyTrainingResult,
    own_process=True,
    distributed=True,
)
