"""The Grow step: draw, reward and gather the samples of a policy, shard by shard."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.core.config import Config
from tasks.core.errors import UserError
from tasks.core.flow_run import Run
from tasks.core.references import DatasetRef, ModelRef
from tasks.grow import gather, shards, stage
from tasks.grow.config import GrowConfig
from tasks.grow.gather import GatherInputs
from tasks.grow.shards import ShardConfig, ShardInputs
from tasks.grow.stage import GrowInputs, GrowResult
from tasks.problems.base import ProblemConfig
from tasks.rewards.scoring import Scoring
from tasks.rewards.stage import ScoreResult

_HOPELESS = 500
"""When so many samples fail and none comes, no further shard is tried."""


@dataclass(frozen=True)
class Grown:
    """The rewarded samples of a policy, and how they came about."""

    samples: DatasetRef
    prompts: int
    best: float
    """Mean over the prompts of the best reward among their samples."""
    drawn: list[GrowResult]
    scored: list[ScoreResult]
    duplicates: int

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        drawn = sum(shard.drawn for shard in self.drawn)
        return {
            "data/generated": float(drawn),
            "grow/samples": float(self.samples.rows),
            "grow/duplicates": float(self.duplicates),
            "grow/empty": float(sum(shard.empty for shard in self.drawn)),
            "grow/failed": float(sum(shard.failed for shard in self.drawn)),
            "grow/cut": float(sum(shard.cut for shard in self.drawn)),
            "grow/tokens": float(sum(shard.usage.completion_tokens for shard in self.drawn)),
            "reward/best": self.best,
            "reward/failed": float(sum(sum(shard.failed.values()) for shard in self.scored)),
        }


@dataclass(frozen=True)
class Growth:
    """How samples are drawn and rewarded: the same in every iteration."""

    run: Run
    config: GrowConfig
    problem: ProblemConfig
    prompts: DatasetRef
    scoring: Scoring

    def grow(self, policy: ModelRef) -> Grown:
        """Samples of every prompt.

        Raises UserError when not one could be drawn, and when a reward model finds all of them worth the same.
        """
        rows, size = ShardInputs(rows=self.prompts), ShardConfig(prompts=self.config.shard_prompts)
        cut = self.run.stage(shards.STAGE, size, rows)
        plan = [(block, first, count) for block in cut.blocks for first, count in self.config.blocks()]
        drawn, scored = [], []
        gathered: dict[str, list[DatasetRef]] = {block.uri: [] for block in cut.blocks}
        for number, (block, first, count) in enumerate(plan, start=1):
            inputs = GrowInputs(model=policy, prompts=block, problem=self.problem, first=first, count=count)
            which = f"shard {number} of {len(plan)}"
            drawn.append(self.run.stage(stage.STAGE, self.config.drawing(), inputs, label=f"grow ({which})"))
            _check_drawn(drawn, last=number == len(plan))
            known = gathered[block.uri]
            scored.append(self.scoring.score(drawn[-1].samples, known=known, label=f"score ({which})"))
            known.append(scored[-1].rows)
        told = [shard for shard in scored if shard.rows.rows > 1]
        if told and all(shard.constant for shard in told):
            raise UserError(
                f"the reward model gives every sample the same reward, {told[0].mean:g}",
                field="reward_model",
                mend="train it on more pairs, longer, or at another learning rate",
            )
        joined = self.run.stage(
            gather.STAGE,
            Config(),
            GatherInputs(prompts=self.prompts, shards=[shard.rows for shard in scored]),
        )
        duplicates = joined.duplicates + sum(shard.duplicates for shard in drawn)
        return Grown(joined.samples, cut.prompts, joined.best, drawn, scored, duplicates)


def _check_drawn(drawn: Sequence[GrowResult], *, last: bool) -> None:
    """Raise UserError when everything fails; a shard of nothing but prompts that are too long costs its own samples."""
    asked, failed = sum(shard.drawn for shard in drawn), sum(shard.failed for shard in drawn)
    if asked and failed == asked and (last or failed >= _HOPELESS):
        raise UserError(
            f"not one of {asked} samples could be drawn, at last because {drawn[-1].reason}",
            field="grow.max_new_tokens",
            mend="lower it, or leave out prompts that are longer than the model's context",
        )
