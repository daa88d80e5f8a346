"""What compression is measured against: other ways to make a prompt shorter, at the same rate."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from tasks.core.compression.chunks import Chunk
from tasks.core.compression.compressor import Scored

Arm = Literal["whole", "compressor", "random", "stop words", "truncation"]

_STOP_WORDS = frozenset(
    word
    for line in (
        "a about above after again all am an and any are as at be because been before being below between",
        "both but by can did do does doing down during each few for from further had has have having he her",
        "here hers him his how i if in into is it its just me more most my no nor not now of off on once only",
        "or other our out over own same she should so some such than that the their them then there these",
        "they this those through to too under until up very was we were what when where which while who whom",
        "why will with would you your",
    )
    for word in line.split()
)
"""English words of little content, as in the lists of search engines."""


def as_arm(scored: Scored, arm: Arm, seed: int, number: int) -> Scored:
    """The same words with other likelihoods, so that cutting to a rate keeps what `arm` keeps; text `number`'s random
    choices are its own.

    random: any words. stop words: words of content before stop words and marks, among each any. truncation: the first
    words. All of them spend the rate over the whole text and not chunk by chunk.
    """
    if arm in ("whole", "compressor") or not len(scored.words):
        return scored
    count = len(scored.words)
    draw = random.Random(f"{seed} {number}")
    chance = np.array([draw.random() for _ in range(count)])
    likely = {
        "random": chance,
        "stop words": chance + _content(scored.words.texts),
        "truncation": -np.arange(count, dtype=np.float64),
    }[arm]
    last = scored.chunks[-1]
    return replace(scored, probability=likely, chunks=[Chunk(0, count, 0, last.end)])


def _content(words: Sequence[str]) -> np.ndarray:
    return np.array([word.casefold() not in _STOP_WORDS and any(map(str.isalnum, word)) for word in words])
