"""Stage: the rows at a data location that were never seen, appended as a new version of the training set."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from tasks.core.config import PLACEMENT, Config
from tasks.core.errors import UserError
from tasks.core.examples import Example, read_examples, read_records, write_rows
from tasks.core.references import DatasetRef
from tasks.core.stage import Report, Stage
from tasks.data.config import DataConfig
from tasks.data.gym import PREFIX as GYM
from tasks.data.prompts import question_of
from tasks.data.sound_rows import read_cells
from tasks.problems.base import ProblemConfig
from tasks.problems.load import load_problem, problem_code
from tasks.retrain.location import FIELD, BrokenFile, Found, look
from tasks.retrain.versions import DataVersion


class NewRowsConfig(Config):
    """Where new rows arrive, and what becomes of files that cannot be used."""

    location: str = Field("", json_schema_extra=PLACEMENT)
    """A folder, or an fsspec address such as `s3://bucket/prefix`, whose files have the columns of `data`."""
    broken: Literal["skip", "refuse"] = "skip"
    """A file that cannot be read or holds a bad row: name it and go on without it, or end the run."""
    data: DataConfig = DataConfig()
    """The columns and the problem; `train` is where the first version starts, `test` and `validation` are held out."""


class NewRowsInputs(BaseModel):
    """The versions that there are, and what the location holds."""

    rows: list[DatasetRef]
    """Training rows of the versions that the new one goes on from."""
    seen: list[DatasetRef]
    """What these and other versions have seen. Without any, the first version is made, from `data.train`."""
    content: str
    """Digest of what is read, independent of file names and the order of rows."""
    code: str
    """Digest of a user's own problem."""


class NewRows(BaseModel):
    """The new version, and what was found."""

    version: DataVersion
    new: int
    """Rows that no version had seen."""
    held_out: int
    """Rows left out because the test or validation rows ask the same."""
    broken: list[BrokenFile]
    left_out: dict[str, int]
    """Rows of other files that were left out, by reason (`data.faulty`, `data.longest_input`)."""

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        counts = {"new_rows": self.new, "train_rows": self.version.rows.rows, "held_out_rows": self.held_out}
        return {f"data/{name}": float(count) for name, count in counts.items()} | {
            "data/broken_files": float(len(self.broken)),
            "data/left_out_rows": float(sum(self.left_out.values())),
        }


def inputs(
    config: NewRowsConfig, heads: Sequence[DataVersion], base: DataVersion | None = None
) -> NewRowsInputs:
    """What the stage's cache key depends on: `heads` are the newest versions (more than one after two runs at once),
    `base` the only one whose rows are gone on from, where that is not all of them."""
    rows, seen = _after(heads, base)
    return NewRowsInputs(
        rows=rows,
        seen=seen,
        content=_content(*_sources(config, rows, bool(heads))),
        code=problem_code(ProblemConfig(name=config.data.problem)),
    )


def run(config: NewRowsConfig, inputs: NewRowsInputs, out: Path, report: Report) -> NewRows:
    """Write the version: the rows of those before it in their order, then the new ones in the order of their ids.

    Raises UserError when a file is broken and `broken` is `refuse`, or when files change while they are read.
    """
    found, held_out = _sources(config, inputs.rows, bool(inputs.seen))
    if _content(found, held_out) != inputs.content:
        raise UserError(
            f"the files at {config.location} changed while they were read",
            field=FIELD,
            mend="run it again; let files appear whole, by moving them into place",
        )
    if found.broken and config.broken == "refuse":
        listed = "\n    ".join(map(str, found.broken))
        raise UserError(
            f"files that cannot be used:\n    {listed}",
            field=FIELD,
            mend="mend or remove them, or go on without them: --broken=skip",
        )
    rows = {row.id: row for ref in inputs.rows for row in read_examples(ref)}
    seen = {record["id"] for ref in inputs.seen for record in read_records(ref)}
    unseen = {row.id: row for row in found.rows if row.id not in seen and row.id not in rows}
    problem = load_problem(ProblemConfig(name=config.data.problem))
    new = [row for _, row in sorted(unseen.items()) if question_of(problem.adapt(row)) not in held_out]
    every = [*rows.values(), *new]
    ids = sorted(seen | {row.id for row in every})
    report({"progress": [len(new), len(unseen)], "text": "new rows"})
    return NewRows(
        version=DataVersion(
            rows=write_rows(out / "rows.jsonl", every),
            seen=write_rows(out / "seen.jsonl", [{"id": one} for one in ids]),
            train=write_rows(out / "train.jsonl", (_columns(config.data, row) for row in every)),
        ),
        new=len(new),
        held_out=len(unseen) - len(new),
        broken=found.broken,
        left_out=dict(found.left_out),
    )


def _after(
    heads: Sequence[DataVersion], base: DataVersion | None
) -> tuple[list[DatasetRef], list[DatasetRef]]:
    kept = [base] if base is not None else heads
    return [version.rows for version in kept], [version.seen for version in heads]


def _sources(config: NewRowsConfig, rows: Sequence[DatasetRef], begun: bool) -> tuple[Found, set[str]]:
    """What the location holds (before the first version also `data.train`), and the questions that are held out."""
    left_out = Counter[str]()
    first = [] if begun else _first_rows(config.data, left_out)
    labels = {row.target for row in first} | {row.target for ref in rows for row in read_examples(ref)}
    found = look(config.location, config.data, labels)
    splits = ["test"] + ["validation"] * bool(config.data.validation)
    problem = load_problem(ProblemConfig(name=config.data.problem))
    rows_of = (read_cells(config.data, split, Counter()) for split in splits)
    held_out = {question_of(problem.adapt(row)) for located in rows_of for _, row in located}
    return Found([*first, *found.rows], found.broken, found.left_out + left_out), held_out


def _first_rows(data: DataConfig, left_out: Counter[str]) -> list[Example]:
    if data.train.startswith(GYM):
        raise UserError(
            "tasks of reasoning-gym are made and do not arrive: there are no versions of them",
            field="data.train",
            mend="give a file of rows, and a problem such as numeric or exact_match",
        )
    return [row for _, row in read_cells(data, "train", left_out)]


def _content(found: Found, held_out: set[str]) -> str:
    value = [
        sorted({row.id for row in found.rows}),
        [one.model_dump() for one in found.broken],
        sorted(found.left_out.items()),
        sorted(held_out),
    ]
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _columns(data: DataConfig, row: Example) -> dict[str, object]:
    cells: dict[str, object] = {data.input: row.input, data.target: row.target}
    return cells | ({data.choices: row.choices} if data.choices else {})


STAGE = Stage("new_rows", run, NewRowsConfig, NewRowsInputs, NewRows)
