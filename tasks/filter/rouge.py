"""Near duplicates by ROUGE-L, found through an index instead of by comparing every pair.

The answers are exactly those of a loop over the `rouge-score` package, for texts in Latin letters; of other scripts, of
which the package sees nothing but digits, the words are compared too (`tokenise`). Three bounds, none of them an
approximation, leave few pairs whose longest common subsequence has to be computed:

* Two texts that share enough tokens share one of each other's rarest (prefix filtering: Chaudhuri, Ganti and
  Kaushik, "A Primitive Operator for Similarity Joins in Data Cleaning", ICDE 2006; Bayardo, Ma and Srikant,
  "Scaling Up All Pairs Similarity Search", WWW 2007). An inverted index holds the rarest tokens only. Where
  the rarest that two texts share is a token of many rows, they share a second one, no rarer, among one more
  of their tokens (Wang, Li and Feng, "Can We Beat the Prefix Filtering?", SIGMOD 2012): such tokens are
  indexed in pairs, so that no list grows with the rows as their vocabulary ceases to.
* Lengths that lie too far apart cannot reach the threshold.
* A common subsequence of length l leaves n + m - 2l tokens unmatched, and every unmatched token flips one bit
  of a parity signature, or changes a histogram by one: texts whose signatures differ more are apart.
"""

import math
import re
from array import array
from collections import Counter
from functools import lru_cache
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from rapidfuzz.distance import LCSseq

_TOKEN = re.compile("[a-z0-9]+")
_SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_SIGNATURE_BITS = 256
_HISTOGRAM_BINS = 4096
_LONG = 256
"""Tokens from which on a row also gets a histogram: its parity signature tells it from others no longer."""
_FREQUENT = 1_000
"""Rows that must have a token before it is indexed in pairs: a list of so many is gone through in microseconds."""
_PAIRED = 16
"""Most of its rarest tokens that a row is indexed by in pairs; a row of more has its tokens indexed one by one."""
_BUCKETS = 1 << 20
"""Pairs of tokens are told apart by a hash of so many values, which bounds what the lists cost beside their rows."""


class Match(NamedTuple):
    """The indexed text that was found, and its ROUGE-L F1 with the text asked for."""

    id: str
    score: float


def tokenise(text: str) -> list[str]:
    """The tokens of `rouge-score` without stemming: lower case, runs of a-z and 0-9.

    A text with letters of another script than Latin also has its words: runs of letters and digits, and in scripts
    without spaces every letter. `rouge-score` would compare such texts by their numbers alone.
    """
    text = text.lower()
    if not text.isascii():
        foreign, token, _ = _in_any_script()
        if foreign.search(text):
            tokens: list[str] = token.findall(text)
            return tokens
    return _TOKEN.findall(text)


@lru_cache(maxsize=1)
def _in_any_script() -> tuple[Any, Any, Any]:
    """What finds a letter of another script than Latin, the tokens of a text with such, and a letter of a script that
    has no spaces."""
    import regex

    word = rf"[[\p{{L}}\p{{M}}\p{{N}}]--[a-z0-9{_SPACELESS}]]+"
    return (
        regex.compile(r"[\p{L}--[\p{Latin}\p{Common}]]", regex.VERSION1),
        regex.compile(rf"[a-z0-9]+|[{_SPACELESS}]\p{{M}}*|{word}", regex.VERSION1),
        regex.compile(rf"[{_SPACELESS}]", regex.VERSION1),
    )


def spaceless(text: str) -> bool:
    """Whether a text has letters of a script that is written without spaces, such as Chinese or Thai."""
    return not text.isascii() and _in_any_script()[2].search(text) is not None


def f1(lcs: int, candidate_length: int, reference_length: int) -> float:
    """ROUGE-L F1 from a common subsequence of `lcs` >= 1 tokens, rounded step by step as `rouge-score` does.

    Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004. Works on numbers and on numpy arrays.
    """
    precision, recall = lcs / candidate_length, lcs / reference_length
    return 2 * precision * recall / (precision + recall)


class RougeIndex:
    """Texts by id; finds one whose ROUGE-L F1 with a given text is above the threshold.

    Of a text in Latin letters the index sees, as `rouge-score` does, digits and letters without accents. A text without
    a token (punctuation) scores 0 with every other: it is never found, and has to be compared for equality instead.
    """

    def __init__(self, threshold: float, frequent: int = _FREQUENT) -> None:
        """`threshold` lies in (0, 1]; a score has to be strictly above it, so 1 finds nothing.

        Tokens of more than `frequent` rows are indexed in pairs, which changes the time and no answer.
        Raises ValueError for a threshold outside.
        """
        if not 0 < threshold <= 1:
            raise ValueError(f"a ROUGE-L threshold lies above 0 and up to 1, not at {threshold}")
        self._threshold = threshold
        self._frequent = frequent
        self._codes: dict[str, int] = {}  # token -> small integer
        self._rank: list[int] = []  # code -> place in the order of rarity
        self._ids: list[str] = []
        self._rows: list[list[int]] = []  # codes of every indexed text
        self._lengths = array("q")
        self._signatures = array("Q")
        self._histograms: dict[int, np.ndarray] = {}
        self._rare = 0  # ranks below are of rare tokens
        # code, or a pair of codes below 0 -> the rows that have it among their rarest
        self._postings: dict[int, array[int]] = {}
        self._posted = 0
        self._ranked = 0  # texts that rarity was judged by
        self._longest_paired = 0  # tokens of the longest row that is indexed in pairs

    def add(self, id: str, text: str) -> None:
        """Index a text. Several may bear one id."""
        codes = self._encode(text)
        if not codes:
            return
        if len(codes) >= _LONG:
            self._histograms[len(self._rows)] = _histogram(codes)
        self._ids.append(id)
        self._rows.append(codes)
        self._lengths.append(len(codes))
        self._signatures.frombytes(_signature(codes))

    def find(self, text: str) -> Match | None:
        """The first text added whose ROUGE-L F1 with `text` is above the threshold, or None."""
        codes = self._encode(text)
        if not codes:
            return None
        self._post()
        limits, _ = _bounds(len(codes), self._threshold)
        histogram = _histogram(codes) if len(codes) >= _LONG else None
        for row in self._near(codes):
            other, limit = self._rows[row], int(limits[len(self._rows[row])])
            others = self._histograms.get(row)
            if histogram is not None and others is not None and abs(histogram - others).sum() > limit:
                continue
            needed = (len(codes) + len(other) - limit) // 2
            if lcs := LCSseq.similarity(codes, other, score_cutoff=needed):  # 0 when fewer than needed
                return Match(self._ids[row], f1(lcs, len(codes), len(other)))
        return None

    def _encode(self, text: str) -> list[int]:
        """The tokens' codes. A new token ranks as the rarest: the order of the others stays as it was."""
        codes = self._codes
        row = [codes.setdefault(token, len(codes)) for token in tokenise(text)]
        self._rank.extend(range(-len(self._rank), -len(codes), -1))
        return row

    def _keys(self, codes: list[int], pairs: bool, single: bool) -> set[int]:
        """Where the inverted index has a text: its rarest tokens, and those of them that are frequent in `pairs`,
        one by one (`single`), or both."""
        _, count = _bounds(len(codes), self._threshold)
        ordered = sorted(codes, key=self._rank.__getitem__)
        keys = {code for code in ordered[:count] if single or self._rank[code] < self._rare}
        if pairs:
            frequent = [code for code in ordered[: count + 1] if self._rank[code] >= self._rare]
            keys |= {-1 - hash(pair) % _BUCKETS for pair in combinations(frequent, 2)}
        return keys

    def _post(self) -> None:
        """Enter the texts added since the last question into the inverted index.

        Ranks anew, and starts over, whenever the texts have doubled: rarity was judged by fewer of them.
        """
        if len(self._rows) > 2 * self._ranked:
            self._ranked = len(self._rows)
            frequency = Counter(code for row in self._rows for code in set(row))
            by_rarity = sorted(range(len(self._rank)), key=lambda code: frequency[code])
            for rank, code in enumerate(by_rarity):
                self._rank[code] = rank
            self._rare = sum(frequency[code] <= self._frequent for code in by_rarity)
            self._postings, self._posted, self._longest_paired = {}, 0, 0
        for row in range(self._posted, len(self._rows)):
            codes = self._rows[row]
            _, count = _bounds(len(codes), self._threshold)
            # A text that one shared token can make a match has no second one for certain.
            paired = count < min(_PAIRED, len(codes))
            if paired:
                self._longest_paired = max(self._longest_paired, len(codes))
            for key in self._keys(codes, pairs=paired, single=not paired):
                self._postings.setdefault(key, array("q")).append(row)
        self._posted = len(self._rows)

    def _near(self, codes: list[int]) -> list[int]:
        """The rows that no bound excludes, in the order they were added."""
        limits, _ = _bounds(len(codes), self._threshold)
        shortest = int(np.argmax(limits >= 0))  # of the texts that can match
        keys = self._keys(codes, pairs=shortest <= self._longest_paired, single=True)
        lists = [self._postings[key] for key in keys if key in self._postings]
        if not lists:
            return []
        rows = np.concatenate([np.frombuffer(rows, np.int64) for rows in lists])
        limit = limits[np.minimum(np.frombuffer(self._lengths, np.int64)[rows], len(limits) - 1)]
        rows, limit = rows[limit >= 0], limit[limit >= 0]
        signatures = np.frombuffer(self._signatures, np.uint64).reshape(len(self._rows), -1)[rows]
        flipped = np.bitwise_count(signatures ^ np.frombuffer(_signature(codes), np.uint64)).sum(1, np.int64)
        return np.unique(rows[flipped <= limit]).tolist()


@lru_cache(maxsize=512)
def _bounds(length: int, threshold: float) -> tuple[np.ndarray, int]:
    """What a text of `length` tokens needs to be above the threshold.

    Returns, by the other text's length (the last entry stands for all longer ones), how many tokens of both
    may stay unmatched, -1 where no such text can match; and how many rarest tokens have to be looked up.
    """
    other = np.arange(1, math.ceil(length * (2 - threshold) / threshold) + 2)
    needed = np.maximum(np.floor(threshold * (length + other) / 2).astype(np.int64) - 1, 1)
    while (below := f1(needed, length, other) <= threshold).any():  # type: ignore[arg-type, attr-defined]
        needed += below
    possible = needed <= np.minimum(length, other)
    limits = np.concatenate([[-1], np.where(possible, length + other - 2 * needed, -1), [-1]])
    fewest = int(needed[possible].min(initial=length + 1))
    return limits, length - fewest + 1


def _signature(codes: list[int]) -> bytes:
    """Bit i tells whether tokens of the codes congruent to i occur an odd number of times."""
    parity = 0
    for code in codes:
        parity ^= 1 << code % _SIGNATURE_BITS
    return parity.to_bytes(_SIGNATURE_BITS // 8, "little")


def _histogram(codes: list[int]) -> np.ndarray:
    return np.bincount(np.array(codes) % _HISTOGRAM_BINS, minlength=_HISTOGRAM_BINS).astype(np.int32)
