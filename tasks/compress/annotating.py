"""Which words of a text a teacher kept: its shorter text is aligned with the original, word by word."""

import unicodedata
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

_CANDIDATES = 8
"""Of a word that is repeated within the window, so many places ahead and behind are compared."""
_NEIGHBOUR = 40
_ENDINGS = (("ies", "y"), ("ing", ""), ("ed", ""), ("es", ""), ("s", ""))


@dataclass(frozen=True)
class Alignment:
    """The labels of the original's words, and how well the shorter text fits to it."""

    kept: list[bool]
    """Per word of the original, whether the teacher kept it."""
    compressed: int
    """Words of the shorter text;"""
    absent: int
    """those of them that do not occur in the original,"""
    reordered: int
    """and those that were found before the word that precedes them in the shorter text."""

    @property
    def variation(self) -> float:
        """Variation rate: the share of the shorter text's words that the original lacks; 0 for no word."""
        return self.absent / self.compressed if self.compressed else 0.0

    @property
    def gap(self) -> float:
        """Alignment gap: hitting rate less matching rate. It is large where words occur in the original but could not
        be given a place in it, because they come more often than there, or from too far away."""
        hits, matches = self.compressed - self.absent, sum(self.kept)
        return (hits - matches) / len(self.kept) if self.kept else 0.0


def align(original: Sequence[str], compressed: Sequence[str], window: int) -> Alignment:
    """Label the original's words (LLMLingua-2, arXiv 2403.12968, section 4.1 and algorithm 1).

    Every word of the shorter text is looked for among the words not yet labelled, forward from where the one before it
    was found, and backward, at most `window` words away. Words are the same up to case and English inflection; labels
    stand on the words as they are written. Of several places the nearest wins, a step backward counting as two. A
    neighbour that is the word's neighbour in the shorter text too outweighs `_NEIGHBOUR` steps: a repeated word goes
    where its context is. (If any place ahead came before all behind, the search would run ahead after a word that was
    moved, and in long texts not find back.) Takes time in proportion to the number of words.
    """
    keys, wanted = [word_key(word) for word in original], [word_key(word) for word in compressed]
    places: dict[str, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        places[key].append(place)
    kept, absent, reordered, at = [False] * len(keys), 0, 0, 0

    def fit(place: int, number: int) -> float:
        after, before = place + 1, place - 1
        follows = number + 1 < len(wanted) and after < len(keys) and keys[after] == wanted[number + 1]
        precedes = number > 0 and before >= 0 and kept[before] and keys[before] == wanted[number - 1]
        steps = place - at if place >= at else 2 * (at - place)
        return _NEIGHBOUR * (follows + precedes) + 0.5 * (original[place] == compressed[number]) - steps

    for number, key in enumerate(wanted):
        there = places.get(key)
        if there is None:
            absent += 1
            continue
        middle = bisect_left(there, at)
        ahead = _free(there, range(middle, len(there)), kept, at - window, at + window)
        behind = _free(there, range(middle - 1, -1, -1), kept, at - window, at + window)
        best = max([*ahead, *behind], key=lambda place: fit(place, number), default=None)
        if best is None:
            continue
        reordered += best < at
        kept[best] = True
        at = best + 1
    return Alignment(kept, len(wanted), absent, reordered)


def _free(there: list[int], order: range, kept: list[bool], low: int, high: int) -> list[int]:
    """The nearest places that are not labelled yet, between `low` and `high`."""
    found: list[int] = []
    for number in order:
        place = there[number]
        if not low <= place < high or len(found) == _CANDIDATES:
            break
        if not kept[place]:
            found.append(place)
    return found


@lru_cache(maxsize=1 << 16)
def word_key(word: str) -> str:
    """What two words share that count as the same: case, compatibility forms and English inflection put aside."""
    key = unicodedata.normalize("NFKC", word).casefold()
    if key.isascii() and key.isalpha():
        for ending, instead in _ENDINGS:
            if key.endswith(ending) and len(key) >= len(ending) + 3:
                return key.removesuffix(ending) + instead
    return key
