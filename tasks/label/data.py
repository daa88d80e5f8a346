"""Stage: read the rows to be labelled, and the labelled ones that are shown to the teacher and tried out on."""

import hashlib
from pathlib import Path

from pydantic import BaseModel, Field

from tasks.core.config import PLACEMENT, Config
from tasks.core.errors import UserError
from tasks.core.examples import Example, write_rows
from tasks.core.references import DatasetRef
from tasks.core.stage import Report, Stage
from tasks.data.faults import refuse
from tasks.data.reading import read_located
from tasks.data.subset import shuffled
from tasks.problems.base import Problem, ProblemConfig
from tasks.problems.classification import Classification
from tasks.problems.load import load_problem, problem_code


class LabelDataConfig(Config):
    """The rows to be labelled: where they are, and what counts as an answer."""

    rows: str = Field("", json_schema_extra=PLACEMENT)
    """Address of the rows (a file, a folder, `s3://…`, `hub:…`)."""
    examples: str = Field("", json_schema_extra=PLACEMENT)
    """Address of labelled rows: demonstrations are taken from them, and `auto` tries settings out on them."""
    problem: str = "classification"
    """`classification`, `numeric`, `multiple_choice`, `exact_match`, or your own as `module:Class`. Answers have to
    fit a line."""
    labels: tuple[str, ...] = ()
    """The labels of a classification; empty takes those of `examples`."""
    instruction: str = ""
    """What the teacher is told of the task; empty takes the problem's own."""
    input: str = Field("input", min_length=1)
    """Column of the question or text."""
    target: str = ""
    """Column of the right answer: `examples` need it, and rows that have it are counted right or wrong."""
    choices: str = ""
    """Column of the choices; needed by multiple_choice only."""
    most_rows: int = Field(0, ge=0)
    """Label at most so many rows, chosen at random; 0 takes all, in their order."""
    demonstrations: int = Field(0, ge=0, le=100)
    """Examples that the teacher is shown with their answers, chosen at random."""
    sample_rows: int = Field(100, ge=1, le=10_000)
    """Further examples that `auto` tries settings out on, at most."""
    seed: int = Field(0, ge=0, le=2**31)
    """Decides which rows a subset takes."""


class LabelDataInputs(BaseModel):
    """What the sources hold, and the code of the user's problem."""

    rows: str
    examples: str
    code: str


class LabelData(BaseModel):
    """The rows every later stage works on; `known` when they came with their right answers."""

    rows: DatasetRef
    demonstrations: DatasetRef | None
    sample: DatasetRef | None
    """What settings are tried out on; no demonstration is among them."""
    problem: ProblemConfig
    known: bool


def read(config: LabelDataConfig) -> tuple[list[Example], list[Example], ProblemConfig, bool]:
    """The rows, the examples, the problem, and whether the rows' right answers are known.

    Raises UserError for everything a user can mend in data or configuration.
    """
    if config.demonstrations and not config.examples:
        raise UserError(
            "demonstrations are wanted, but there are no labelled rows",
            field="data.demonstrations",
            mend="give some with --data.examples=FILE, or 0",
        )
    if config.examples and not config.target:
        raise UserError(
            "labelled rows are given, but no column of their labels",
            field="data.target",
            mend="name the column, for example --data.target=label",
        )
    examples = read_located(config, "examples") if config.examples else []
    if examples and len(examples) <= config.demonstrations:
        raise UserError(
            f"{config.demonstrations} demonstrations are wanted, and there are {len(examples)} labelled rows",
            field="data.demonstrations",
            mend="take fewer, or give more rows",
        )
    rows, known = _rows(config)
    problem = _problem(config, [row for _, row in examples] + ([row for _, row in rows] if known else []))
    adapted = {"rows": rows, "examples": examples}
    for split, located in adapted.items():
        faults = [f"{place}: {fault}" for place, row in located if (fault := _fault(problem, row))]
        refuse(faults, field=f"data.{split}", mend="mend or remove these rows, or name the labels")
    found = [problem.adapt(row) for _, row in rows]
    if config.most_rows:
        found = shuffled(found, config.seed)[: config.most_rows]
    return found, [problem.adapt(row) for _, row in examples], problem.config, known


def _rows(config: LabelDataConfig) -> tuple[list[tuple[str, Example]], bool]:
    """The rows, without the column of right answers where only the examples have it."""
    try:
        return read_located(config, "rows"), bool(config.target)
    except UserError as error:
        if error.field != "data.target" or not config.examples:
            raise
        return read_located(config.model_copy(update={"target": ""}), "rows"), False


def _problem(config: LabelDataConfig, labelled: list[Example]) -> Problem:
    named = ProblemConfig(name=config.problem, instruction=config.instruction)
    named = named.model_copy(update={"code": problem_code(named)})
    problem = load_problem(named)
    if not isinstance(problem, Classification):
        return problem
    labels = config.labels or tuple(sorted({row.target for row in labelled}))
    if not labels:
        raise UserError(
            "the labels are not known",
            field="data.labels",
            mend='name them, --data.labels=\'["spam", "ham"]\', or give labelled rows with --data.examples=FILE',
        )
    return load_problem(named.model_copy(update={"labels": labels}))


def _fault(problem: Problem, row: Example) -> str | None:
    return problem.fault(row) if row.target else None


def inputs(config: LabelDataConfig) -> LabelDataInputs:
    """What the stage's cache key depends on beside its configuration. Raises UserError as reading does."""
    rows, examples, problem, _ = read(config)
    return LabelDataInputs(rows=_digest(rows), examples=_digest(examples), code=problem.code)


def _digest(rows: list[Example]) -> str:
    return hashlib.sha256("\n".join(row.id for row in rows).encode()).hexdigest()


def run(config: LabelDataConfig, inputs: LabelDataInputs, out: Path, report: Report) -> LabelData:
    """Write rows.jsonl and, of the examples, demonstrations.jsonl and sample.jsonl."""
    rows, examples, problem, known = read(config)
    examples = list({row.id: row for row in shuffled(examples, config.seed)}.values())
    shown, rest = examples[: config.demonstrations], examples[config.demonstrations :]
    sample = rest[: config.sample_rows]
    return LabelData(
        rows=write_rows(out / "rows.jsonl", rows),
        demonstrations=write_rows(out / "demonstrations.jsonl", shown) if shown else None,
        sample=write_rows(out / "sample.jsonl", sample) if sample else None,
        problem=problem,
        known=known,
    )


STAGE = Stage("label_data", run, LabelDataConfig, LabelDataInputs, LabelData)
