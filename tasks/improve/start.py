"""The policy that a loop over its own samples starts from, as a report compares the last one with it."""

from tasks.data.preparing import PreparedData
from tasks.improve.steps import Policy
from tasks.report.compare import Comparison
from tasks.student import Student


def measure_start(student: Student, policy: Policy, data: PreparedData) -> Comparison:
    """The start's answers to the test rows."""
    tested = student.test(policy.model, {"test": data.test}, label="evaluate (start)")["test"]
    return Comparison(
        name="warm start" if policy.steps else "base model",
        metrics=tested.metrics() | {"train/steps": policy.steps},
        steps=policy.steps,
        rows=data.train.rows if policy.steps else 0,
        predictions=tested.predictions,
    )
