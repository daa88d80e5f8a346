"""The same prompts answered whole and made shorter, by the compressor and by what it has to beat, at every rate."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from tasks.augment.teacher import Teacher, TeacherConfig, load_teacher
from tasks.compress import measuring
from tasks.compress.arms import Arm
from tasks.compress.measuring import MeasurementConfig, MeasurementInputs, MeasurementResult
from tasks.core.artifacts import log
from tasks.core.config import Config
from tasks.core.references import ModelRef
from tasks.core.run import Run
from tasks.data import preparing
from tasks.data.config import DataConfig
from tasks.sft.config import TrainingConfig
from tasks.student import Student


class AnswersConfig(TeacherConfig):
    """The model that answers the prompts, whole and shorter: a local one by name, or a server's (`engine`)."""

    fine_tune: bool = False
    """Train it on the data's training rows first, with whole inputs: small models cannot answer without."""
    training: TrainingConfig = TrainingConfig()
    """How."""


class ArmsConfig(Config):
    """What is measured."""

    rates: tuple[float, ...] = Field((0.5, 0.333, 0.2), min_length=1)
    """Shares of the inputs' tokens that are kept: 2, 3 and 5 times shorter."""
    arms: tuple[Arm, ...] = ("compressor", "random", "stop words", "truncation")
    """Ways to make inputs shorter; whole ones are measured in any case."""


@dataclass(frozen=True)
class Measured:
    """The measurements, the whole prompts first."""

    results: list[MeasurementResult]

    def metrics(self) -> dict[str, float]:
        """Every arm's figures, and those of the compressor at the first rate as the flow's own."""
        whole = self.results[0]
        named = {f"{result.arm} at {result.rate:g}": result for result in self.results[1:]}
        figures = {
            f"{name.replace(' ', '_')}/{key.removeprefix('eval/').removeprefix('compression/')}": value
            for name, result in {"whole": whole, **named}.items()
            for key, value in result.metrics().items()
        }
        first = next((result for result in self.results if result.arm == "compressor"), whole)
        saved = whole.usage.prompt_tokens - first.usage.prompt_tokens
        return figures | first.metrics() | {"compression/tokens_saved": float(saved)}


def measure(
    run: Run,
    config: MeasurementConfig,
    arms: ArmsConfig,
    data: DataConfig,
    answers: AnswersConfig,
    compressor: ModelRef,
) -> Measured:
    """Answer the test rows in every arm at every rate; each is a stage of its own, so that a killed run goes on."""
    prepared = run.stage(preparing.STAGE, data, preparing.inputs(data), label="data")
    run.dataset(prepared.test, "test")
    for caution in prepared.cautions():
        log(caution)
    model = (
        _fine_tuned(run, answers, config, prepared)
        if answers.fine_tune
        else load_teacher(run, answers, "answers")
    )
    asked: list[tuple[Arm, float]] = [("whole", 1.0)]
    asked += [(arm, rate) for rate in arms.rates for arm in arms.arms if arm != "whole"]
    inputs = [
        MeasurementInputs(
            answers=model,
            compressor=compressor,
            rows=prepared.test,
            problem=prepared.problem,
            arm=arm,
            rate=rate,
        )
        for arm, rate in asked
    ]
    labels = [f"answer ({arm} at {rate:g})" for arm, rate in asked]
    return Measured(run.stages(measuring.STAGE, config, inputs, labels=labels, whole="answers"))


def _fine_tuned(
    run: Run, answers: AnswersConfig, config: MeasurementConfig, data: preparing.PreparedData
) -> Teacher:
    base = load_teacher(run, answers, "answers")
    assert base.weights is not None  # `check` refuses a server that is to be trained
    student = Student(run, base.weights, data.problem, answers.training, config.evaluation)
    return Teacher(engine=base.engine, weights=student.train(data.train, label="train (answers)").model)


def table(results: Sequence[MeasurementResult]) -> list[dict[str, float | str]]:
    """A row per arm and rate, for a page or a terminal."""
    return [
        {
            "inputs": result.name,
            "accuracy": round(result.test.accuracy, 4),
            "low": round(result.test.low, 4),
            "high": round(result.test.high, 4),
            "kept": round(result.kept, 3),
            "prompt tokens": result.usage.prompt_tokens,
            "compress s": round(result.compress_s, 2),
            "answer s": round(result.answer_s, 2),
            "cost": round(result.cost, 6),
        }
        for result in results
    ]
