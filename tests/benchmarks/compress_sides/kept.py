"""Which words both sides keep, and why they differ where they do."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.benchmarks.compress_sides.common import RATE


def compare(ours: Sequence[dict[str, Any]], theirs: Sequence[list[str]]) -> Counter[str]:
    """Words by what became of them:

    same                 both keep it, or neither
    unknown              the package loses every word that its vocabulary lacks, whatever the encoder says of it
    rounded              it lies between our share of the tokens and the package's, which keeps what is strictly above
                         a percentile that is a whole number, plus one
    divided              the package sees other words, or other chunks, than the text has; of such a text all words
    else                 anything else
    """
    counts: Counter[str] = Counter()
    for one, labels in zip(ours, theirs, strict=True):
        known = ~np.array(one["unknown"], dtype=bool)
        counts["unknown"] += int((~known).sum())
        found = [label.rsplit(" ", 1) for label in labels]
        words = [word for word, is_known in zip(one["words"], known, strict=True) if is_known]
        if len(found) != len(words):
            counts["divided"] += len(words)
            continue
        their = np.array([label == "1" for _, label in found])
        our, their_rule = np.array(one["kept"])[known], package_rule(one, known)
        counts["same"] += int((our == their).sum())
        counts["rounded"] += int(((our != their) & (their == their_rule)).sum())
        counts["else"] += int(((our != their) & (their != their_rule)).sum())
    return counts


def package_rule(one: dict[str, Any], known: np.ndarray) -> np.ndarray:
    """What the package's threshold keeps of our probabilities: per chunk those strictly above the whole percentile."""
    kept = np.zeros(len(known), dtype=bool)
    probability, weight = np.array(one["probability"]), np.array(one["weight"])
    for first, last in one["chunks"]:
        part = np.arange(first, last)[known[first:last]]
        if len(part):
            of_tokens = np.repeat(probability[part], weight[part])
            kept[part] = probability[part] > np.percentile(of_tokens, int(100 * (1 - RATE) + 1))
    return kept[known]
