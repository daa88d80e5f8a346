"""Stage: rows to train on as they are: plain texts, or questions with answers, and the names in them if given."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from tasks.core.config import PLACEMENT, Config
from tasks.core.errors import UserError
from tasks.core.examples import Example, make_example, write_rows
from tasks.core.references import DatasetRef
from tasks.core.stage import Report, Stage
from tasks.data.faults import refuse
from tasks.data.reading import BadCell, cell_text, read_rows


class CorpusConfig(Config):
    """Texts for continued pre-training, or questions with answers."""

    rows: str = Field("", json_schema_extra=PLACEMENT)
    """Address of the rows, as of a table of facts; may stay empty."""
    text: str = Field("text", min_length=1)
    """Column of the text, or of the answer."""
    question: str = ""
    """Column of the question; empty where rows are plain texts."""
    entities: str = ""
    """Column of the names in a row: a list of names, or of [begin, end] in characters; may stay empty."""


class CorpusInputs(BaseModel):
    """Digest of the rows, in their order."""

    content: str


class CorpusResult(BaseModel):
    """The rows as examples, plain texts without an input."""

    rows: DatasetRef


def read_corpus(config: CorpusConfig, field: str = "corpus") -> list[Example]:
    """The rows, in their order. Raises UserError, for fields beneath `field`, for columns and cells that do not fit."""
    rows = read_rows(config.rows, f"{field}.rows", split="train")
    columns = dict.fromkeys(column for _, cells in rows for column in cells)
    for name in ("text", "question", "entities"):
        column = getattr(config, name)
        if column and column not in columns:
            raise UserError(
                f"there is no column {column!r}",
                field=f"{field}.{name}",
                mend=f"the columns are {', '.join(columns)}; choose one with --{field}.{name}=NAME",
            )
    found, faults = [], []
    for place, cells in rows:
        try:
            question = cell_text(cells, config.question) if config.question else ""
            facts = {"entities": _entities(cells, config.entities)} if config.entities else {}
            found.append(make_example(question, cell_text(cells, config.text), facts=facts))
        except BadCell as error:
            faults.append(f"{place}, {error}")
    refuse(faults, field=f"{field}.rows", mend="fill or remove these rows")
    return found


def inputs(config: CorpusConfig, field: str = "corpus") -> CorpusInputs:
    """What the stage's cache key depends on, wherever the rows lie."""
    rows = [[row.id, row.facts] for row in read_corpus(config, field)]
    return CorpusInputs(content=hashlib.sha256(json.dumps(rows).encode()).hexdigest())


def run(config: CorpusConfig, inputs: CorpusInputs, out: Path, report: Report) -> CorpusResult:
    """Write `out`/rows.jsonl."""
    return CorpusResult(rows=write_rows(out / "rows.jsonl", read_corpus(config)))


def _entities(cells: dict[str, Any], column: str) -> list[Any]:
    value = cells.get(column)
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else []
        except ValueError as error:
            raise BadCell(f"column {column!r} is no JSON list: {error}") from error
    if value is not None and not isinstance(value, list):
        raise BadCell(f"column {column!r} is no list")
    return list(value or ())


STAGE = Stage("corpus", run, CorpusConfig, CorpusInputs, CorpusResult)
