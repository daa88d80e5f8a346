"""Which rows of a large data set a page shows."""

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def choose(rows: Sequence[T], most: int, seed: int | str) -> list[T]:
    """All rows, or a random choice of `most` of them, in their order."""
    if len(rows) <= most:
        return list(rows)
    return [rows[index] for index in sorted(random.Random(seed).sample(range(len(rows)), most))]
