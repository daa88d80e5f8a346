"""The policy that a loop over its own samples starts from, as a report compares the last one with it."""

from tasks.data.preparing import PreparedData
from tasks.improve.steps import Policy
from tasks.report.compare import Comparison
from tasks.rewards.scoring import Scoring
from tasks.student import Student


def measure_start(student: Student, policy: Policy, data: PreparedData, scoring: Scoring) -> Comparison:
    """The start's answers to the test rows, their accuracy and their reward."""
    tested = student.test(policy.model, {"test": data.test}, label="evaluate (start)")["test"]
    rewarded = scoring.of_answers(tested.predictions, data.test, label="reward (start)")
    figures = {"train/steps": float(policy.steps), "reward/test": rewarded.mean}
    if policy.reward is not None:
        figures["reward/validation"] = policy.reward
    return Comparison(
        name="warm start" if policy.steps else "base model",
        metrics=tested.metrics() | figures,
        steps=policy.steps,
        rows=data.train.rows if policy.steps else 0,
        predictions=tested.predictions,
    )
