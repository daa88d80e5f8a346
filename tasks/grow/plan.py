"""Which samples of a prompt are drawn together, in view of those that exist.

Cuts that hang on the number of samples N alone cannot serve: for a larger N to reuse all of a smaller one, whatever the
two are, every shard of the plan for N - 1 has to be one of the plan for N, and so every shard would hold one sample. So
shards are as large as may be, and where an earlier, smaller N ended with a smaller one, that one stays. The samples are
the same either way: sample s of a prompt does not hang on its shard.
"""

from collections.abc import Callable


def plan_shards(samples: int, most: int, exists: Callable[[int, int], bool]) -> list[tuple[int, int]]:
    """(first sample number, how many) of the shards that together hold samples 0 to `samples` - 1, in order.

    None crosses a multiple of `most`. `exists` tells whether a shard is there already; the largest that fits is taken,
    and where there is none, the rest up to the next multiple is one shard.
    """
    shards, first = [], 0
    while first < samples:
        rest = min(most - first % most, samples - first)
        count = next((count for count in range(rest, 0, -1) if exists(first, count)), rest)
        shards.append((first, count))
        first += count
    return shards
