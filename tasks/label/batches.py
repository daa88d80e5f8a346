"""Which rows are asked together, and in which order: a permutation per round, cut into batches that fit the context."""

import random
from collections.abc import Callable, Iterator, Sequence


def permuted(rows: Sequence[int], seed: int, round_number: int) -> list[int]:
    """The rows of a round in the order in which they are asked (arXiv 2309.00384, section 2.2).

    Depends on the seed, the round and the rows alone, so that a round that is begun anew asks the same.
    """
    order = sorted(rows)
    random.Random(f"{seed}:{round_number}").shuffle(order)
    return order


def in_batches(rows: Sequence[int], size: int, fits: Callable[[Sequence[int]], bool]) -> Iterator[list[int]]:
    """Consecutive batches of at most `size` rows, each as long as `fits` allows; a row that does not fit alone is a
    batch of its own, and its fate is the model's to tell."""
    begin = 0
    while begin < len(rows):
        # Prompts grow with every row: the longest batch that fits is found by halving the doubt.
        least, most = 1, min(size, len(rows) - begin)
        while least < most:
            middle = (least + most + 1) // 2
            if fits(rows[begin : begin + middle]):
                least = middle
            else:
                most = middle - 1
        yield list(rows[begin : begin + least])
        begin += least
