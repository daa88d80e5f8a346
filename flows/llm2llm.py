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

from tasks import append, base_model, evaluate, failures, sft
from tasks.append import AppendInputs
from tasks.augment.teacher import AugmentConfig, TeacherConfig, locate_teacher, teacher_weights
from tasks.augment.until_kept import Augmented, augment_until_kept
from tasks.base_model import ModelConfig
from tasks.core.config import Config
from tasks.core.flow_run import FlowConfig, FlowResult, open_run
from tasks.data import preparing
from tasks.data.config import DataConfig
from tasks.evaluate import EvaluationConfig, EvaluationInputs
from tasks.failures import FailuresConfig, FailuresInputs
from tasks.filter.stage import FilterConfig
from tasks.fold_students import judge_by_folds
from tasks.report.records import IterationRecord
from tasks.report.show import show_report
from tasks.sft import TrainingConfig, TrainingInputs


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
    training: TrainingConfig = TrainingConfig()
    """How the student is trained."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How it is tested."""
    failures: FailuresConfig = FailuresConfig()
    """Which rows count as failed."""
    augment: AugmentConfig = AugmentConfig()
    """How the teacher is asked."""
    filter: FilterConfig = FilterConfig()
    """Which of its rows are kept."""


def check(config: LLM2LLMConfig) -> None:
    """Everything that can be known to be wrong before a model is loaded. Raises UserError."""
    preparing.check(config.data)
    sft.check(config.training, has_validation=bool(config.data.validation or config.data.validation_fraction))
    base_model.locate(config.student, "student.model")
    locate_teacher(config.teacher)


@flow(name="llm2llm")
def llm2llm(config: LLM2LLMConfig = LLM2LLMConfig()) -> FlowResult:  # noqa: B008 - the model is frozen
    """Train the student, evaluate, augment what it failed, retrain."""
    config = planned(config)
    student, teacher = base_model.locate(config.student, "student.model"), locate_teacher(config.teacher)
    with open_run("llm2llm", config) as run:
        data = run.stage(preparing.STAGE, config.data, preparing.inputs(config.data), label="data")
        base = run.stage(base_model.STAGE, config.student, student, label="student").model
        writer = teacher_weights(run, teacher)
        run.dataset(data.test, "test")
        start, train, stopped, records = base, data.train, "", list[IterationRecord]()
        for number in range(1, config.iterations + 1):
            with run.iterate(number) as metrics:
                run.dataset(train, "train")
                inputs = TrainingInputs(
                    model=start, train=train, validation=data.validation, problem=data.problem
                )
                trained = run.stage(sft.STAGE, config.training, inputs, label="train", training=True)
                splits = {"test": data.test, "train": train}
                tested = run.stage(
                    evaluate.STAGE,
                    config.evaluation,
                    EvaluationInputs(model=trained.model, splits=splits, problem=data.problem),
                ).splits
                predictions = [tested["train"].predictions]
                if config.failures.by == "folds" and number < config.iterations:
                    predictions = judge_by_folds(
                        run,
                        config.failures,
                        config.training,
                        config.evaluation,
                        model=base,
                        train=train,
                        problem=data.problem,
                    )
                failed = run.stage(
                    failures.STAGE,
                    config.failures,
                    FailuresInputs(train=train, predictions=predictions, step=number),
                )
                augmented = Augmented()
                if number < config.iterations and failed.failures.rows:
                    augmented = augment_until_kept(
                        run,
                        config.augment,
                        config.filter,
                        model=writer,
                        engine=teacher.engine,
                        problem=data.problem,
                        parents=failed.failures,
                        train=train,
                        pool=data.train,
                        test=data.test,
                    )
                metrics |= trained.metrics() | tested["test"].metrics() | augmented.metrics()
                metrics |= {"data/train_rows": train.rows, "data/wrong": failed.wrong}
                records.append(
                    IterationRecord(
                        number=number,
                        metrics=metrics,
                        model=trained.model,
                        train=train,
                        splits=tested,
                        failures=failed.failures,
                        exchanges=augmented.exchanges,
                        kept=augmented.kept,
                        rejected=augmented.rejected,
                        counts=augmented.counts,
                    )
                )
            if number == config.iterations:
                break
            if augmented.kept is None or not augmented.kept.rows:
                stopped = "the teacher brought nothing new" if failed.failures.rows else "nothing is wrong any more"
                break
            train = run.stage(append.STAGE, Config(), AppendInputs(parts=[train, augmented.kept])).joined
            start = trained.model if config.start == "continue" else base
        return show_report(run, records, stopped=stopped)


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
