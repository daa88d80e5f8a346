"""Fine-tuning on the new rows, with a test before and after: what the rows are good for."""

from pydantic import BaseModel

from tasks import base_model
from tasks.base_model import ModelConfig, locate
from tasks.core.config import Config
from tasks.core.errors import UserError
from tasks.core.flow_run import Run
from tasks.core.references import DatasetRef, ModelRef
from tasks.evaluate import EvaluationConfig, SplitResult
from tasks.instruct.data import InstructDataConfig
from tasks.problems.base import ProblemConfig
from tasks.report.compare import difference, pair, read_predictions
from tasks.sft import config as sft
from tasks.sft.config import TrainingConfig
from tasks.student import Student, check_evaluation

CONVERSATION = ProblemConfig(name="dialogue")


class StudentConfig(Config):
    """A model that is fine-tuned on the new rows and tested before and after."""

    on: bool = False
    """Train. Needs `data.test` with responses (`data.test_target`)."""
    model: ModelConfig = ModelConfig()
    """The model."""
    training: TrainingConfig = TrainingConfig()
    """How it is trained."""
    evaluation: EvaluationConfig = EvaluationConfig(likelihood=True)
    """How it is tested: likeness of its answers to the responses (ROUGE-L), and how likely it finds these."""


class BeforeAndAfter(BaseModel):
    """The same test before and after the training."""

    model: ModelRef
    steps: int
    before: SplitResult
    after: SplitResult
    gain: float
    """Mean difference of the scores, a row with its own, and its bootstrap interval."""
    low: float
    high: float
    logprob_before: float | None
    """Mean log-probability of the test rows' responses, in nats; None where it was not asked for."""
    logprob_after: float | None

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        found = self.after.metrics() | {
            "train/steps": float(self.steps),
            "eval/accuracy_before": self.before.accuracy,
            "eval/gain": self.gain,
        }
        if self.logprob_before is not None and self.logprob_after is not None:
            found |= {
                "eval/logprob_before": self.logprob_before,
                "eval/logprob": self.logprob_after,
            }
        return found


def check_student(
    config: StudentConfig, data: InstructDataConfig, field: str = "student", *, processes: int = 1
) -> None:
    """Raise UserError for what can be known to be wrong before a model is loaded."""
    if not config.on:
        return
    for name, what in (("test", "rows to test on"), ("test_target", "the column of their responses")):
        if not getattr(data, name):
            raise UserError(
                f"{field}.on needs {what}",
                field=f"data.{name}",
                mend=f"name it, or leave {field}.on out",
            )
    locate(config.model, f"{field}.model.model")
    sft.check(config.training, has_validation=False, processes=processes)
    check_evaluation(config.evaluation, f"{field}.evaluation")


def train_and_test(run: Run, config: StudentConfig, rows: DatasetRef, test: DatasetRef) -> BeforeAndAfter:
    """Test the model, train it on `rows`, and test it again."""
    files = locate(config.model, "student.model.model")
    base = run.stage(base_model.STAGE, config.model, files, label="student").model
    student = Student(run, base, CONVERSATION, config.training, config.evaluation)
    before = student.test(base, {"test": test}, label="evaluate (before)")["test"]
    trained = student.train(rows)
    after = student.test(trained.model, {"test": test}, label="evaluate (after)")["test"]
    predictions = read_predictions(before.predictions), read_predictions(after.predictions)
    pairs = pair(*predictions, field="data.test")
    change = difference(pairs, config.evaluation.confidence, config.evaluation.seed)
    means = [_mean([one.logprob for one in answers]) for answers in predictions]
    return BeforeAndAfter(
        model=trained.model,
        steps=trained.steps,
        before=before,
        after=after,
        gain=change.mean,
        low=change.low,
        high=change.high,
        logprob_before=means[0],
        logprob_after=means[1],
    )


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
