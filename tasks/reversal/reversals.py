"""The four reversals of reverse training (arXiv 2403.13799, section 3).

Of words, entities and segments the order is reversed, and apart from that the order of what separates them; what
stands before the first word and after the last stays. "July 3, in Rome." becomes "Rome in, 3 July.": a comma still
follows the word before it, and a word still follows a space, so that a tokenizer sees the same words. Token, word and
entity reversal lose nothing: applied again they restore the row.
"""

from collections.abc import Sequence
from random import Random

from tasks.entities.spans import Span
from tasks.reversal.words import split_words


def reverse_tokens(tokens: Sequence[int]) -> list[int]:
    """The token ids from last to first."""
    return list(reversed(tokens))


def reverse_words(text: str) -> str:
    """The words from last to first."""
    return "".join(_reversed(split_words(text)))


def reverse_entities(text: str, entities: Sequence[Span]) -> tuple[str, list[Span]]:
    """Words and entities from last to first, each entity left as it is; also returns where the entities now are.

    `entities` are as `resolve` returns them. Reversing the result with its own entities restores text and spans.
    """
    parts, whole, at = [""], set[int](), 0
    for begin, end in entities:
        parts = _joined(parts, split_words(text[at:begin]))
        whole.add(len(parts))
        parts += [text[begin:end], ""]
        at = end
    parts = _joined(parts, split_words(text[at:]))
    turned, spans, at = _reversed(parts), list[Span](), 0
    for number, part in enumerate(turned):
        if len(parts) - 1 - number in whole:
            spans.append((at, at + len(part)))
        at += len(part)
    return "".join(turned), spans


def reverse_segments(text: str, longest: int, draw: Random, marker: str = "[REV]") -> str:
    """Segments of 1 to `longest` words, their lengths drawn at random, from last to first; inside of each all stays.

    `marker` and a space stand before every segment but the first, so that the segments can be told apart; an empty one
    leaves that out. Raises ValueError for segments without a word.
    """
    if longest < 1:
        raise ValueError("a segment has at least one word")
    words, number = split_words(text), draw.random
    segments, separators, at, last = list[str](), list[str](), 1, len(words) - 1
    while at < last:
        end = min(at + 2 * int(number() * longest) + 1, last)
        segments.append("".join(words[at:end]))
        separators.append(f"{words[end]}{marker} " if marker else words[end])
        at = end + 1
    if not segments:
        return text
    turned = [words[0], segments.pop()]
    for segment, separator in zip(reversed(segments), reversed(separators[:-1]), strict=True):
        turned += separator, segment
    return "".join([*turned, words[last]])


def _reversed(parts: list[str]) -> list[str]:
    """Parts as of `split_words`, all but the first and the last turned round."""
    return parts if len(parts) < 3 else [parts[0], *parts[-2:0:-1], parts[-1]]


def _joined(parts: list[str], more: list[str]) -> list[str]:
    """Two lists of parts as one: the separators where they meet are one."""
    return [*parts[:-1], parts[-1] + more[0], *more[1:]]
