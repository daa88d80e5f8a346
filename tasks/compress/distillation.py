"""All shards of the texts compressed by the teacher, one after another, so that a killed run loses one at most."""

from collections import Counter
from dataclasses import dataclass

from tasks.augment.teacher import Teacher
from tasks.compress import distilling
from tasks.compress.distilling import DistillationConfig, DistillationInputs, DistillationResult
from tasks.compress.texts import Chunks
from tasks.core.generators.base import Usage
from tasks.core.run import Run


@dataclass(frozen=True)
class Distilled:
    """What the teacher made of all chunks."""

    shards: list[DistillationResult]

    @property
    def usage(self) -> Usage:
        """Calls and tokens of all shards."""
        names = Usage.model_fields
        return Usage(**{name: sum(getattr(shard.usage, name) for shard in self.shards) for name in names})

    @property
    def reasons(self) -> dict[str, int]:
        """Answers that are of no use, by reason."""
        return dict(sum((Counter(shard.reasons) for shard in self.shards), Counter()))

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        usage = self.usage
        return {
            "data/generated": float(sum(shard.pairs.rows + shard.unusable.rows for shard in self.shards)),
            "teacher/calls": float(usage.calls),
            "teacher/tokens": float(usage.prompt_tokens + usage.completion_tokens),
            "teacher/tokens_saved": float(usage.saved_tokens),
            "teacher/cost": sum(shard.cost for shard in self.shards),
        }


def distil(run: Run, config: DistillationConfig, teacher: Teacher, chunks: Chunks) -> Distilled:
    """The teacher's shorter texts of every chunk, labelled."""
    asked = [DistillationInputs(teacher=teacher, chunks=shard) for shard in chunks.shards]
    names = [f"distil (shard {number} of {len(asked)})" for number in range(1, len(asked) + 1)]
    return Distilled(run.stages(distilling.STAGE, config, asked, labels=names, whole="distil"))
