"""Stage: choose, from scored samples and training rows, what the next Improve step trains on."""

from pathlib import Path

from pydantic import BaseModel

from tasks.core.examples import Example, read_examples, write_rows
from tasks.core.models import load_tokenizer
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.stage import Report, Stage
from tasks.improve.config import ImproveConfig
from tasks.improve.figures import Selection, describe
from tasks.improve.keeping import keep, without_repeated
from tasks.problems.base import Problem, ProblemConfig
from tasks.problems.load import load_problem
from tasks.sft.rows import fits


class SelectInputs(BaseModel):
    """Scored rows, and the level of this step."""

    rows: list[DatasetRef]
    """Samples, and the training rows where they are mixed in."""
    level: float
    asked: int
    """Prompts whose answers were drawn."""
    problem: ProblemConfig
    model: ModelRef | None = None
    """By whose tokens rows that do not fit into `max_length` are left out; None leaves out none."""
    max_length: int = 0


class SelectResult(BaseModel):
    """The rows to train on, and what the choice looks like."""

    kept: DatasetRef
    selection: Selection


def run(config: ImproveConfig, inputs: SelectInputs, out: Path, report: Report) -> SelectResult:
    """Keep the rows that `config` and the level let pass, in their order; a training row that a sample repeats is none
    of them."""
    rows = [row for ref in inputs.rows for row in read_examples(ref)]
    problem = load_problem(inputs.problem)
    rows = without_repeated(config, problem, rows)
    fitting = _fitting(inputs, problem, rows)
    kept = keep(config, inputs.level, fitting)
    long = len(rows) - len(fitting)
    selection = Selection(
        level=inputs.level,
        asked=inputs.asked,
        before=describe(rows),
        after=describe(kept.rows),
        rejected=kept.rejected | ({"long": long} if long else {}),
    )
    return SelectResult(kept=write_rows(out / "kept.jsonl", kept.rows), selection=selection)


def _fitting(inputs: SelectInputs, problem: Problem, rows: list[Example]) -> list[Example]:
    if inputs.model is None:
        return rows
    tokenizer = load_tokenizer(inputs.model)
    return [row for row in rows if fits(problem, tokenizer, row, inputs.max_length)]


STAGE = Stage("select", run, ImproveConfig, SelectInputs, SelectResult)
