"""The policy that a loop over its own samples starts from, as a report compares the last one with it."""

from dataclasses import replace

from tasks.core.references import DatasetRef
from tasks.data.preparing import PreparedData
from tasks.grow.config import GrowConfig
from tasks.improve.best_of import best_of
from tasks.improve.steps import Policy
from tasks.report.compare import Comparison
from tasks.rewards.scoring import Scoring
from tasks.student import Student


def warm_start(student: Student, rows: DatasetRef, epochs: float = 0) -> Policy:
    """The base model fine-tuned on the data, for so many `epochs` if that is not 0."""
    if epochs:
        training = student.training.model_copy(update={"epochs": epochs, "max_steps": 0})
        student = replace(student, training=training)
    trained = student.train(rows, label="warm start")
    return Policy(trained.model, trained.steps)


def measure_start(
    student: Student,
    policy: Policy,
    data: PreparedData,
    scoring: Scoring,
    growing: GrowConfig | None = None,
) -> Comparison:
    """The start's answers to the test rows, their accuracy and their reward; with `growing` that asks for it also the
    reward of the best of several samples of each."""
    tested = student.test(policy.model, {"test": data.test}, label="evaluate (start)")["test"]
    rewarded = scoring.of_answers(tested.predictions, data.test, label="reward (start)")
    figures = {"train/steps": float(policy.steps), "reward/test": rewarded.mean}
    if policy.reward is not None:
        figures["reward/validation"] = policy.reward
    if growing is not None and growing.best_of:
        figures[f"reward/test_best_of_{growing.best_of}"] = best_of(scoring, growing, policy.model, data.test)
    return Comparison(
        name="warm start" if policy.steps else "base model",
        metrics=tested.metrics() | figures,
        steps=policy.steps,
        rows=data.train.rows if policy.steps else 0,
        predictions=tested.predictions,
    )
