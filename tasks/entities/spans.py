"""Places in a text that stay whole."""

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
    words, at = list[Span](), 0
    for number, part in enumerate(split_words(text) if found else ()):
        if number % 2:
            words.append((at, at + len(part)))
        at += len(part)
    whole = set()
    for begin, end in found:
        if not 0 <= begin <= end <= len(text):
            raise ValueError(f"{begin} to {end} is not within a text of {len(text)} characters")
        covered = [word for word in words if word[0] < end and begin < word[1]]
        if covered:
            whole.add((covered[0][0], covered[-1][1]))
    kept: list[Span] = []
    for begin, end in sorted(whole, key=lambda span: (span[0] - span[1], span[0])):
        if all(end <= other[0] or other[1] <= begin for other in kept):
            kept.append((begin, end))
    return sorted(kept)


def occurrences(text: str, name: str) -> list[Span]:
    """Every place of a name in a text where it is not part of a longer word; places may overlap."""
    found, at = list[Span](), text.find(name) if name else -1
    while at >= 0:
        span = (at, at + len(name))
        if resolve(text, [span]) == [span]:
            found.append(span)
        at = text.find(name, at + 1)
    return found
