"""LLM2LLM (arXiv 2403.15042): train the student, see where it fails, have a teacher write more of that, retrain.

train = seed rows
for step in 1 … iterations:
    student = fine-tune(base, train)              from the base model, every time
    test(student)
    if step == iterations: stop
    failed = seed rows the student gets wrong     never synthetic ones
    train += filter(teacher(failed))              cumulative
"""

from typing import Literal

from prefect import flow
from pydantic import Field

from tasks import append, base_model
from tasks.append import AppendInputs
from tasks.augment.config import AugmentConfig
from tasks.augment.teacher import TeacherConfig, load_teacher, locate_teacher
from tasks.augment.until_kept import Augmentation, Augmented
from tasks.base_model import ModelConfig
from tasks.core.config import Config
from tasks.core.flow_result import FlowResult
from tasks.core.flow_run import FlowConfig, Run, check_run, open_run
from tasks.data import preparing
from tasks.data.config import DataConfig
from tasks.equal_steps import seed_only_equal_steps
from tasks.evaluate import EvaluationConfig
from tasks.failing_rows import failing_rows
from tasks.failures import FailuresConfig
from tasks.filter.rules import FilterConfig
from tasks.judges import JudgesConfig, check_judges, train_judges
from tasks.plan.fits import check_model
from tasks.report.records import IterationRecord, LoopRecord
from tasks.report.show import show_report
from tasks.reversal.config import NO_COPIES, ReversalConfig, check_reversal
from tasks.sft import config as sft
from tasks.sft.config import TrainingConfig
from tasks.student import Student, check_evaluation

NOTHING_WRONG, NOTHING_NEW = "nothing is wrong any more", "the teacher brought nothing new"


class LLM2LLMConfig(FlowConfig):
    """Train the student, evaluate it, augment what it failed, retrain. Defaults are the published algorithm."""

    data: DataConfig = DataConfig()
    """The user's data."""
    student: ModelConfig = ModelConfig()
    """The model that is made better."""
    teacher: TeacherConfig = TeacherConfig()
    """The model that writes new rows."""
    iterations: int = Field(3, ge=1, le=100)
    """Trainings of the student; the last one is only tested."""
    start: Literal["base", "continue"] = "base"
    """Every training starts from the base model (published), or continues the iteration before."""
    schedule: Literal["iterative", "one_shot"] = "iterative"
    """Augment after every iteration (published), or once, with the rows of all iterations together."""
    equal_steps: bool = True
    """Also train on the seed rows alone for as many steps as the last student had: the fair comparison."""
    reversal: ReversalConfig = NO_COPIES
    """Reversed copies of the training rows (reverse training); none are made unless `reversal.by` says so."""
    training: TrainingConfig = TrainingConfig()
    """How the student is trained."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How it is tested."""
    failures: FailuresConfig = FailuresConfig()
    """Which rows count as failed."""
    augment: AugmentConfig = AugmentConfig()
    """How the teacher is asked."""
    judges: JudgesConfig = JudgesConfig()
    """Students that judge those rows, so that the filter can choose the best."""
    filter: FilterConfig = FilterConfig()
    """Which of its rows are kept."""


def check(config: LLM2LLMConfig) -> None:
    """Everything that can be known to be wrong before a model is loaded. Raises UserError."""
    check_run(config)
    preparing.check(config.data)
    sft.check(config.training, has_validation=config.data.validates, processes=config.launch.total)
    check_reversal(config.reversal)
    check_evaluation(config.evaluation)
    check_model(config)
    locate_teacher(config.teacher)
    check_judges(config.judges)


@flow(name="llm2llm")
def llm2llm(config: LLM2LLMConfig = LLM2LLMConfig()) -> FlowResult:  # noqa: B008 - the model is frozen
    """Train the student, evaluate, augment what it failed, retrain."""
    check(config)
    with open_run("llm2llm", config) as run:
        return show_report(run, loop(run, planned(config)), config.evaluation.confidence)


def loop(run: Run, config: LLM2LLMConfig) -> LoopRecord:
    """The algorithm; `run` decides how its stages are run."""
    data = run.stage(preparing.STAGE, config.data, preparing.inputs(config.data), label="data")
    files = base_model.locate(config.student, "student.model")
    base = run.stage(base_model.STAGE, config.student, files, label="student").model
    teacher = load_teacher(run, config.teacher)
    student = Student(
        run, base, data.problem, config.training, config.evaluation, data.validation, config.reversal
    )
    judges = train_judges(config.judges, student, data.train) if config.iterations > 1 else []
    augmentation = Augmentation(
        student, config.augment, config.filter, teacher, data.train, data.test, judges, config.judges.labels
    )
    run.dataset(data.test, "test")
    start, train, record = base, data.train, LoopRecord(cautions=data.cautions())
    for number in range(1, config.iterations + 1):
        last = number == config.iterations
        with run.iterate(number) as metrics:
            run.dataset(train, "train")
            trained = student.train(train, start=start)
            tested = student.test(trained.model, {"test": data.test, "train": train})
            answers = tested["train"].predictions
            failed = failing_rows(config.failures, student, train=train, answers=answers, last=last)
            new = Augmented() if last else augmentation.until_kept(failed.failures, train)
            metrics |= trained.metrics() | tested["test"].metrics() | new.metrics()
            metrics |= {"data/train_rows": train.rows, "data/wrong": failed.wrong}
        facts = {"metrics": metrics, "model": trained.model, "train": train, "splits": tested} | new.parts()
        record.iterations.append(IterationRecord(number=number, failures=failed.failures, **facts))
        if last:
            break
        if new.kept is None or not new.kept.rows:
            record.stopped = NOTHING_NEW if failed.failures.rows else NOTHING_WRONG
            break
        train = run.stage(append.STAGE, Config(), AppendInputs(parts=[train, new.kept])).joined
        start = trained.model if config.start == "continue" else base
    if config.equal_steps and len(record.iterations) > 1:
        counted = record.iterations if config.start == "continue" else record.iterations[-1:]
        steps = sum(int(iteration.metrics["train/steps"]) for iteration in counted)
        record.comparisons.append(seed_only_equal_steps(student, data.train, data.test, steps))
    return record


def planned(config: LLM2LLMConfig) -> LLM2LLMConfig:
    """The configuration with its switches worked out: what `one_shot` and `margin` mean for the stages."""
    changes: dict[str, object] = {}
    if config.failures.by == "margin":
        changes["evaluation"] = config.evaluation.model_copy(update={"likelihood": True})
    if config.schedule == "one_shot" and config.iterations > 1:
        rows = config.augment.rows * (config.iterations - 1)
        changes |= {"iterations": 2, "augment": config.augment.model_copy(update={"rows": rows})}
    return config.model_copy(update=changes)


CONFIG, FLOW = LLM2LLMConfig, llm2llm
