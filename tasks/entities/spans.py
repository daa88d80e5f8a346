"""Places in a text that stay whole."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable

from tasks.reversal.words import split_words

Span = tuple[int, int]
"""Begin and end, in characters; the end is not part of it."""


def resolve(text: str, found: Iterable[Span]) -> list[Span]:
    """The spans that stay whole, from left to right: widened to whole words, and where two overlap the longer one, the
    first of equal ones.

    A span without a word in it is left out. Raises ValueError for one that is not within the text.
    """
    found = list(found)
    begins, ends = _words(text) if found else ([], [])
    whole = set[Span]()
    for begin, end in found:
        if not 0 <= begin <= end <= len(text):
            raise ValueError(f"{begin} to {end} is not within a text of {len(text)} characters")
        first, last = bisect_right(ends, begin), bisect_left(begins, end) - 1
        if begin < end and first <= last:
            whole.add((begins[first], ends[last]))
    kept: list[Span] = []
    for span in sorted(whole, key=lambda one: (one[0] - one[1], one[0])):
        place = bisect_left(kept, span)
        after_previous = place == 0 or kept[place - 1][1] <= span[0]
        if after_previous and (place == len(kept) or span[1] <= kept[place][0]):
            insort(kept, span)
    return kept


def occurrences(text: str, name: str) -> list[Span]:
    """Every place of a name in a text where it is not part of a longer word; places may overlap. What stands around the
    words of the name, as the last full stop of D.C., does not count."""
    name = "".join(split_words(name)[1:-1])
    at = text.find(name) if name else -1
    if at < 0:
        return []
    begins, ends = map(set, _words(text))
    found = list[Span]()
    while at >= 0:
        if at in begins and at + len(name) in ends:
            found.append((at, at + len(name)))
        at = text.find(name, at + 1)
    return found


def _words(text: str) -> tuple[list[int], list[int]]:
    """Where the words of a text begin, and where they end."""
    begins, ends, at = list[int](), list[int](), 0
    for number, part in enumerate(split_words(text)):
        if number % 2:
            begins.append(at)
            ends.append(at + len(part))
        at += len(part)
    return begins, ends
