"""Texts as vectors: the mean of an encoder's last states, of length one, as all-MiniLM-L6-v2 was trained for."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""A row per text; the product of two rows is their cosine."""


def embed(
    model: Path,
    texts: Sequence[str],
    *,
    batch_size: int = 64,
    most_tokens: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> Vectors:
    """The vectors of `texts`, in their order; longer ones are cut at `most_tokens`. `progress` counts texts."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    encoder = AutoModel.from_pretrained(model, use_safetensors=True).eval()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder.to(device)
    found = np.zeros((len(texts), encoder.config.hidden_size), np.float32)
    by_length = sorted(range(len(texts)), key=lambda place: len(texts[place]))  # like lengths: little padding
    with torch.inference_mode():
        for start in range(0, len(texts), batch_size):
            places = by_length[start : start + batch_size]
            batch = tokenizer(
                [texts[place] for place in places],
                padding=True,
                truncation=True,
                max_length=most_tokens,
                return_tensors="pt",
            ).to(device)
            mask = batch["attention_mask"].unsqueeze(-1)
            states = encoder(**batch).last_hidden_state.float()
            means = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
            found[places] = torch.nn.functional.normalize(means, dim=-1).cpu().numpy()
            if progress:
                progress(min(start + batch_size, len(texts)), len(texts))
    return found
