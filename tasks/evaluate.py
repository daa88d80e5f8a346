"""Stage: answer every row of one or more data sets, score the answers, keep every prediction."""

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, Field

from tasks.core.config import Config
from tasks.core.examples import Example, read_examples, read_records, write_rows
from tasks.core.generators.base import Completion, Sampling
from tasks.core.generators.load import EngineConfig, load_generator, load_local
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.sharding import Cutter, Sharding
from tasks.core.stage import Report, Stage
from tasks.problems.base import Problem, ProblemConfig
from tasks.problems.load import load_problem
from tasks.problems.scoring import broken_problem, hanging_problem, in_time, score_answer


class EvaluationConfig(Config):
    """How students are tested."""

    engine: EngineConfig = EngineConfig()
    """What runs the student."""
    max_new_tokens: int = Field(0, ge=0, le=32768)
    """Longest answer in tokens; 0 takes what the problem needs."""
    temperature: float = Field(0.0, ge=0.0, le=5.0)
    """0 is greedy. The paper samples GSM8K answers at 0.7 (with top_p 0.9)."""
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    """Nucleus sampling, when the temperature is not 0."""
    restricted: bool = True
    """Let the student write nothing but one of the problem's labels, where there is a fixed set of them. Without it a
    small student may answer with a word that is none. A server (engine `openai`) answers freely all the same."""
    likelihood: bool = False
    """Also record the log-probability of the right answer (needed by `failures: margin`)."""
    confidence: float = Field(0.95, gt=0.0, lt=1.0)
    """Level of the bootstrap interval around the accuracy."""
    resamples: int = Field(2000, ge=100, le=100_000)
    """Bootstrap resamples."""
    seed: int = Field(0, ge=0, le=2**31)
    """Seed of sampling and bootstrap."""


class EvaluationInputs(BaseModel):
    """The student and the data sets it is tested on, by name ("train", "test")."""

    model: ModelRef
    splits: dict[str, DatasetRef]
    problem: ProblemConfig


class Prediction(BaseModel):
    """One answered row; `prompt` is the conversation as text, `logprob` the right answer's log-probability (None: not
    asked for, or longer than the model's context); `failure` and `reason` are those of its score."""

    id: str
    input: str
    target: str
    prompt: str
    completion: str
    answer: str | None
    value: float
    finish: str
    logprob: float | None = None
    failure: str = ""
    reason: str = ""


class ClassRow(BaseModel):
    """How one target fares: rows that have it, right among them, and how often it was answered in all."""

    target: str
    rows: int
    right: int
    answered: int

    @property
    def recall(self) -> float:
        """Share of the target's rows that were answered right."""
        return self.right / self.rows

    @property
    def precision(self) -> float:
        """Share of the answers naming this target that were right; 0 when it was never answered."""
        return self.right / self.answered if self.answered else 0.0


class SplitResult(BaseModel):
    """Figures of one data set: mean score, its interval, the rows not right in full, a row per class."""

    rows: int
    accuracy: float
    low: float
    high: float
    wrong: int
    classes: list[ClassRow]
    predictions: DatasetRef
    failed: int = 0
    """Answers worth 0 because the problem raised on them, came to no end, or gave no number."""
    reason: str = ""
    """Of the last of these failures."""

    @property
    def exact(self) -> float:
        """Share of the rows that are right in full; less than the accuracy where a score may lie between 0 and 1."""
        return (self.rows - self.wrong) / self.rows if self.rows else 0.0

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        return {
            "eval/accuracy": self.accuracy,
            "eval/exact": self.exact,
            "eval/accuracy_low": self.low,
            "eval/accuracy_high": self.high,
            "eval/failed": float(self.failed),
        }


class EvaluationResult(BaseModel):
    """Figures per data set."""

    splits: dict[str, SplitResult]


def run(config: EvaluationConfig, inputs: EvaluationInputs, out: Path, report: Report) -> EvaluationResult:
    """Answer and score all splits; predictions are written to `out`/<split>.jsonl.

    Raises UserError when the problem failed on every answer, and on a right one: it is broken, and the student need not
    be bad. Raises it as well when the problem comes to no end on the first answers, or on many in a row.
    """
    problem = load_problem(inputs.problem)
    splits = {name: read_examples(ref) for name, ref in inputs.splits.items()}
    examples = [example for rows in splits.values() for example in rows]
    prompts = [problem.prompt(example) for example in examples]
    sampling = Sampling(
        max_new_tokens=config.max_new_tokens or problem.max_new_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        seed=config.seed,
        choices=problem.choices if config.restricted else (),
    )

    def progress(done: int, total: int) -> None:
        report({"progress": [done, total], "text": "answered"})

    logprobs: list[float | None] = [None] * len(examples)
    if config.likelihood:
        local = load_local(inputs.model, config.engine)
        completions = local.generate(prompts, sampling, progress)
        targets = [problem.target(example) for example in examples]
        logprobs = [found and found[0] for found in local.log_likelihood(prompts, targets)]
    else:
        generator = load_generator(config.engine, inputs.model, field="evaluation.engine")
        completions = generator.generate(prompts, sampling, progress)

    scored = (
        predict(problem, example, completion, logprob)
        for example, completion, logprob in zip(examples, completions, logprobs, strict=True)
    )
    predictions = list(in_time(scored, lambda *words: hanging_problem(inputs.problem.name, *words)))
    if failures := [prediction.reason for prediction in predictions if prediction.failure]:
        if len(failures) == len(predictions):
            right = score_answer(problem, examples[0], problem.target(examples[0]))
            if right.failure:
                raise broken_problem(inputs.problem.name, len(failures), failures[-1])
        warnings.warn(
            f"the problem failed on {len(failures):,} of {len(predictions):,} answers, which count as wrong; at last "
            f"because {failures[-1]}",
            stacklevel=1,
        )
    results, begin = {}, 0
    for name, rows in splits.items():
        part = predictions[begin : begin + len(rows)]
        begin += len(rows)
        results[name] = summarise(part, write_rows(out / f"{name}.jsonl", part), config)
    return EvaluationResult(splits=results)


def summarise(predictions: Sequence[Prediction], stored: DatasetRef, config: EvaluationConfig) -> SplitResult:
    """Accuracy with its bootstrap interval, and a row per target when targets repeat (a classification)."""
    values = [prediction.value for prediction in predictions]
    low, high = bootstrap_interval(values, config.confidence, config.resamples, config.seed)
    failures = [prediction.reason for prediction in predictions if prediction.failure]
    return SplitResult(
        rows=len(values),
        accuracy=sum(values) / len(values) if values else 0.0,
        low=low,
        high=high,
        wrong=sum(value < 1 for value in values),
        classes=_classes(predictions),
        predictions=stored,
        failed=len(failures),
        reason=failures[-1] if failures else "",
    )


def bootstrap_interval(
    values: Sequence[float], confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values`; (0, 0) for no value (Efron & Tibshirani 1993, ch. 13)."""
    import numpy as np

    if not values:
        return 0.0, 0.0
    generator = np.random.default_rng(seed)
    array = np.asarray(values)
    means = [array[generator.integers(0, len(array), len(array))].mean() for _ in range(resamples)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def predict(
    problem: Problem, example: Example, completion: Completion, logprob: float | None = None
) -> Prediction:
    """An answered row with its score."""
    score = score_answer(problem, example, completion.text)
    return Prediction(
        id=example.id,
        input=example.input,
        target=example.target,
        prompt="\n".join(f"{message['role']}: {message['content']}" for message in problem.prompt(example)),
        completion=completion.text,
        answer=score.answer,
        value=score.value,
        finish=completion.finish,
        logprob=logprob,
        failure=score.failure,
        reason=score.reason,
    )


def _classes(predictions: Sequence[Prediction]) -> list[ClassRow]:
    rows = Counter(prediction.target for prediction in predictions)
    if len(rows) > 100 or len(rows) * 2 > len(predictions):
        return []  # free answers, not classes
    right = Counter(prediction.target for prediction in predictions if prediction.value >= 1)
    answered = Counter(prediction.answer for prediction in predictions)
    return [
        ClassRow(target=target, rows=count, right=right[target], answered=answered[target])
        for target, count in sorted(rows.items())
    ]


def cut(config: EvaluationConfig, inputs: EvaluationInputs, cutter: Cutter) -> list[EvaluationInputs]:
    """The same, shard by shard. It stays whole where a server answers, which is asked at one pace by one process, and
    where answers are sampled, since a sample hangs on its row's place."""
    rows = sum(ref.rows for ref in inputs.splits.values())
    if rows <= cutter.rows or config.temperature or not loads_model(config, inputs):
        return []
    return [
        inputs.model_copy(update={"splits": {name: shard}})
        for name, ref in inputs.splits.items()
        for shard in cutter(ref)
    ]


def join(
    config: EvaluationConfig, inputs: EvaluationInputs, parts: Sequence[EvaluationResult], out: Path
) -> EvaluationResult:
    """The predictions of all shards in their order, and the figures anew."""
    results = {}
    for name in inputs.splits:
        shards = [part.splits[name].predictions for part in parts if name in part.splits]
        rows = [Prediction.model_validate(row) for shard in shards for row in read_records(shard)]
        results[name] = summarise(rows, write_rows(out / f"{name}.jsonl", rows), config)
    return EvaluationResult(splits=results)


def loads_model(config: EvaluationConfig, inputs: EvaluationInputs) -> bool:
    """Whether the model is not a server's, which tells no likelihoods."""
    return config.likelihood or config.engine.loads_model


STAGE = Stage(
    "evaluate",
    run,
    EvaluationConfig,
    EvaluationInputs,
    EvaluationResult,
    own_process=True,
    loads_model=loads_model,
    sharding=Sharding(cut, join),
)
