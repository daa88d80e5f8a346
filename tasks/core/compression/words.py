"""The words of a text as its reader sees them: where each begins and ends, nothing changed or normalised."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import regex
from numpy.typing import NDArray

Positions = NDArray[np.int64]
Span = tuple[int, int]
"""The first character of a part of a text, and the one after its last."""

_PUNCTUATION = r"\p{P}$+<=>^`|~"
_WORD = regex.compile(rf"[{_PUNCTUATION}]|\p{{Han}}|[^\s{_PUNCTUATION}\p{{Han}}]+")
"""As BERT divides a text before it looks into its vocabulary: punctuation marks and ideographs are words of their own,
and so is whatever else stands between white space. The published compressors were trained on such words."""


@dataclass(frozen=True)
class Words:
    """The words of a text: word i is text[starts[i]:ends[i]]. They are in order and do not overlap."""

    text: str
    starts: Positions
    ends: Positions
    untouched: NDArray[np.bool_]
    """Word i is a part that must stay as it is, white space within it included."""

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def texts(self) -> list[str]:
        """The words themselves."""
        return [self.text[a:b] for a, b in zip(self.starts.tolist(), self.ends.tolist(), strict=True)]


def split_words(text: str, untouched: Sequence[Span] = ()) -> Words:
    """The words of `text`. Each of the spans `untouched`, which are in order and do not overlap, is one word."""
    spans: list[Span] = []
    kinds: list[bool] = []
    at = 0
    for begin, end in [*untouched, (len(text), len(text))]:
        between = [match.span() for match in _WORD.finditer(text, at, begin)]
        spans += between
        kinds += [False] * len(between)
        if end > begin:
            spans.append((begin, end))
            kinds.append(True)
        at = end
    bounds = np.array(spans, dtype=np.int64).reshape(-1, 2)
    return Words(text, bounds[:, 0], bounds[:, 1], np.array(kinds, dtype=bool))
