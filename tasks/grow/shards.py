"""Stage: the prompts in blocks, each a file of its own, so that the samples of a block are kept by its content.

Rows go into blocks by their ids: in whatever order the data lists them, the blocks and their samples are the same.
"""

from pathlib import Path

from pydantic import BaseModel, Field

from tasks.core.config import Config
from tasks.core.examples import Example, read_examples, row_line
from tasks.core.references import DatasetRef
from tasks.core.sharding import write_shards
from tasks.core.stage import Report, Stage


class ShardConfig(Config):
    """How large a block is."""

    prompts: int = Field(128, ge=1)
    """Prompts per block."""


class ShardInputs(BaseModel):
    """The rows whose questions are sampled."""

    rows: DatasetRef


class ShardResult(BaseModel):
    """The blocks; a row that comes twice stands in one of them, once, as the data has it first."""

    blocks: list[DatasetRef]
    prompts: int


def run(config: ShardConfig, inputs: ShardInputs, out: Path, report: Report) -> ShardResult:
    """Cut the rows into blocks."""
    first: dict[str, Example] = {}
    for row in read_examples(inputs.rows):
        first.setdefault(row.id, row)
    rows = [first[row_id] for row_id in sorted(first)]
    blocks = write_shards(out, "block", map(row_line, rows), config.prompts)
    return ShardResult(blocks=blocks, prompts=len(rows))


STAGE = Stage("shards", run, ShardConfig, ShardInputs, ShardResult)
