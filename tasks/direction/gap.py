"""Stage: how well a model answers in both directions, in all, by relation and by the length of the names."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, Field

from tasks.core.config import Config
from tasks.core.examples import read_examples, read_records
from tasks.core.references import DatasetRef
from tasks.core.stage import Report, Stage
from tasks.evaluate import SplitResult


class GapConfig(Config):
    """How the interval of the gap is drawn."""

    confidence: float = Field(0.95, gt=0.0, lt=1.0)
    """Level of the bootstrap interval."""
    resamples: int = Field(2000, ge=100, le=100_000)
    """Bootstrap resamples."""
    seed: int = Field(0, ge=0, le=2**31)
    """Seed of the bootstrap."""


class GapInputs(BaseModel):
    """The questions of either direction ("forward", "backward"), and a model's results on them."""

    questions: dict[str, DatasetRef]
    results: dict[str, SplitResult]


class Group(BaseModel):
    """The questions that have a relation, or a length, in common."""

    name: str
    forward_rows: int
    forward: float
    """Share that was answered right; 0 without rows."""
    backward_rows: int
    backward: float


class DirectionGap(BaseModel):
    """A model's accuracy in the direction that was taught, in the other one, and the difference."""

    forward: SplitResult
    backward: SplitResult
    gap: float
    """Forward less backward accuracy; 0 is no reversal curse."""
    low: float
    high: float
    by_relation: list[Group]
    by_words: list[Group]
    """By the number of words of the name that is asked for."""

    @property
    def ratio(self) -> float:
        """Backward over forward accuracy; 0 where forward nothing is right."""
        return self.backward.accuracy / self.forward.accuracy if self.forward.accuracy else 0.0

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow; `eval/accuracy` is that of the direction that was not taught."""
        figures = {"forward": self.forward.accuracy, "backward": self.backward.accuracy, "ratio": self.ratio}
        figures |= {"gap": self.gap, "gap_low": self.low, "gap_high": self.high}
        return {f"direction/{name}": value for name, value in figures.items()} | self.backward.metrics()


def run(config: GapConfig, inputs: GapInputs, out: Path, report: Report) -> DirectionGap:
    """Compute the gap and its groups; writes nothing."""
    values: dict[str, list[float]] = {}
    groups: dict[str, dict[str, dict[str, list[float]]]] = {"relation": {}, "words": {}}
    for direction, ref in inputs.questions.items():
        facts = {row.id: row.facts for row in read_examples(ref)}
        answers = list(read_records(inputs.results[direction].predictions))
        values[direction] = [answer["value"] for answer in answers]
        for kind, found in groups.items():
            for answer in answers:
                name = str(facts[answer["id"]][kind])
                found.setdefault(name, defaultdict(list))[direction].append(answer["value"])
    low, high = difference_interval(values["forward"], values["backward"], config)
    forward, backward = (inputs.results[direction] for direction in ("forward", "backward"))
    return DirectionGap(
        forward=forward,
        backward=backward,
        gap=forward.accuracy - backward.accuracy,
        low=low,
        high=high,
        by_relation=[_group(name, groups["relation"][name]) for name in sorted(groups["relation"])],
        by_words=[_group(name, groups["words"][name]) for name in sorted(groups["words"], key=int)],
    )


def difference_interval(
    first: Sequence[float], second: Sequence[float], config: GapConfig
) -> tuple[float, float]:
    """Percentile bootstrap interval of the difference of two means over different rows: each side is resampled alone
    (Efron & Tibshirani 1993, ch. 8)."""
    import numpy as np

    draw = np.random.default_rng(config.seed)
    sides = [np.asarray(side) for side in (first, second)]
    means = [
        [side[draw.integers(0, len(side), len(side))].mean() for side in sides]
        for _ in range(config.resamples)
    ]
    tail = (1 - config.confidence) / 2
    low, high = np.quantile([one - other for one, other in means], [tail, 1 - tail])
    return float(low), float(high)


def _group(name: str, found: dict[str, list[float]]) -> Group:
    forward, backward = found.get("forward", []), found.get("backward", [])
    return Group(
        name=name,
        forward_rows=len(forward),
        forward=sum(forward) / len(forward) if forward else 0.0,
        backward_rows=len(backward),
        backward=sum(backward) / len(backward) if backward else 0.0,
    )


STAGE = Stage("direction_gap", run, GapConfig, GapInputs, DirectionGap)
