"""Stage: the scored samples of all shards as one data set."""

from pathlib import Path

from pydantic import BaseModel

from tasks.core.config import Config
from tasks.core.examples import Example, read_examples, write_rows
from tasks.core.references import DatasetRef
from tasks.core.stage import Report, Stage


class GatherInputs(BaseModel):
    """Blocks of prompts, and for each the scored samples of its shards."""

    prompts: list[DatasetRef]
    shards: list[list[DatasetRef]]


class GatherResult(BaseModel):
    """All samples, prompt by prompt, in the order in which they were drawn."""

    samples: DatasetRef
    duplicates: int
    """Samples that an earlier shard held already."""
    best: float
    """Mean over the prompts of the best reward among their samples; a prompt without one counts 0."""


def run(config: Config, inputs: GatherInputs, out: Path, report: Report) -> GatherResult:
    """Join the shards; a sample that comes twice is kept once."""
    gathered: list[Example] = []
    count, best = 0, []
    for block, shards in zip(inputs.prompts, inputs.shards, strict=True):
        by_prompt: dict[str, dict[str, Example]] = {prompt.id: {} for prompt in read_examples(block)}
        for row in (row for shard in shards for row in read_examples(shard)):
            by_prompt[row.parent or ""].setdefault(row.id, row)
            count += 1
        for samples in by_prompt.values():
            gathered += samples.values()
            best.append(max((row.reward or 0.0 for row in samples.values()), default=0.0))
    return GatherResult(
        samples=write_rows(out / "samples.jsonl", gathered),
        duplicates=count - len(gathered),
        best=sum(best) / len(best) if best else 0.0,
    )


STAGE = Stage("gather", run, Config, GatherInputs, GatherResult)
