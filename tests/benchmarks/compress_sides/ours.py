"""Ours: the compressor that every generator and `compress-text` use."""

from collections.abc import Sequence
from typing import Any

from tasks.core.compression.compressor import Compressor, Document, select
from tasks.core.compression.config import CompressionConfig
from tasks.core.compression.token_classifier import load_token_classifier
from tests.benchmarks.compress_sides.common import BATCH_TOKENS, MODEL, RATE, serve
from tests.benchmarks.compress_sides.tiktoken_stand_in import Encoding


def main() -> None:
    """Load the model and work on command."""
    classifier, encode = load_token_classifier(MODEL), Encoding().encode

    def count(words: Sequence[str]) -> list[int]:
        return [len(encode(word)) for word in words]

    compressor = Compressor(classifier, count)
    # The package ends a chunk at a full stop only.
    config = CompressionConfig(rate=RATE, chunk_ends=(".",), batch_tokens=BATCH_TOKENS)
    unknown = classifier.tokenizer.unk_token

    def work(texts: list[str], mode: str) -> dict[str, Any]:
        if mode == "describe":
            return {"words": [describe(text) for text in texts]}
        documents = [Document(text) for text in texts]
        if mode == "stream":
            done = [compressor.compress([document], config)[0] for document in documents]
        else:
            done = compressor.compress(documents, config)
        return {"rate": sum(one.kept_tokens for one in done) / sum(one.tokens for one in done)}

    def describe(text: str) -> dict[str, Any]:
        (scored,) = compressor.score([Document(text)], config)
        words = scored.words.texts
        return {
            "words": words,
            "kept": select(scored, config).kept.tolist(),
            "probability": scored.probability.tolist(),
            "weight": scored.weight.tolist(),
            "chunks": [(chunk.first, chunk.last) for chunk in scored.chunks],
            "unknown": [classifier.tokenizer.tokenize(word) == [unknown] for word in words],
        }

    serve(work)


if __name__ == "__main__":
    main()
