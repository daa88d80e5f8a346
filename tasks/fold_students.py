"""Judge every seed row by a student that did not train on it."""

from tasks import evaluate, failures, sft
from tasks.core.flow_run import FlowRun
from tasks.core.references import DatasetRef, ModelRef
from tasks.evaluate import EvaluationConfig, EvaluationInputs
from tasks.failures import FailuresConfig, FoldsInputs
from tasks.problems.base import ProblemConfig
from tasks.sft import TrainingConfig, TrainingInputs


def judge_by_folds(
    run: FlowRun,
    config: FailuresConfig,
    training: TrainingConfig,
    evaluation: EvaluationConfig,
    *,
    model: ModelRef,
    train: DatasetRef,
    problem: ProblemConfig,
) -> list[DatasetRef]:
    """Train one student per fold from `model`, without the fold's seed rows and all that was written from them,
    and return its predictions on those rows."""
    predictions = []
    folds = run.stage(failures.FOLDS, config, FoldsInputs(train=train)).folds
    for number, fold in enumerate(folds, start=1):
        student = run.stage(
            sft.STAGE,
            training,
            TrainingInputs(model=model, train=fold.train, problem=problem),
            label=f"train fold {number} of",
            training=True,
        ).model
        judged = run.stage(
            evaluate.STAGE,
            evaluation,
            EvaluationInputs(model=student, splits={"held_out": fold.held_out}, problem=problem),
            label=f"judge fold {number} of",
        )
        predictions.append(judged.splits["held_out"].predictions)
    return predictions
