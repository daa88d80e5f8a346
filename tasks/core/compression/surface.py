"""The kept words as a text again: in their order, with the white space that stood between them."""

from collections.abc import Sequence

import numpy as np
import regex

from tasks.core.compression.keeping import Mask
from tasks.core.compression.words import Words

_OPENING, _CLOSING = frozenset("([{“‘«¿¡#$€£"), frozenset(".,;:!?%)]}”’»…。，、！？；：）」』")
_HAN = regex.compile(r"\p{Han}")


def surface(
    words: Words, kept: Mask, force_tokens: Sequence[str] = (), drop_consecutive: bool = False
) -> str:
    """The text of the kept words.

    Words that were neighbours stay as they stood. Where words between two are gone, a space takes their place, none
    beside a mark that stood against its neighbour; of white space among `force_tokens` (a line break) as much is kept
    as there was, with `drop_consecutive` once.
    """
    places = np.flatnonzero(kept)
    if not len(places):
        return ""
    breaks = np.flatnonzero(np.diff(places) > 1)
    firsts, lasts = places[np.r_[0, breaks + 1]], places[np.r_[breaks, len(places) - 1]]
    text, blanks = words.text, [token for token in force_tokens if token.isspace()]
    begins, ends = words.starts[firsts].tolist(), words.ends[lasts].tolist()
    if firsts[0] == 0:
        begins[0] = 0
    if lasts[-1] == len(words) - 1:
        ends[-1] = len(text)
    pieces, before = list[str](), 0
    for begin, end in zip(begins, ends, strict=True):
        if pieces:
            pieces.append(
                _between(text[before:begin], text[before - 1], text[begin], blanks, drop_consecutive)
            )
        pieces.append(text[begin:end])
        before = end
    return "".join(pieces)


def _between(gap: str, left: str, right: str, blanks: Sequence[str], once: bool) -> str:
    """What stands in the place of `gap`, a text with dropped words, between the characters `left` and `right`."""
    for blank in blanks:
        if count := gap.count(blank):
            return blank * (1 if once else count)
    if (right in _CLOSING and not gap[-1].isspace()) or (left in _OPENING and not gap[0].isspace()):
        return ""
    joined = not any(map(str.isspace, gap)) and (_HAN.match(left) or _HAN.match(right))
    return "" if joined else " "
