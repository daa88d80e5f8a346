"""PERL (arXiv 2403.10704): reinforcement learning from human feedback with adapters on one frozen base.

start  = fine-tune(base, data), merged into its base        the reference; `sft: false` takes the base itself
reward = adapter on start, from preference pairs            or a verifier
policy = adapter on start, by PPO, REINFORCE, RLOO or GRPO  reward of its answers, less the KL from start
compare policy and start on held-out prompts                by the reward, and by a judge that PPO never met
"""

from prefect import flow
from pydantic import Field

from tasks import base_model
from tasks.base_model import ModelConfig
from tasks.core.config import PLACEMENT
from tasks.core.flow_result import FlowResult
from tasks.core.flow_run import FlowConfig, Run, check_run, open_run
from tasks.data import preparing, prompts
from tasks.data.config import DataConfig
from tasks.evaluate import EvaluationConfig
from tasks.improve.start import measure_start
from tasks.improve.steps import Policy
from tasks.plan.fits import check_model
from tasks.ppo import merge, training_config
from tasks.ppo import stage as policy_training
from tasks.ppo.config import PPOConfig
from tasks.ppo.group_config import GroupConfig
from tasks.ppo.merge import MergeConfig, MergeInputs
from tasks.ppo.roles_config import RolesConfig
from tasks.ppo.rollout_config import RolloutConfig
from tasks.ppo.stage import PolicyTrainingInputs
from tasks.ppo.training_config import PolicyTrainingConfig
from tasks.report.records import IterationRecord, LoopRecord, PolicyRecord
from tasks.report.show import show_report
from tasks.reward_model.config import PreferenceConfig, RewardTrainingConfig
from tasks.reward_model.learned import check_needed, check_pairs, learn_rewards
from tasks.reward_model.ready import check_unmerged
from tasks.rewards import config as rewards
from tasks.rewards.config import RewardConfig, function_code
from tasks.rewards.scoring import Scoring
from tasks.sft import config as sft
from tasks.sft.config import TrainingConfig
from tasks.side_by_side.held_out import compare_on_held_out
from tasks.student import Student, check_evaluation


class PERLConfig(FlowConfig):
    """Learn a reward from preferences, and train a policy on it with adapters on one base."""

    data: DataConfig = DataConfig(problem="dialogue")
    """The prompts; the training rows' answers are what supervised fine-tuning learns."""
    prompts: str = Field("", json_schema_extra=PLACEMENT)
    """Address of the rows whose questions the policy answers while it learns; empty takes the training rows."""
    policy: ModelConfig = ModelConfig()
    """The model that is trained."""
    sft: bool = True
    """Fine-tune on the data first, and merge: that model is the start, the reference, and the base of every role."""
    reward: RewardConfig = RewardConfig(by="model")
    """What a response is worth."""
    preferences: PreferenceConfig = PreferenceConfig(test_fraction=0.3)
    """`reward.by: model`: the pairs that the reward model learns from, and those that are held out,"""
    reward_model: RewardTrainingConfig = RewardTrainingConfig()
    """and how it is trained."""
    judge: bool = True
    """Train a second reward model on the held-out pairs, which says who wins. PPO never meets it. With `reward.model`
    only if pairs are given."""
    roles: RolesConfig = RolesConfig()
    """Who plays policy, value, reward and reference: adapters on one base, or full models."""
    ppo: PPOConfig = PPOConfig()
    """How the policy is optimised."""
    group: GroupConfig = GroupConfig()
    """`ppo.algorithm: rloo` or `grpo`: the groups of responses that are compared."""
    rollouts: RolloutConfig = RolloutConfig()
    """What samples responses."""
    checkpoint_steps: int = Field(10, ge=1, json_schema_extra=PLACEMENT)
    """A killed training goes on from a checkpoint at most this many steps old."""
    training: TrainingConfig = TrainingConfig()
    """How supervised fine-tuning is done."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How policies are tested."""

    def policy_training(self) -> PolicyTrainingConfig:
        """The part that the policy is trained by."""
        return PolicyTrainingConfig(
            **{name: getattr(self, name) for name in PolicyTrainingConfig.model_fields}
        )


def check(config: PERLConfig) -> None:
    """Everything that can be known to be wrong before a model is loaded. Raises UserError."""
    check_run(config)
    prompts.check(config.data, config.prompts, answered=config.reward.by == "problem")
    sft.check(config.training, has_validation=config.data.validates, processes=config.launch.total)
    rewards.check(config.reward)
    training_config.check(config.policy_training(), processes=config.launch.total)
    check_needed(config.preferences, config.reward, judge=config.judge)
    if config.reward.by == "model" and (config.preferences.train or not config.reward.model):
        check_pairs(config.preferences, config.reward_model, config.launch.total, judge=config.judge)
    check_evaluation(config.evaluation)
    check_model(config)


@flow(name="perl")
def perl(config: PERLConfig = PERLConfig()) -> FlowResult:  # noqa: B008 - the model is frozen
    """Learn a reward from preferences, and train a policy on it with adapters on one base."""
    check(config)
    with open_run("perl", config) as run:
        return show_report(run, loop(run, config), config.evaluation.confidence)


def loop(run: Run, config: PERLConfig) -> LoopRecord:
    """The algorithm; `run` decides how its stages are run."""
    data = run.stage(preparing.STAGE, config.data, preparing.inputs(config.data), label="data")
    files = base_model.locate(config.policy, "policy.model")
    base = run.stage(base_model.STAGE, config.policy, files, label="policy").model
    if config.sft and config.reward.model:
        check_unmerged(config.reward.model, base)
    student = Student(run, base, data.problem, config.training, config.evaluation, data.validation)
    run.dataset(data.test, "test")
    run.dataset(data.train, "train")
    start = Policy(base)
    if config.sft:
        tuned = student.train(data.train, label="fine-tune")
        merging = MergeConfig(precision=config.roles.precision)
        merged = run.stage(merge.STAGE, merging, MergeInputs(model=tuned.model))
        start = Policy(merged.model, tuned.steps)
    pairs, rewarding = config.preferences, config.reward_model
    learned = learn_rewards(run, config.reward, start.model, pairs, rewarding, config.judge)
    scoring = Scoring(run, config.reward, data.problem, learned.reward)
    asked = prompts.ask(run, config.data, config.prompts, data, answered=config.reward.by == "problem")
    record = LoopRecord(
        cautions=data.cautions() + asked.cautions() + learned.cautions(),
        comparisons=[measure_start(student, start, data, scoring)],
    )
    with run.iterate(1) as metrics:
        inputs = PolicyTrainingInputs(
            model=start.model,
            prompts=asked.prompts,
            problem=data.problem,
            reward_model=learned.reward,
            code=function_code(config.reward),
        )
        trained = run.stage(
            policy_training.STAGE, config.policy_training(), inputs, label="ppo", training=True
        )
        tested = student.test(trained.model, {"test": data.test})
        rewarded = scoring.of_answers(tested["test"].predictions, data.test, label="reward (test)")
        compared = compare_on_held_out(
            scoring, learned.judge, data.test, start.model, trained.model, config.ppo
        )
        metrics |= trained.metrics() | tested["test"].metrics() | compared.metrics()
        metrics |= learned.metrics() | {"reward/test": rewarded.mean}
    policy = PolicyRecord(
        trained=trained, compared=compared, reward_model=learned.rewarding, judge=learned.judging
    )
    facts = {
        "metrics": metrics,
        "model": trained.model,
        "train": asked.prompts,
        "splits": tested,
        "policy": policy,
    }
    record.iterations.append(IterationRecord(number=1, **facts))
    record.stopped = trained.stopped
    return record


CONFIG, FLOW = PERLConfig, perl
