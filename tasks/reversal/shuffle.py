"""Shuffling more lines than memory holds."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

AT_ONCE = 50_000


def shuffled(lines: Iterable[bytes], count: int, draw: Random, folder: Path) -> Iterator[bytes]:
    """The lines in an order that `draw` decides, each order as likely as any other.

    About `count` are expected: above AT_ONCE they are dealt at random to files in `folder`, which are shuffled one
    after the other, so that memory holds about AT_ONCE of them.
    """
    piles = -(-count // AT_ONCE)
    if piles <= 1:
        yield from _in_memory(lines, draw)
        return
    with TemporaryDirectory(dir=folder, prefix="shuffle-") as name:
        paths = [Path(name) / str(number) for number in range(piles)]
        files = [path.open("wb") for path in paths]
        try:
            for line in lines:
                files[draw.randrange(piles)].write(line)
        finally:
            for file in files:
                file.close()
        for path in paths:
            with path.open("rb") as pile:
                yield from _in_memory(pile, draw)


def _in_memory(lines: Iterable[bytes], draw: Random) -> list[bytes]:
    held = list(lines)
    draw.shuffle(held)
    return held
