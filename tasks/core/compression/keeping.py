"""Which words of a text are kept: the likeliest, as many as the rate allows, and those that are kept in any case."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import regex
from numpy.typing import NDArray

from tasks.core.compression.chunks import Chunk
from tasks.core.compression.config import CompressionConfig
from tasks.core.compression.words import Words

Mask = NDArray[np.bool_]
_DIGIT = regex.compile(r"\d")


def forced(words: Words, config: CompressionConfig) -> Mask:
    """The words that are kept whatever the encoder says: those of the forced tokens, and those with digits if asked.

    A forced token is looked for in the text itself, so that it need not be in any vocabulary and may be a phrase; it
    has to begin and end where words do, so that `not` is not found in `nothing`.
    """
    found = np.zeros(len(words), dtype=bool)
    starts, ends = words.starts, words.ends
    for token in config.force_tokens:
        if not token.strip():
            continue  # white space stands between words: see `surface`
        for match in regex.finditer(regex.escape(token.strip()), words.text, overlapped=True):
            first, last = np.searchsorted(starts, match.start()), np.searchsorted(ends, match.end())
            inside = first < len(words) and last < len(words)
            if inside and starts[first] == match.start() and ends[last] == match.end():
                found[first : last + 1] = True
    if config.reserve_digits:
        found |= np.fromiter(map(bool, map(_DIGIT.search, words.texts)), dtype=bool, count=len(words))
    return found


def keep(
    words: Words,
    chunks: Sequence[Chunk],
    probability: NDArray[np.float64],
    weight: NDArray[np.int64],
    always: Mask,
    rate: float,
) -> Mask:
    """The words that are kept: of every chunk the likeliest whose weights together are at most `rate` of all in it.

    What a chunk leaves of its share, always less than the next word would have taken, goes to the chunk after it, so
    that a text as a whole misses its rate by less than one word unless `always` exceeds it. Of equally likely words the
    first is kept. Untouched parts are kept and do not count (LLMLingua-2, arXiv 2403.12968, section 4.3: the words of
    the highest probability; there by one threshold for a percentile, which rounds).
    """
    kept, over = always | words.untouched, 0.0
    for chunk in chunks:
        part = slice(chunk.first, chunk.last)
        free = np.flatnonzero(~kept[part])
        counted = ~words.untouched[part]
        share = rate * weight[part][counted].sum() + over
        left = share - weight[part][counted & always[part]].sum()
        order = free[np.argsort(-probability[part][free], kind="stable")]
        spent = np.cumsum(weight[part][order])
        taken = int(np.searchsorted(spent, left + 1e-6, side="right"))
        kept[part.start + order[:taken]] = True
        over = max(0.0, left - (spent[taken - 1] if taken else 0))
    return kept


def without_repetitions(words: Words, kept: Mask, tokens: Sequence[str]) -> Mask:
    """`kept` without the forced words that only repeat the kept word before them."""
    single, texts = {token.strip() for token in tokens}, words.texts
    result = kept.copy()
    for before, now in pairwise(np.flatnonzero(kept).tolist()):
        if texts[now] in single and texts[now] == texts[before] and not words.untouched[now]:
            result[now] = False
    return result
