"""Stage: a model answers prompts that were made shorter; what that costs in right answers, and what it saves."""

import time
from pathlib import Path

from pydantic import BaseModel, Field

from tasks.augment.teacher import Teacher
from tasks.compress.arms import Arm, as_arm
from tasks.core.compression.compressor import Compressor, Document, select
from tasks.core.compression.config import CompressionConfig
from tasks.core.compression.marked import read_marked
from tasks.core.compression.token_classifier import load_token_classifier
from tasks.core.config import Config
from tasks.core.errors import UserError
from tasks.core.examples import read_examples, write_rows
from tasks.core.generators.base import Sampling, Usage
from tasks.core.generators.load import load_generator
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.stage import Report, Stage
from tasks.core.store import fetch
from tasks.evaluate import EvaluationConfig, SplitResult, predict, summarise
from tasks.problems.base import ProblemConfig
from tasks.problems.load import load_problem


class MeasurementConfig(Config):
    """How answers to shorter prompts are measured."""

    compression: CompressionConfig = CompressionConfig()
    """What is kept in any case; the rate is that of the arm."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How the answers are made and scored."""
    marked: bool = False
    """Parts of the inputs between <keep> and </keep> (the question, say) stay as they are."""
    prompt_price: float = Field(0.0, ge=0.0)
    """Price of a million prompt tokens of the model that answers;"""
    completion_price: float = Field(0.0, ge=0.0)
    """that of a million tokens of its answers."""


class MeasurementInputs(BaseModel):
    """Who answers which rows, and how their inputs are made shorter."""

    answers: Teacher
    """The model that answers."""
    compressor: ModelRef
    rows: DatasetRef
    problem: ProblemConfig
    arm: Arm
    rate: float


class MeasurementResult(BaseModel):
    """One way to make prompts shorter, at one rate."""

    arm: Arm
    rate: float
    test: SplitResult
    kept: float
    """The share of the inputs' tokens that was kept, counted by the encoder's tokens."""
    usage: Usage
    """Of the model that answers."""
    compress_s: float
    """Seconds that making the inputs shorter took, without loading the encoder;"""
    answer_s: float
    """and that answering took, without loading the model."""
    cost: float

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        return self.test.metrics() | {
            "compression/kept": self.kept,
            "compression/prompt_tokens": float(self.usage.prompt_tokens),
            "compression/compress_s": self.compress_s,
            "compression/answer_s": self.answer_s,
            "compression/cost": self.cost,
        }

    @property
    def name(self) -> str:
        """What the arm is called in tables."""
        return "whole prompts" if self.arm == "whole" else f"{self.arm} at {self.rate:g}"


def run(config: MeasurementConfig, inputs: MeasurementInputs, out: Path, report: Report) -> MeasurementResult:
    """Make every row's input shorter, answer, score."""
    problem, rows = load_problem(inputs.problem), read_examples(inputs.rows)
    if not rows:
        raise UserError("there is no row to answer", field="data.test")
    compressor = Compressor(load_token_classifier(fetch(inputs.compressor)))
    begun = time.perf_counter()
    documents = [read_marked(row.input) if config.marked else Document(row.input) for row in rows]
    rate = 1.0 if inputs.arm == "whole" else inputs.rate
    keeping = config.compression.model_copy(update={"rate": rate, "target_token": 0})
    scored = compressor.score(documents, keeping)
    seed = config.evaluation.seed
    done = [select(as_arm(one, inputs.arm, seed, number), keeping) for number, one in enumerate(scored)]
    compress_s = time.perf_counter() - begun
    shorter = [row.model_copy(update={"input": one.text}) for row, one in zip(rows, done, strict=True)]

    generator = load_generator(inputs.answers.engine, inputs.answers.weights, field="answers.engine")
    sampling = Sampling(
        max_new_tokens=config.evaluation.max_new_tokens or problem.max_new_tokens,
        temperature=config.evaluation.temperature,
        top_p=config.evaluation.top_p,
        seed=seed,
        choices=problem.choices if config.evaluation.restricted else (),
    )
    begun = time.perf_counter()
    completions = generator.generate(
        [problem.prompt(row) for row in shorter],
        sampling,
        lambda done, total: report({"progress": [done, total], "text": "answered"}),
    )
    answer_s = time.perf_counter() - begun
    predictions = [
        predict(problem, row, completion) for row, completion in zip(shorter, completions, strict=True)
    ]
    usage = generator.usage
    cost = usage.prompt_tokens * config.prompt_price + usage.completion_tokens * config.completion_price
    return MeasurementResult(
        arm=inputs.arm,
        rate=inputs.rate,
        test=summarise(predictions, write_rows(out / "test.jsonl", predictions), config.evaluation),
        kept=sum(one.kept_tokens for one in done) / max(1, sum(one.tokens for one in done)),
        usage=usage,
        compress_s=compress_s if inputs.arm == "compressor" else 0.0,
        answer_s=answer_s,
        cost=cost / 1e6,
    )


STAGE = Stage(
    "compression_measurement",
    run,
    MeasurementConfig,
    MeasurementInputs,
    MeasurementResult,
    own_process=True,
)
