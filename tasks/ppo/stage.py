"""Stage: train a policy on rewards by PPO or REINFORCE, with adapters on one frozen base (PERL) or in full."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from pydantic import BaseModel, Field

from tasks.core.config import PLACEMENT, Config
from tasks.core.errors import UserError
from tasks.core.examples import read_examples, write_rows
from tasks.core.models import load_tokenizer, render
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.stage import Report, Stage
from tasks.ppo.config import PPOConfig
from tasks.ppo.full_models import load_roles
from tasks.ppo.roles_config import RolesConfig
from tasks.ppo.sampling import PolicySampler
from tasks.ppo.saving import save_policy
from tasks.ppo.scores import Score, by_reward_model, by_role, by_verifier
from tasks.ppo.shared_base import check_bases
from tasks.ppo.training import Prompt, train_policy
from tasks.problems.base import Problem, ProblemConfig
from tasks.problems.load import load_problem
from tasks.reward_model.scoring import load_reward_model
from tasks.rewards.config import RewardConfig
from tasks.sft.trainer_arguments import be_deterministic

_LAST = 10
"""Steps that the result's figures are means over: those of one batch are noisy."""


class PolicyTrainingConfig(Config):
    """How a policy is trained on rewards."""

    ppo: PPOConfig = PPOConfig()
    """The optimisation."""
    roles: RolesConfig = RolesConfig()
    """Who plays policy, value, reward and reference."""
    reward: RewardConfig = RewardConfig()
    """What a response is worth."""
    checkpoint_steps: int = Field(10, ge=1, json_schema_extra=PLACEMENT)
    """A killed training goes on from a checkpoint at most this many steps old."""


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

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        return {"train/steps": float(self.steps), "data/train_rows": float(self.prompts)} | self.figures


def run(
    config: PolicyTrainingConfig, inputs: PolicyTrainingInputs, out: Path, report: Report
) -> PolicyTrainingResult:
    """Train, and save the policy beneath `out`/model; goes on from the newest checkpoint beside `out`.

    Raises UserError when no prompt fits, for a reward model that is missing, and for numbers that are not finite.
    """
    be_deterministic()
    problem, tokenizer = load_problem(inputs.problem), load_tokenizer(inputs.model)
    shares_base = _shares_base(config, inputs)
    reward = inputs.reward_model if shares_base else None
    if config.roles.method == "lora":
        check_bases(inputs.model, reward)
    examples = read_examples(inputs.prompts)
    roles = load_roles(config.roles, inputs.model, reward, temperature=config.ppo.temperature)
    sampler = PolicySampler(roles, tokenizer, max_new_tokens=config.ppo.max_new_tokens, seed=config.ppo.seed)
    asked = [Prompt(example, render(tokenizer, problem.prompt(example))) for example in examples]
    prompts = [prompt for prompt in asked if sampler.fits(len(prompt.tokens))]
    if not prompts:
        raise UserError(
            f"none of {len(asked)} prompts fits into the model's context with {config.ppo.max_new_tokens} new tokens",
            field="ppo.max_new_tokens",
            mend="lower it, or give prompts that are shorter",
        )
    score = by_role(roles) if reward else _score(config, inputs, problem, tokenizer)
    checkpoints = out.parent / "checkpoints"
    trained = train_policy(
        config.ppo, roles, sampler, score, prompts, checkpoints, config.checkpoint_steps, report
    )
    return PolicyTrainingResult(
        model=save_policy(roles, tokenizer, out / "model", inputs.model),
        steps=len(trained.figures),
        prompts=len(prompts),
        too_long=len(asked) - len(prompts),
        figures=_last(trained.figures),
        history=write_rows(out / "steps.jsonl", trained.figures),
        warnings=trained.warnings,
        stopped=trained.stopped,
    )


def _shares_base(config: PolicyTrainingConfig, inputs: PolicyTrainingInputs) -> bool:
    """Whether the reward model is one that plays its role beside the policy, and not by reading texts."""
    if config.reward.by != "model":
        return False
    if inputs.reward_model is None:
        raise UserError("there is no reward model", field="reward.by", mend="train one, or choose problem")
    base = inputs.reward_model.base
    return base is not None and base.digest == inputs.model.digest


def _score(
    config: PolicyTrainingConfig, inputs: PolicyTrainingInputs, problem: Problem, tokenizer: object
) -> Score:
    if config.reward.by != "model":
        return by_verifier(config.reward, problem, tokenizer)
    assert inputs.reward_model is not None
    model = load_reward_model(
        inputs.reward_model, precision=config.reward.precision, batch_size=config.reward.batch_size
    )
    return by_reward_model(model, problem, tokenizer)


def _last(figures: Sequence[dict[str, float]]) -> dict[str, float]:
    last = figures[-_LAST:]
    return {name: fmean(step[name] for step in last) for name in last[-1]}


STAGE = Stage(
    "policy_training", run, PolicyTrainingConfig, PolicyTrainingInputs, PolicyTrainingResult, own_process=True
)
