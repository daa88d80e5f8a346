"""Stage: the scored samples of all shards as one data set."""

from pathlib import Path

from pydantic import BaseModel

from tasks.core.config import Config
from tasks.core.examples import Example, read_examples, write_rows
from tasks.core.references import DatasetRef
from tasks.core.stage import Report, Stage


class GatherInputs(BaseModel):
    """All prompts, and the scored samples of every shard; those of one prompt in the order of their numbers."""

    prompts: DatasetRef
    shards: list[DatasetRef]


class GatherResult(BaseModel):
    """All samples: prompt by prompt, as the data lists them, and by their numbers."""

    samples: DatasetRef
    duplicates: int
    """Samples that an earlier shard held already."""
    cut: int
    """Samples that reached the token limit."""
    best: float
    """Mean over the prompts of the best reward among their samples; a prompt without one counts 0."""
    lowest: float
    highest: float
    """The extremes of the rewards; 0 without a sample."""


def run(config: Config, inputs: GatherInputs, out: Path, report: Report) -> GatherResult:
    """Join the shards; a sample that comes twice is kept once."""
    by_prompt: dict[str, dict[str, Example]] = {prompt.id: {} for prompt in read_examples(inputs.prompts)}
    count = 0
    for row in (row for shard in inputs.shards for row in read_examples(shard)):
        by_prompt[row.parent or ""].setdefault(row.id, row)
        count += 1
    gathered = [row for samples in by_prompt.values() for row in samples.values()]
    best = [
        max((row.reward or 0.0 for row in samples.values()), default=0.0) for samples in by_prompt.values()
    ]
    rewards = [row.reward or 0.0 for row in gathered]
    return GatherResult(
        samples=write_rows(out / "samples.jsonl", gathered),
        duplicates=count - len(gathered),
        cut=sum(row.cut for row in gathered),
        best=sum(best) / len(best) if best else 0.0,
        lowest=min(rewards, default=0.0),
        highest=max(rewards, default=0.0),
    )


STAGE = Stage("gather", run, Config, GatherInputs, GatherResult)
