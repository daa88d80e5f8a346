"""Which samples are good enough to train on."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.core.examples import Example
from tasks.improve.config import ImproveConfig
from tasks.problems.base import Problem


@dataclass(frozen=True)
class Kept:
    """The rows that are kept, in their order, and how many were not, by reason ("low", "cut", "many")."""

    rows: list[Example]
    rejected: dict[str, int]


def prompt_of(row: Example) -> str:
    """The id of the question a row answers: a sample's parent, or the training row itself."""
    return row.id if row.completion is None else row.parent or row.id


def without_repeated(config: ImproveConfig, problem: Problem, rows: Sequence[Example]) -> list[Example]:
    """The rows without those training rows that a sample says word for word: with ids of their own, both would be
    trained on, and the question would count twice.

    The sample stays, for the figures are of what the policy says, and the training is the same. One that is not kept
    because it was cut does not take its training row with it.
    """
    samples = [row for row in rows if row.completion is not None and (config.keep_cut or not row.cut)]
    said = {(prompt_of(row), (row.completion or "").rstrip()) for row in samples}
    return [
        row
        for row in rows
        if row.completion is not None or (prompt_of(row), problem.target(row).rstrip()) not in said
    ]


def keep(config: ImproveConfig, level: float, rows: Sequence[Example]) -> Kept:
    """The rows of an Improve step at `level` (ReST, sections 3.1 and 4.1; percentiles and the best n per prompt as in
    its appendix). Every row has a reward. A cut row is neither kept nor counted among its prompt's rewards.
    """
    whole = [row for row in rows if config.keep_cut or not row.cut]
    if config.by == "threshold":
        good = [row for row in whole if _reward(row) > level]
    else:
        good = _best_of_each_prompt(config, level, whole)
    if config.loss == "reward_weighted":  # what weighs nothing teaches nothing
        good = [row for row in good if _reward(row) > 0]
    kept = _limited(config, good)
    counts = {"low": len(whole) - len(good), "cut": len(rows) - len(whole), "many": len(good) - len(kept)}
    return Kept(kept, {reason: count for reason, count in counts.items() if count})


def _best_of_each_prompt(config: ImproveConfig, level: float, rows: Sequence[Example]) -> list[Example]:
    import numpy as np

    by_prompt: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        by_prompt[prompt_of(row)].append(row)
    good: set[str] = set()
    for answers in by_prompt.values():
        if config.by == "top_n":
            best = sorted(answers, key=_reward, reverse=True)[: int(level)]  # stable: of equals the first
        else:
            least = float(np.percentile([_reward(row) for row in answers], level))
            best = [row for row in answers if _reward(row) >= least]
        good |= {row.id for row in best if _reward(row) > config.floor}
    return [row for row in rows if row.id in good]


def _limited(config: ImproveConfig, rows: Sequence[Example]) -> list[Example]:
    """At most `most_per_prompt` rows of each prompt; which ones hangs on the seed and the rows, not on their order."""
    if config.most_per_prompt <= 0:
        return list(rows)
    order = sorted(rows, key=lambda row: random.Random(f"{config.seed} {row.id}").random())
    counts: dict[str, int] = defaultdict(int)
    chosen = set()
    for row in order:
        counts[prompt_of(row)] += 1
        if counts[prompt_of(row)] <= config.most_per_prompt:
            chosen.add(row.id)
    return [row for row in rows if row.id in chosen]


def _reward(row: Example) -> float:
    if row.reward is None:
        raise ValueError(f"row {row.id} has no reward")
    return row.reward
