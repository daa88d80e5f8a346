"""Exact duplicates: texts that differ in nothing but case, punctuation, spacing or Unicode form."""

import unicodedata
from collections.abc import Iterable

from tasks.core.examples import Example


class _Collapse(dict[int, str]):
    """Translation table: punctuation, separators and control characters become spaces.

    Signs of arithmetic stay ("3 + 5" is not "3 < 5"), and so do combining marks, without which words of Hindi
    or Thai lose their vowels.
    """

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = " " if unicodedata.category(character)[0] in "PZC" else character
        return self[code]


_COLLAPSE = _Collapse()


def normalise(text: str) -> str:
    """NFKC, case folded, punctuation and spaces collapsed; a text of punctuation alone keeps it."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.translate(_COLLAPSE).split()) or folded.strip()


def exact_index(examples: Iterable[Example]) -> dict[str, str]:
    """The id of the first example with each normalised input."""
    index: dict[str, str] = {}
    for example in examples:
        index.setdefault(normalise(example.input), example.id)
    return index
