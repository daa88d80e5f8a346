"""The Grow step: draw, reward and gather the samples of a policy, shard by shard."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from tasks.core.config import Config
from tasks.core.errors import UserError
from tasks.core.flow_run import Run
from tasks.core.references import DatasetRef, ModelRef
from tasks.grow import gather, shards, stage
from tasks.grow.config import DrawConfig, GrowConfig
from tasks.grow.gather import GatherInputs
from tasks.grow.plan import plan_shards
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
    cut: int
    """Samples that reached the token limit."""
    alike: float | None = None
    """What every sample is worth, where a reward model finds no difference."""
    reward_model: str = ""
    """The folder of that reward model where it was there already; empty where it was learned here."""

    @property
    def useless(self) -> str:
        """Why nothing can be learned from these samples; "" when something can."""
        if self.alike is None:
            return ""
        return f"the reward model gives every sample the same reward, {self.alike:g}"

    def check(self) -> None:
        """Raise UserError for samples of the first policy that a reward model cannot tell apart: it has not learned."""
        if self.useless:
            if self.reward_model:
                raise UserError(
                    f"{self.useless}: {self.reward_model} tells none of them from another",
                    field="reward.model",
                    mend="name one that was trained on such answers, or leave it empty and give `preferences`",
                )
            raise UserError(
                self.useless,
                field="reward_model",
                mend="train it on more pairs, longer, or at another learning rate",
            )

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        drawn = sum(shard.drawn for shard in self.drawn)
        return {
            "data/generated": float(drawn),
            "grow/samples": float(self.samples.rows),
            "grow/duplicates": float(self.duplicates),
            "grow/empty": float(sum(shard.empty for shard in self.drawn)),
            "grow/failed": float(sum(shard.failed for shard in self.drawn)),
            "grow/cut": float(self.cut),
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

    def grow(self, policy: ModelRef, iteration: int) -> Grown:
        """Samples of every prompt, those of an iteration. Raises UserError when not one could be drawn."""
        rows, size = ShardInputs(rows=self.prompts), ShardConfig(prompts=self.config.shard_prompts)
        cut = self.run.stage(shards.STAGE, size, rows)
        drawing = self.config.drawing()
        asked = self._plan(policy, cut.blocks, drawing, iteration)
        chains = _by_block(asked)
        names = [f"shard {number} of {len(asked)}" for number in range(1, len(asked) + 1)]
        arrived: list[GrowResult] = []
        scored: dict[int, ScoreResult] = {}

        def take(number: int, shard: GrowResult) -> None:
            arrived.append(shard)
            _check_drawn(arrived, last=len(arrived) == len(asked))
            if number == 0:  # at once, since a verifier that is broken fails on these as on all others
                scored[0] = self.scoring.score(shard.samples, label=f"score ({names[0]})")

        drawn = self.run.stages(
            stage.STAGE,
            drawing,
            asked,
            labels=[f"grow ({name})" for name in names],
            whole="grow",
            at_once=self.config.at_once,
            each=take,
        )
        before = {number: chain[:place] for chain in chains for place, number in enumerate(chain)}
        # Shards of one block one after another, so that an answer which comes in two of them is scored once.
        for turn in zip_longest(*chains):
            numbers = [number for number in turn if number is not None and number not in scored]
            results = self.scoring.score_each(
                [drawn[number].samples for number in numbers],
                [[scored[earlier].rows for earlier in before[number]] for number in numbers],
                labels=[f"score ({names[number]})" for number in numbers],
                at_once=self.config.at_once,
            )
            scored |= zip(numbers, results, strict=True)
        return self._gather(cut.prompts, drawn, [scored[number] for number in range(len(asked))])

    def _plan(
        self, policy: ModelRef, blocks: Sequence[DatasetRef], drawing: DrawConfig, iteration: int
    ) -> list[GrowInputs]:
        """The shards of every block; those of one block lie together, by the numbers of their samples."""

        def inputs(block: DatasetRef, first: int, count: int) -> GrowInputs:
            return GrowInputs(
                model=policy,
                prompts=block,
                problem=self.problem,
                first=first,
                count=count,
                iteration=iteration,
            )

        def exists(first: int, count: int) -> bool:
            # What was drawn of the first block was drawn of the others, or is now.
            return self.run.has(stage.STAGE, drawing, inputs(blocks[0], first, count))

        most = self.config.shard_samples
        plan = plan_shards(self.config.samples, most, exists) if blocks else []
        return [inputs(block, first, count) for block in blocks for first, count in plan]

    def _gather(self, prompts: int, drawn: list[GrowResult], scored: list[ScoreResult]) -> Grown:
        inputs = GatherInputs(prompts=self.prompts, shards=[shard.rows for shard in scored])
        joined = self.run.stage(gather.STAGE, Config(), inputs)
        learned = self.scoring.config.by == "model"
        same = learned and joined.samples.rows > 1 and joined.lowest == joined.highest
        duplicates = joined.duplicates + sum(shard.duplicates for shard in drawn)
        alike = joined.lowest if same else None
        return Grown(
            joined.samples,
            prompts,
            joined.best,
            drawn,
            scored,
            duplicates,
            joined.cut,
            alike,
            self.scoring.config.model,
        )


def _by_block(asked: Sequence[GrowInputs]) -> list[list[int]]:
    """The numbers of the shards of every block of prompts."""
    chains: dict[str, list[int]] = {}
    for number, shard in enumerate(asked):
        chains.setdefault(shard.prompts.uri, []).append(number)
    return list(chains.values())


def _check_drawn(drawn: Sequence[GrowResult], *, last: bool) -> None:
    """Raise UserError when everything fails; a shard of nothing but prompts that are too long costs its own samples."""
    asked, failed = sum(shard.drawn for shard in drawn), sum(shard.failed for shard in drawn)
    if asked and failed == asked and (last or failed >= _HOPELESS):
        raise UserError(
            f"not one of {asked} samples could be drawn, at last because {drawn[-1].reason}",
            field="grow.max_new_tokens",
            mend="lower it, or leave out prompts that are longer than the model's context",
        )
