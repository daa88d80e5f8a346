"""Prompts made shorter: an encoder says how likely each word is kept, and the likeliest stay (LLMLingua-2)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tasks.core.compression.chunks import Chunk, cut, sentence_ends, tokens_of_words
from tasks.core.compression.config import ChunkConfig, CompressionConfig
from tasks.core.compression.keeping import Mask, forced, keep, without_repetitions
from tasks.core.compression.surface import surface
from tasks.core.compression.token_classifier import TokenClassifier
from tasks.core.compression.words import Positions, Span, Words, split_words

Progress = Callable[[int, int], None]
CountTokens = Callable[[Sequence[str]], Sequence[int]]
"""How many tokens each of some words is for the model that the prompt goes to."""


@dataclass(frozen=True)
class Document:
    """A prompt, and the parts of it that must stay as they are, in order and without overlap."""

    text: str
    untouched: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Scored:
    """A prompt's words, how likely each is kept, and how many tokens each counts."""

    words: Words
    chunks: list[Chunk]
    probability: NDArray[np.float64]
    weight: NDArray[np.int64]

    @property
    def mean(self) -> float:
        """How likely a word of the prompt is kept, on average; 0 for no word."""
        return float(self.probability.mean()) if len(self.probability) else 0.0


@dataclass(frozen=True)
class Compressed:
    """A shorter prompt and what it was made of. Untouched parts count as tokens and as words kept."""

    text: str
    tokens: int
    """Of the whole prompt, counted word by word."""
    kept_tokens: int
    words: Words
    kept: Mask = field(repr=False)
    """Which words were kept."""

    @property
    def rate(self) -> float:
        """The share of the tokens that was kept; 1 for an empty prompt."""
        return self.kept_tokens / self.tokens if self.tokens else 1.0


@dataclass(frozen=True)
class _Divided:
    """A document's words and tokens, and the chunks that the encoder reads."""

    words: Words
    ids: Positions
    first: Positions
    """Of every word its first token,"""
    last: Positions
    """and the one after its last."""
    chunks: list[Chunk]


class Compressor:
    """Compresses prompts with a token classifier; `count_tokens` takes the place of the encoder's own tokens where the
    rate is to hold in another model's."""

    def __init__(self, classifier: TokenClassifier, count_tokens: CountTokens | None = None) -> None:
        self._classifier, self._count_tokens = classifier, count_tokens

    def compress(
        self,
        documents: Sequence[Document],
        config: CompressionConfig,
        progress: Progress | None = None,
    ) -> list[Compressed]:
        """The documents made shorter, each for itself, in their order; `progress` counts chunks."""
        return [select(scored, config) for scored in self.score(documents, config, progress)]

    def count(self, documents: Sequence[Document]) -> int:
        """The tokens of the documents, counted word by word as in `Compressed`."""
        return sum(int(self._weigh(one).sum()) for one in self._divide(documents, ChunkConfig(), 1))

    def compress_contexts(
        self,
        contexts: Sequence[Document],
        config: CompressionConfig,
        progress: Progress | None = None,
    ) -> dict[int, Compressed]:
        """Contexts of one prompt made shorter together: of those that are kept at all, by their number, what is left.

        The likeliest contexts are kept, by the mean of their words' probabilities; `target_token` holds for all of them
        together.
        """
        scored = self.score(contexts, config, progress)
        most = config.target_contexts or max(1, round(config.context_rate * len(scored)))
        likeliest = sorted(range(len(scored)), key=lambda index: (-scored[index].mean, index))
        chosen = sorted(likeliest[:most])
        if config.target_token:
            tokens = sum(int(scored[index].weight.sum()) for index in chosen)
            rate = min(1.0, config.target_token / max(1, tokens))
            config = config.model_copy(update={"rate": rate, "target_token": 0})
        return {index: select(scored[index], config) for index in chosen}

    def score(
        self,
        documents: Sequence[Document],
        config: ChunkConfig,
        progress: Progress | None = None,
    ) -> list[Scored]:
        """How likely each word of the documents is kept; with it they can be cut at several rates.

        The chunks of all documents are read together, those of like length in one batch.
        """
        room = self._classifier.room(config.max_length)
        divided = self._divide(documents, config, room)
        places = [
            (number, chunk)
            for number, one in enumerate(divided)
            for chunk in one.chunks
            if not one.words.untouched[chunk.first : chunk.last].all()
        ]
        # Of a word that is longer than a chunk the encoder reads the beginning.
        ids = [
            divided[number].ids[chunk.begin : min(chunk.end, chunk.begin + room)] for number, chunk in places
        ]
        rows = self._classifier.probabilities(ids, config.batch_tokens, progress)
        probability = [np.zeros(len(one.words)) for one in divided]
        for (number, chunk), row in zip(places, rows, strict=True):
            one, part = divided[number], slice(chunk.first, chunk.last)
            begin = np.minimum(one.first[part] - chunk.begin, len(row))
            end = np.minimum(one.last[part] - chunk.begin, len(row))
            total = np.concatenate([[0.0], np.cumsum(row)])
            probability[number][part] = (total[end] - total[begin]) / np.maximum(end - begin, 1)
        return [
            Scored(one.words, one.chunks, likely, self._weigh(one))
            for one, likely in zip(divided, probability, strict=True)
        ]

    def _divide(self, documents: Sequence[Document], config: ChunkConfig, room: int) -> list[_Divided]:
        marks, found = frozenset(config.chunk_ends), list[_Divided]()
        tokens = self._classifier.tokenise([document.text for document in documents])
        for document, (ids, offsets) in zip(documents, tokens, strict=True):
            words = split_words(document.text, document.untouched)
            first, last = tokens_of_words(words, offsets)
            chunks = cut(first, last, sentence_ends(words, marks), room)
            found.append(_Divided(words, ids, first, last, chunks))
        return found

    def _weigh(self, one: _Divided) -> NDArray[np.int64]:
        """How many tokens each word counts; at least one, for a word without any would be kept at no cost."""
        if self._count_tokens is None:
            return np.maximum(one.last - one.first, 1)
        return np.maximum(np.array(self._count_tokens(one.words.texts), dtype=np.int64), 1)


def select(scored: Scored, config: CompressionConfig) -> Compressed:
    """Cut a scored prompt to its rate, or to `target_token`."""
    words, weight = scored.words, scored.weight
    rate = config.rate
    if config.target_token:
        free = int(weight[~words.untouched].sum())
        rate = min(1.0, config.target_token / max(1, free))
    always = forced(words, config)
    kept = keep(words, scored.chunks, scored.probability, weight, always, rate)
    if config.drop_consecutive:
        kept = without_repetitions(words, kept, config.force_tokens)
    text = surface(words, kept, config.force_tokens, config.drop_consecutive)
    if rate == 1 and not config.drop_consecutive:
        text = words.text  # without any word there is still white space
    return Compressed(text, int(weight.sum()), int(weight[kept].sum()), words, kept)
