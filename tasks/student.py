"""How the students of a loop are trained and tested: the same way every time, or comparing them means nothing."""

from dataclasses import dataclass

from tasks import evaluate
from tasks.compress.weights import located
from tasks.core.flow_run import Run
from tasks.core.generators.load import check_trained_here
from tasks.core.references import DatasetRef, ModelRef
from tasks.evaluate import EvaluationConfig, EvaluationInputs, SplitResult
from tasks.problems.base import ProblemConfig
from tasks.reversal.config import NO_COPIES, ReversalConfig
from tasks.reversal.stage import reverse_rows
from tasks.sft import stage as sft
from tasks.sft.config import TrainingConfig
from tasks.sft.stage import TrainingInputs, TrainingResult


@dataclass(frozen=True)
class Student:
    """The base model, the problem, and the settings that every training and test of a loop shares."""

    run: Run
    base: ModelRef
    problem: ProblemConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    validation: DatasetRef | None = None
    reversal: ReversalConfig = NO_COPIES
    """Reversed copies that every training gets beside its rows."""

    def train(
        self,
        rows: DatasetRef,
        *,
        start: ModelRef | None = None,
        steps: int = 0,
        seed: int | None = None,
        label: str = "train",
    ) -> TrainingResult:
        """Train from `start` (the base model if None), for `steps` optimizer steps if that is not 0."""
        changes = ({"max_steps": steps} if steps else {}) | ({"seed": seed} if seed is not None else {})
        training = self.training.model_copy(update=changes)
        mixed = reverse_rows(self.run, self.reversal, rows, self.problem, label=f"reverse ({label})").mixed
        inputs = TrainingInputs(
            model=start or self.base, train=mixed, validation=self.validation, problem=self.problem
        )
        return self.run.stage(sft.STAGE, training, inputs, label=label, training=True)

    def test(
        self,
        model: ModelRef,
        splits: dict[str, DatasetRef],
        *,
        likelihood: bool = False,
        label: str = "evaluate",
    ) -> dict[str, SplitResult]:
        """The model's results on data sets, by their names; `likelihood` records the right answers' probability."""
        changes = {"likelihood": True} if likelihood else {}
        engine = located(self.evaluation.engine, "evaluation.engine")
        evaluation = self.evaluation.model_copy(update={"engine": engine} | changes)
        inputs = EvaluationInputs(model=model, splits=splits, problem=self.problem)
        return self.run.stage(evaluate.STAGE, evaluation, inputs, label=label).splits


def check_evaluation(config: EvaluationConfig, field: str = "evaluation") -> None:
    """Raise UserError for a compressor that cannot be had, an engine that is not installed, and a server, which has
    another model; `field` is where the evaluation stands in the flow's configuration."""
    check_trained_here(config.engine, field=f"{field}.engine")
    located(config.engine, f"{field}.engine")
