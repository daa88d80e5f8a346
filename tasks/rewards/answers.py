"""Stage: the answers of an evaluation as samples, so that they can be rewarded like any other."""

from pathlib import Path

from pydantic import BaseModel

from tasks.core.config import Config
from tasks.core.examples import make_sample, read_examples, read_records, write_rows
from tasks.core.references import DatasetRef
from tasks.core.stage import Report, Stage


class AnswersInputs(BaseModel):
    """Predictions, and the questions they answer, in one order."""

    predictions: DatasetRef
    questions: DatasetRef


class AnswersResult(BaseModel):
    """One sample per question."""

    samples: DatasetRef


def run(config: Config, inputs: AnswersInputs, out: Path, report: Report) -> AnswersResult:
    """Join both. Raises ValueError when they are not the same rows."""
    questions = read_examples(inputs.questions)
    predictions = list(read_records(inputs.predictions))
    if [row.id for row in questions] != [prediction["id"] for prediction in predictions]:
        raise ValueError("these predictions answer other questions")
    samples = [
        make_sample(question, prediction["completion"], cut=prediction["finish"] == "length")
        for question, prediction in zip(questions, predictions, strict=True)
    ]
    return AnswersResult(samples=write_rows(out / "samples.jsonl", samples))


STAGE = Stage("answers", run, Config, AnswersInputs, AnswersResult)
