"""Which rows a subset takes: decided by a seed and the rows' own content, never by their order in a file."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence

from tasks.core.examples import Example

Stratum = Callable[[Example], str]
"""What must stay in proportion: the label of a classification, one value for everything else."""


def shuffled(rows: Sequence[Example], seed: int) -> list[Example]:
    """The rows ordered by the hash of seed and content id: the same for any order they come in."""
    return sorted(rows, key=lambda row: hashlib.sha256(f"{seed} {row.id}".encode()).digest())


def take_per_stratum(rows: Sequence[Example], count: int, seed: int, stratum: Stratum) -> list[Example]:
    """`count` rows of every stratum, or all of one that has fewer, in shuffled order."""
    taken: dict[str, int] = defaultdict(int)
    kept = []
    for row in shuffled(rows, seed):
        if taken[stratum(row)] < count:
            taken[stratum(row)] += 1
            kept.append(row)
    return kept


def take_in_proportion(rows: Sequence[Example], count: int, seed: int, stratum: Stratum) -> list[Example]:
    """Exactly `count` of the rows (all, if there are fewer), every stratum in proportion, in shuffled order.

    Shares are rounded by the largest remainder; among equal remainders the larger stratum, then the first
    name, gets the row.
    """
    sizes: dict[str, int] = defaultdict(int)
    for row in rows:
        sizes[stratum(row)] += 1
    count = min(count, len(rows))
    quota = {name: size * count // len(rows) for name, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda name: (-(sizes[name] * count % len(rows)), -sizes[name], name))
    for name in by_remainder[: count - sum(quota.values())]:
        quota[name] += 1
    kept = []
    for row in shuffled(rows, seed):
        if quota[stratum(row)]:
            quota[stratum(row)] -= 1
            kept.append(row)
    return kept
