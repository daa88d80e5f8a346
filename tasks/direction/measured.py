"""A model asked in both directions, and what is kept of it."""

from dataclasses import dataclass, field

from pydantic import BaseModel

from tasks.core.references import DatasetRef, ModelRef
from tasks.core.run import Run
from tasks.direction import gap
from tasks.direction.gap import DirectionGap, GapConfig, GapInputs
from tasks.direction.general import LossChange
from tasks.evaluate import EvaluationConfig
from tasks.facts.stage import PROBLEM, FactsResult
from tasks.sft.config import TrainingConfig
from tasks.student import Student


class Measured(BaseModel):
    """A model's accuracy in both directions, and what it was trained on."""

    name: str
    gap: DirectionGap
    rows: int = 0
    """Rows it was trained on; 0 for a model as it was found."""
    steps: int = 0

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        return self.gap.metrics() | {"train/steps": float(self.steps), "data/train_rows": float(self.rows)}


@dataclass
class DirectionRecord:
    """What a run hands to its report. The last of `measured` is the one that the run is about, the first the start."""

    measured: list[Measured] = field(default_factory=list)
    general: LossChange | None = None
    model: ModelRef | None = None
    train: DatasetRef | None = None


@dataclass(frozen=True)
class Examination:
    """Asks models the same questions in the same way."""

    run: Run
    facts: FactsResult
    evaluation: EvaluationConfig

    def of(self, model: ModelRef, name: str, *, rows: int = 0, steps: int = 0) -> Measured:
        """A model's accuracy in both directions."""
        student = Student(self.run, model, PROBLEM, TrainingConfig(), self.evaluation)
        results = student.test(model, self.facts.asked, label=f"ask both ways ({name})")
        config = GapConfig(
            confidence=self.evaluation.confidence,
            resamples=self.evaluation.resamples,
            seed=self.evaluation.seed,
        )
        inputs = GapInputs(questions=self.facts.asked, results=results)
        found = self.run.stage(gap.STAGE, config, inputs, label=f"direction gap ({name})")
        return Measured(name=name, gap=found, rows=rows, steps=steps)
