"""How well an encoder finds the words that a teacher kept."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from tasks.compress.drawing import draw_calibration
from tasks.core.compression.compressor import Compressor, Document
from tasks.core.compression.config import ChunkConfig
from tasks.core.compression.token_classifier import TokenClassifier

BINS = 10


class WordScores(BaseModel):
    """Figures over the words of held-out chunks."""

    words: int
    kept_share: float
    """The share that the teacher kept."""
    precision: float
    """Of the words that the encoder finds likelier kept than not, the share that the teacher kept;"""
    recall: float
    """of those that the teacher kept, the share that the encoder finds likelier kept than not."""
    f1: float
    f1_at_rate: float
    """F1 when of every chunk as many words are kept as the teacher kept of it; a random choice reaches `kept_share`."""
    calibration_error: float
    """Expected calibration error, in 10 bins of equal width."""

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        names = ("precision", "recall", "f1", "f1_at_rate", "calibration_error", "kept_share")
        return {f"words/{name}": getattr(self, name) for name in names}


def score_words(classifier: TokenClassifier, pairs: Sequence[Mapping[str, Any]]) -> tuple[WordScores, bytes]:
    """The figures on labelled chunks, and the calibration as a PNG."""
    scored = Compressor(classifier).score([Document(pair["text"]) for pair in pairs], ChunkConfig())
    labels = [np.array([label == "1" for label in pair["labels"]], dtype=bool) for pair in pairs]
    return word_scores([one.probability for one in scored], labels)


def word_scores(
    likely: Sequence[NDArray[np.float64]], labels: Sequence[NDArray[np.bool_]]
) -> tuple[WordScores, bytes]:
    """The figures and the picture from each chunk's probabilities and labels, one per word."""
    probability, kept = np.concatenate(likely), np.concatenate(labels)
    precision, recall, f1 = _f1(probability > 0.5, kept)
    matched = np.concatenate([_likeliest(p, int(k.sum())) for p, k in zip(likely, labels, strict=True)])
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    used = [number for number in range(BINS) if (bins == number).any()]
    predicted = [float(probability[bins == number].mean()) for number in used]
    observed = [float(kept[bins == number].mean()) for number in used]
    error = sum(
        float((bins == number).mean()) * abs(p - o)
        for number, p, o in zip(used, predicted, observed, strict=True)
    )
    scores = WordScores(
        words=len(kept),
        kept_share=float(kept.mean()),
        precision=precision,
        recall=recall,
        f1=f1,
        f1_at_rate=_f1(matched, kept)[2],
        calibration_error=error,
    )
    return scores, draw_calibration(predicted, observed, error)


def _likeliest(probability: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    chosen = np.zeros(len(probability), dtype=bool)
    chosen[np.argsort(-probability, kind="stable")[:count]] = True
    return chosen


def _f1(found: NDArray[np.bool_], kept: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Precision, recall and F1; 0 where there is nothing to divide by."""
    both = int((found & kept).sum())
    precision = both / int(found.sum()) if found.any() else 0.0
    recall = both / int(kept.sum()) if kept.any() else 0.0
    return precision, recall, 2 * precision * recall / (precision + recall) if both else 0.0
