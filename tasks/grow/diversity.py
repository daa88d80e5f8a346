"""How varied texts are: words and pairs of words that come once more, samples of one prompt that are alike, lengths."""

from collections.abc import Sequence
from itertools import combinations
from statistics import fmean, pstdev

MOST_COMPARED = 32
"""Samples of a prompt that are compared with each other: the first ones."""


def words_of(text: str) -> list[str]:
    """The words of a text, lower-cased, as white space parts them."""
    return text.lower().split()


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Different n-grams of words over all n-grams of `texts` (distinct-n, Li et al. 2016); 0 when there is none."""
    grams = [gram for text in texts for gram in _grams(words_of(text), n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def self_similarity(groups: Sequence[Sequence[str]]) -> float:
    """Mean over the groups of how alike two of their texts are: shared pairs of words over all pairs of words of both
    (Jaccard; single words where a text has only one). Groups of fewer than two texts are left out; 0 without any."""
    means = []
    for texts in groups:
        sets = [
            set(_grams(words_of(text), 2)) or set(_grams(words_of(text), 1)) for text in texts[:MOST_COMPARED]
        ]
        pairs = [_jaccard(one, two) for one, two in combinations(sets, 2)]
        if pairs:
            means.append(fmean(pairs))
    return fmean(means) if means else 0.0


def length_statistics(texts: Sequence[str]) -> tuple[float, float]:
    """Mean and standard deviation of the number of words; zeros without a text."""
    lengths = [len(words_of(text)) for text in texts]
    return (fmean(lengths), pstdev(lengths)) if lengths else (0.0, 0.0)


def _grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]


def _jaccard(one: set[tuple[str, ...]], two: set[tuple[str, ...]]) -> float:
    together = one | two
    return len(one & two) / len(together) if together else 1.0
