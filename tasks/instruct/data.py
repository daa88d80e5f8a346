"""Stage: read the seeds, the texts of backtranslation, and the instructions that no new one may repeat."""

import hashlib
from pathlib import Path

from pydantic import BaseModel, Field

from tasks.core.config import PLACEMENT, Config
from tasks.core.examples import Example, write_rows
from tasks.core.references import DatasetRef
from tasks.core.stage import Report, Stage
from tasks.data.reading import read_located


class InstructDataConfig(Config):
    """The seeds, and what else is needed: files, folders, `s3://…` or `hub:…`."""

    seeds: str = Field("", json_schema_extra=PLACEMENT)
    """Address of the seed rows, an instruction and its response each (published: 175 written by people)."""
    texts: str = Field("", json_schema_extra=PLACEMENT)
    """Address of texts of people, for backtranslation; their column is `text`."""
    test: str = Field("", json_schema_extra=PLACEMENT)
    """Address of the rows that measure later; nothing that resembles one is kept."""
    input: str = Field("instruction", min_length=1)
    """Column of the instruction, in seeds and test rows."""
    target: str = Field("response", min_length=1)
    """Column of the response, in the seeds."""
    test_target: str = ""
    """Column of the response in the test rows; needed where a student is tested on them."""
    text: str = Field("text", min_length=1)
    """Column of the texts."""


class InstructDataInputs(BaseModel):
    """What the sources hold."""

    seeds: str
    texts: str
    test: str


class InstructData(BaseModel):
    """The rows every later stage works on; duplicates are left out."""

    seeds: DatasetRef
    texts: DatasetRef | None
    test: DatasetRef | None


class _Source(Config):
    """One source as rows are read from it."""

    seeds: str = ""
    texts: str = ""
    test: str = ""
    input: str
    target: str = ""
    choices: str = ""


def read(config: InstructDataConfig) -> dict[str, list[Example]]:
    """The rows of every source by its name; empty where none is named, but for the seeds.

    Raises UserError for everything a user can mend in the data.
    """
    sources = {
        "seeds": _Source(seeds=config.seeds, input=config.input, target=config.target),
        "texts": _Source(texts=config.texts, input=config.text),
        "test": _Source(test=config.test, input=config.input, target=config.test_target),
    }
    found = {
        name: [row for _, row in read_located(source, name)]
        if name == "seeds" or getattr(source, name)
        else []
        for name, source in sources.items()
    }
    return {name: list({row.id: row for row in rows}.values()) for name, rows in found.items()}


def inputs(config: InstructDataConfig) -> InstructDataInputs:
    """What the stage's cache key depends on beside its configuration. Raises UserError as reading does."""
    return InstructDataInputs(
        **{
            name: hashlib.sha256("\n".join(row.id for row in rows).encode()).hexdigest()
            for name, rows in read(config).items()
        }
    )


def run(config: InstructDataConfig, inputs: InstructDataInputs, out: Path, report: Report) -> InstructData:
    """Write a file per source that has rows."""
    written = {name: write_rows(out / f"{name}.jsonl", rows) for name, rows in read(config).items() if rows}
    return InstructData(seeds=written["seeds"], texts=written.get("texts"), test=written.get("test"))


STAGE = Stage("instruct_data", run, InstructDataConfig, InstructDataInputs, InstructData)
