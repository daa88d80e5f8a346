"""The rows a student fails, however they are looked for: one call for the loop, whatever stages it takes."""

from tasks import failures
from tasks.core.references import DatasetRef
from tasks.failures import FailuresConfig, FailuresInputs, FailuresResult, FoldsInputs
from tasks.student import Student


def failing_rows(
    config: FailuresConfig, student: Student, *, train: DatasetRef, answers: DatasetRef, last: bool
) -> FailuresResult:
    """The failed rows of an iteration. `answers` are the student's own on `train`; with `folds`, those of students
    that did not train on the row take their place, except in the last iteration, which augments nothing."""
    judged = judge_by_folds(config, student, train) if config.by == "folds" and not last else [answers]
    inputs = FailuresInputs(train=train, predictions=judged, step=student.run.iteration)
    return student.run.stage(failures.STAGE, config, inputs)


def judge_by_folds(config: FailuresConfig, student: Student, train: DatasetRef) -> list[DatasetRef]:
    """Train one student per fold from the base model, without the fold's seed rows and all that was written from
    them, and return its predictions on those rows."""
    predictions = []
    folds = student.run.stage(failures.FOLDS, config, FoldsInputs(train=train)).folds
    for number, fold in enumerate(folds, start=1):
        trained = student.train(fold.train, label=f"train (fold {number})")
        judged = student.test(trained.model, {"held_out": fold.held_out}, label=f"judge (fold {number})")
        predictions.append(judged["held_out"].predictions)
    return predictions
