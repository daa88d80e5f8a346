"""Stage: choose, from scored samples and training rows, what the next Improve step trains on."""

from pathlib import Path

from pydantic import BaseModel

from tasks.core.examples import read_examples, write_rows
from tasks.core.references import DatasetRef
from tasks.core.stage import Report, Stage
from tasks.improve.config import ImproveConfig
from tasks.improve.figures import Selection, describe
from tasks.improve.keeping import keep, without_repeated
from tasks.problems.base import ProblemConfig
from tasks.problems.load import load_problem


class SelectInputs(BaseModel):
    """Scored rows, and the level of this step."""

    rows: list[DatasetRef]
    """Samples, and the training rows where they are mixed in."""
    level: float
    asked: int
    """Prompts whose answers were drawn."""
    problem: ProblemConfig


class SelectResult(BaseModel):
    """The rows to train on, and what the choice looks like."""

    kept: DatasetRef
    selection: Selection


def run(config: ImproveConfig, inputs: SelectInputs, out: Path, report: Report) -> SelectResult:
    """Keep the rows that `config` and the level let pass, in their order; a training row that a sample repeats is none
    of them."""
    rows = [row for ref in inputs.rows for row in read_examples(ref)]
    rows = without_repeated(config, load_problem(inputs.problem), rows)
    kept = keep(config, inputs.level, rows)
    selection = Selection(
        level=inputs.level,
        asked=inputs.asked,
        before=describe(rows),
        after=describe(kept.rows),
        rejected=kept.rejected,
    )
    return SelectResult(kept=write_rows(out / "kept.jsonl", kept.rows), selection=selection)


STAGE = Stage("select", run, ImproveConfig, SelectInputs, SelectResult)
