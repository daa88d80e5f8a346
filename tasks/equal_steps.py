"""The fair baseline of every loop that adds data: the first data alone, trained for as many optimizer steps.

More rows at equal epochs are also more steps; what a loop gains over this student is not training time.
"""

from tasks.core.references import DatasetRef
from tasks.report.compare import Comparison
from tasks.student import Student


def seed_only_equal_steps(student: Student, train: DatasetRef, test: DatasetRef, steps: int) -> Comparison:
    """Train on the seed rows for `steps` optimizer steps and test the student."""
    trained = student.train(train, steps=steps, label="train (baseline)")
    tested = student.test(trained.model, {"test": test}, label="evaluate (baseline)")["test"]
    return Comparison(
        name="seed rows only, equal steps",
        metrics=trained.metrics() | tested.metrics(),
        steps=trained.steps,
        rows=train.rows,
        predictions=tested.predictions,
    )
