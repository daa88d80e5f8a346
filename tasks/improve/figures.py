"""What a set of samples looks like before and after the filter: rewards, spread over prompts, diversity, length.

A policy that learns to please its reward shows here first: rewards pile up at the top while answers become alike, or
ever longer, and the score on the task stands still.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

from pydantic import BaseModel

from tasks.core.examples import Example
from tasks.improve.keeping import prompt_of

BINS = 20
"""Bars of a histogram over [0, 1]; a reward of 1 lies in the last one."""


class SampleFigures(BaseModel):
    """One set of answers. All but `rows` is counted over the policy's own: a training row that is mixed in answers its
    own prompt rightly, and would hide that the policy does not."""

    rows: int
    samples: int
    """Rows that the policy wrote."""
    prompts: int
    reward: float
    """Mean; 0 for no sample."""
    histogram: list[int]
    per_prompt: dict[int, int]
    """How many prompts have so many samples."""
    distinct_1: float
    distinct_2: float
    """Different words (pairs of words) among all."""
    self_similarity: float
    """Mean over prompts of how alike two samples of one prompt are, 0 to 1."""
    words: float
    words_deviation: float
    """Mean and standard deviation of the length in words."""


def describe(rows: Sequence[Example]) -> SampleFigures:
    """The figures of scored rows."""
    from tasks.grow.diversity import distinct_n, length_statistics, self_similarity

    samples = [row for row in rows if row.completion is not None]
    rewards = [row.reward for row in samples if row.reward is not None]
    by_prompt: dict[str, list[str]] = defaultdict(list)
    for row in samples:
        by_prompt[prompt_of(row)].append(row.completion or "")
    texts = [text for answers in by_prompt.values() for text in answers]
    words, deviation = length_statistics(texts)
    return SampleFigures(
        rows=len(rows),
        samples=len(samples),
        prompts=len(by_prompt),
        reward=sum(rewards) / len(rewards) if rewards else 0.0,
        histogram=histogram(rewards),
        per_prompt=dict(sorted(Counter(map(len, by_prompt.values())).items())),
        distinct_1=distinct_n(texts, 1),
        distinct_2=distinct_n(texts, 2),
        self_similarity=self_similarity(list(by_prompt.values())),
        words=words,
        words_deviation=deviation,
    )


def histogram(rewards: Sequence[float]) -> list[int]:
    """How many rewards lie in each of BINS equal parts of [0, 1]."""
    counts = [0] * BINS
    for reward in rewards:
        counts[min(BINS - 1, max(0, int(reward * BINS)))] += 1
    return counts


class Selection(BaseModel):
    """One Improve step: its level, the figures before and after it, and what was rejected by reason."""

    level: float
    asked: int
    """Prompts whose answers are drawn, also those of which no sample came."""
    before: SampleFigures
    after: SampleFigures
    rejected: dict[str, int]
    reward: float | None = None
    """Mean reward on the validation rows of the policy that was trained on the kept rows."""
    taken: bool = True
    """False for the step that was gone back on."""

    @property
    def prompts_without(self) -> int:
        """Prompts of whose answers none was kept, be it that there was none."""
        return self.asked - self.after.prompts
