"""A text cut into chunks that an encoder can read, at sentence ends, never within a word."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.core.compression.words import Positions, Words


@dataclass(frozen=True)
class Chunk:
    """Words [first, last) of a text, and the tokens [begin, end) that they consist of."""

    first: int
    last: int
    begin: int
    end: int


def tokens_of_words(words: Words, offsets: Positions) -> tuple[Positions, Positions]:
    """Per word the first of its tokens and the one after its last.

    `offsets` (tokens, 2) says which characters a token stands for. A token belongs to every word that it touches: some
    tokenizers have one for a sign and the word before it.
    """
    return (
        np.searchsorted(offsets[:, 1], words.starts, side="right"),
        np.searchsorted(offsets[:, 0], words.ends, side="left"),
    )


def sentence_ends(words: Words, marks: Collection[str]) -> NDArray[np.bool_]:
    """Which words a chunk may end with: those that are one of `marks`, and with a line break among them, the last words
    of lines."""
    ends = np.fromiter((word in marks for word in words.texts), dtype=bool, count=len(words))
    if "\n" in marks and "\n" in words.text:
        breaks = np.flatnonzero(np.frombuffer(words.text.encode("utf-32-le"), dtype="<u4") == ord("\n"))
        before = np.searchsorted(words.ends, breaks, side="right") - 1
        ends[before[before >= 0]] = True
    return ends


def cut(first: Positions, last: Positions, ends: NDArray[np.bool_], room: int) -> list[Chunk]:
    """Chunks of at most `room` tokens that end at the last sentence end that fits, or else at the last word that does.

    Words have the tokens [first, last). A single word with more of them is a chunk of its own and longer than `room`.
    """
    chunks, places, at = list[Chunk](), np.flatnonzero(ends) + 1, 0
    while at < len(first):
        end = max(int(np.searchsorted(last, first[at] + room, side="right")), at + 1)
        if end < len(first):
            place = int(np.searchsorted(places, end, side="right")) - 1
            if place >= 0 and places[place] > at:
                end = int(places[place])
        chunks.append(Chunk(at, end, int(first[at]), int(last[end - 1])))
        at = end
    return chunks
