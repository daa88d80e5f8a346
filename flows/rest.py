"""ReST (arXiv 2308.08998) and ReST-EM (arXiv 2312.06585): sample, reward, filter, fine-tune, and sample anew.

policy = fine-tune(base, D)                               warm start
for iteration in 1 … iterations:
    samples = N answers of the policy to every prompt     Grow: drawn and rewarded once
    for level in levels:                                  Improve
        kept = samples (and D) rewarded above level
        policy = fine-tune(policy | base, kept)           as ReST | as ReST-EM
        stop, and go back one, when the reward on held-out rows does not rise
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
from tasks.equal_steps import seed_only_equal_steps
from tasks.evaluate import EvaluationConfig
from tasks.grow import config as grow
from tasks.grow.config import GrowConfig
from tasks.grow.growing import Growth
from tasks.improve import config as improve
from tasks.improve.config import ImproveConfig, Method
from tasks.improve.start import measure_start, warm_start
from tasks.improve.steps import Improvement, Policy
from tasks.plan.fits import check_model
from tasks.report.records import IterationRecord, LoopRecord
from tasks.report.show import show_report
from tasks.reward_model.config import PreferenceConfig, RewardTrainingConfig
from tasks.reward_model.learned import check_reward, learn_reward
from tasks.rewards.config import RewardConfig
from tasks.rewards.scoring import Scoring
from tasks.sft.config import TrainingConfig
from tasks.student import Student, check_evaluation


class ReSTConfig(FlowConfig):
    """Sample from the policy, reward, filter, fine-tune. Defaults are the published ReST."""

    method: Method = "rest"
    """`rest`, or `rest-em`: from the base model every time, right answers only, the data not mixed in, at most 10 a
    prompt. Each difference is also a field of its own, which wins."""
    data: DataConfig = DataConfig()
    """The prompts with their right answers; validation rows decide when to stop."""
    prompts: str = Field("", json_schema_extra=PLACEMENT)
    """Address of the rows whose questions are sampled, not trained on their answers; empty takes the training rows."""
    policy: ModelConfig = ModelConfig()
    """The model that is made better."""
    warm_start: bool = True
    """Train on the data first (published); without, the base model draws the first samples."""
    warm_start_epochs: float = Field(0.0, ge=0.0, le=1000.0)
    """Passes of that training over the data; 0 takes `training.epochs`."""
    iterations: int = Field(3, ge=1, le=100)
    """Grow steps."""
    reward: RewardConfig = RewardConfig()
    """What a sample is worth."""
    reward_base: ModelConfig = ModelConfig()
    """What `reward.by: model` makes a reward model of,"""
    preferences: PreferenceConfig = PreferenceConfig()
    """the pairs that it learns from,"""
    reward_model: RewardTrainingConfig = RewardTrainingConfig()
    """and how."""
    grow: GrowConfig = GrowConfig()
    """How samples are drawn."""
    improve: ImproveConfig = ImproveConfig()
    """Which are kept, and how the policy is trained on them."""
    equal_steps: bool = True
    """Also train on the data alone for as many steps as the last policy had: the fair comparison."""
    training: TrainingConfig = TrainingConfig()
    """How the policy is trained."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How it is tested."""


def check(config: ReSTConfig) -> None:
    """Everything that can be known to be wrong before a model is loaded. Raises UserError."""
    pairs, processes = config.preferences, config.launch.total
    check_run(config)
    prompts.check(config.data, config.prompts, answered=config.reward.by == "problem")
    improve.check(config.improve, config.training, processes)
    check_reward(config.reward, config.reward_base, pairs, config.reward_model, processes)
    grow.check(config.grow, config.training, config.data.problem, keep_cut=config.improve.keep_cut)
    check_evaluation(config.evaluation)
    check_model(config)


@flow(name="rest")
def rest(config: ReSTConfig = ReSTConfig()) -> FlowResult:  # noqa: B008 - the model is frozen
    """Sample from the policy, reward, filter, fine-tune."""
    check(config)
    with open_run("rest", config) as run:
        return show_report(run, loop(run, planned(config)), config.evaluation.confidence)


def loop(run: Run, config: ReSTConfig) -> LoopRecord:
    """The algorithm; `run` decides how its stages are run."""
    data = run.stage(preparing.STAGE, config.data, preparing.inputs(config.data), label="data")
    files = base_model.locate(config.policy, "policy.model")
    base = run.stage(base_model.STAGE, config.policy, files, label="policy").model
    learned = learn_reward(run, config.reward, config.reward_base, config.preferences, config.reward_model)
    scoring = Scoring(run, config.reward, data.problem, learned.reward)
    # The loss on held-out rows is of no use here: their reward is what decides.
    student = Student(run, base, data.problem, config.training, config.evaluation)
    run.dataset(data.test, "test")
    run.dataset(data.train, "train")
    start = warm_start(student, data.train, config.warm_start_epochs) if config.warm_start else Policy(base)
    mixed = config.improve.mix_data == "yes"
    originals = scoring.score(data.train, label="score (training rows)").rows if mixed else None
    asked = prompts.ask(run, config.data, config.prompts, data, answered=config.reward.by == "problem")
    growth = Growth(run, config.grow, data.problem, asked.prompts, scoring)
    starts = {"base": Policy(base), "warm": start}
    improvement = Improvement(student, config.improve, scoring, starts, originals, data.validation)
    policy = Policy(start.model, start.steps, improvement.held_out(start.model, "warm start"))
    train = data.train
    record = LoopRecord(
        cautions=data.cautions() + asked.cautions() + learned.cautions(),
        reward_model=learned.rewarding,
        comparisons=[measure_start(student, policy, data, scoring, config.grow)],
    )
    for number in range(1, config.iterations + 1):
        with run.iterate(number) as metrics:
            grown = growth.grow(policy.model, number)
            if number == 1:
                grown.check()
            improved = improvement.improve(policy, grown.samples, asked=grown.prompts, useless=grown.useless)
            policy, train = improved.policy, improved.kept or train
            tested = student.test(policy.model, {"test": data.test})
            rewarded = scoring.of_answers(tested["test"].predictions, data.test, label="reward (test)")
            metrics |= improved.metrics() | tested["test"].metrics() | grown.metrics()
            metrics |= {"reward/test": rewarded.mean, "data/train_rows": train.rows} | learned.metrics()
        facts = {"metrics": metrics, "model": policy.model, "train": train, "splits": tested}
        facts |= {"kept": improved.kept, "selections": improved.selections}
        record.iterations.append(IterationRecord(number=number, **facts))
        if not improved.trained:
            record.stopped = improved.stopped
            break
    record.cautions += scoring.cautions()
    if config.equal_steps and policy.steps:
        record.comparisons.append(seed_only_equal_steps(student, data.train, data.test, policy.steps))
    return record


def planned(config: ReSTConfig) -> ReSTConfig:
    """The configuration with all that is left to the method filled in."""
    steps = improve.planned(config.improve, config.method)
    return config.model_copy(update={"improve": steps, "grow": grow.planned(config.grow, config.method)})


CONFIG, FLOW = ReSTConfig, rest
