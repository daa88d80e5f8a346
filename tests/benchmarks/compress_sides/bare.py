"""The limit: the encoder's forward passes over the same tokens and nothing else.

Tokens and batches are made before the clock starts: as a stream one document after the other, as a set all chunks
sorted by length.
"""

import time
from typing import Any

import torch

from tasks.core.compression.chunks import cut, sentence_ends, tokens_of_words
from tasks.core.compression.token_classifier import batches, load_token_classifier
from tasks.core.compression.words import split_words
from tests.benchmarks.compress_sides.common import BATCH_TOKENS, MODEL, serve


def main() -> None:
    """Load the model and work on command."""
    classifier = load_token_classifier(MODEL)
    first, last = classifier.specials

    def chunks(text: str) -> list[list[int]]:
        ((ids, offsets),) = classifier.tokenise([text])
        words = split_words(text)
        found = cut(*tokens_of_words(words, offsets), sentence_ends(words, {"."}), classifier.room(512))
        return [[first, *ids[chunk.begin : chunk.end].tolist(), last] for chunk in found]

    def tensors(rows: list[list[int]]) -> list[dict[str, torch.Tensor]]:
        made = []
        for batch in batches([len(row) for row in rows], BATCH_TOKENS):
            width = len(rows[batch[0]])
            ids = torch.tensor([rows[i] + [0] * (width - len(rows[i])) for i in batch])
            mask = torch.tensor([[1] * len(rows[i]) + [0] * (width - len(rows[i])) for i in batch])
            made.append({"input_ids": ids} | ({} if mask.all() else {"attention_mask": mask}))
        return made

    def work(texts: list[str], mode: str) -> dict[str, Any]:
        rows = [chunks(text) for text in texts]
        groups = rows if mode == "stream" else [[chunk for row in rows for chunk in row]]
        inputs = [batch for group in groups for batch in tensors(group)]
        begun, cpu = time.perf_counter(), time.process_time()
        with torch.inference_mode():
            for batch in inputs:
                classifier.model(**batch)
        timed = {"seconds": time.perf_counter() - begun, "cpu_s": time.process_time() - cpu}
        return {"timed": timed, "tokens": sum(len(chunk) for row in rows for chunk in row)}

    serve(work)


if __name__ == "__main__":
    main()
