"""Stage: the prompts in blocks, each a file of its own, so that the samples of a block are kept by its content."""

from pathlib import Path

from pydantic import BaseModel, Field

from tasks.core.config import Config
from tasks.core.examples import read_examples, write_rows
from tasks.core.references import DatasetRef
from tasks.core.stage import Report, Stage


class ShardConfig(Config):
    """How large a block is."""

    prompts: int = Field(128, ge=1)
    """Prompts per block."""


class ShardInputs(BaseModel):
    """The rows whose questions are sampled."""

    rows: DatasetRef


class ShardResult(BaseModel):
    """The blocks, in order; a row that comes twice stands in the first one alone."""

    blocks: list[DatasetRef]
    prompts: int


def run(config: ShardConfig, inputs: ShardInputs, out: Path, report: Report) -> ShardResult:
    """Cut the rows into blocks."""
    rows = list({row.id: row for row in read_examples(inputs.rows)}.values())
    blocks = [rows[begin : begin + config.prompts] for begin in range(0, len(rows), config.prompts)]
    return ShardResult(
        blocks=[write_rows(out / f"block-{number}.jsonl", block) for number, block in enumerate(blocks, 1)],
        prompts=len(rows),
    )


STAGE = Stage("shards", run, ShardConfig, ShardInputs, ShardResult)
