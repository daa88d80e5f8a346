"""The encoder that says of every token how likely it is kept."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.core.compression.words import Positions
from tasks.core.errors import UserError
from tasks.core.models import Precision, torch_dtype

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

KEEP = 1
"""The label of a word that is kept, as in the weights that LLMLingua-2's authors published."""


class TokenClassifier:
    """An encoder with a head of two labels, dropped and kept, and its tokenizer."""

    def __init__(self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.specials = special_tokens(tokenizer)

    def room(self, max_length: int) -> int:
        """How many tokens of a text fit into a chunk."""
        return min(max_length, longest_input(self.model.config)) - 2

    def tokenise(self, texts: Sequence[str]) -> list[tuple[Positions, Positions]]:
        """Of each text its token ids, and which characters each token stands for (tokens, 2); nothing is cut off."""
        return tokenise(self.tokenizer, texts)

    def probabilities(
        self,
        chunks: Sequence[Positions],
        batch_tokens: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[NDArray[np.float64]]:
        """Of each chunk of token ids the probability that each token is kept.

        Chunks of like length are read together, so that little is padded; `progress` counts chunks.
        """
        import torch

        found: list[NDArray[np.float64]] = [np.zeros(0)] * len(chunks)
        done = 0
        with torch.inference_mode():
            for batch in batches([len(chunk) + 2 for chunk in chunks], batch_tokens):
                kept = self._read([chunks[index] for index in batch])
                for index, row in zip(batch, kept, strict=True):
                    found[index] = row[1 : 1 + len(chunks[index])]
                done += len(batch)
                if progress:
                    progress(done, len(chunks))
        return found

    def _read(self, chunks: Sequence[Positions]) -> NDArray[np.float64]:
        import torch

        width = max(map(len, chunks)) + 2
        first, last = self.specials
        ids = np.full((len(chunks), width), self.tokenizer.pad_token_id or 0, dtype=np.int64)
        ids[:, 0] = first
        for row, chunk in zip(ids, chunks, strict=True):
            row[1 : 1 + len(chunk)] = chunk
            row[1 + len(chunk)] = last
        lengths = np.array([[len(chunk) + 2] for chunk in chunks])
        inputs = {"input_ids": torch.from_numpy(ids)}
        if (lengths < width).any():
            inputs["attention_mask"] = torch.from_numpy((np.arange(width) < lengths).astype(np.int64))
        inputs = {name: value.to(self.model.device) for name, value in inputs.items()}
        logits = self.model(**inputs).logits.float()
        kept: NDArray[np.float64] = logits.softmax(dim=-1)[..., KEEP].cpu().numpy().astype(np.float64)
        return kept


def batches(lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Rows of such lengths in batches, the longest first; padded, a batch holds at most so many tokens, and no row is
    padded by more than a tenth."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    found: list[list[int]] = []
    for index in order:
        longest = lengths[found[-1][0]] if found else 0
        if found and (len(found[-1]) + 1) * longest <= most_tokens and lengths[index] >= 0.9 * longest:
            found[-1].append(index)
        else:
            found.append([index])
    return found


def tokenise(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> list[tuple[Positions, Positions]]:
    """Of each text its token ids, and which characters each token stands for (tokens, 2); nothing is cut off.

    Special tokens that are spelled out in a text ("[SEP]") are words like others.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()  # all-MiniLM's own tokenizer cuts after 128 tokens
    backend.no_padding()
    backend.encode_special_tokens = True
    encoded = backend.encode_batch(list(texts), add_special_tokens=False)
    return [
        (np.array(one.ids, dtype=np.int64), np.array(one.offsets, dtype=np.int64).reshape(-1, 2))
        for one in encoded
    ]


def special_tokens(tokenizer: "PreTrainedTokenizerBase") -> tuple[int, int]:
    """The ids that a text stands between: [CLS] and [SEP] of BERT, <s> and </s> of XLM-R, as the tokenizer has them."""
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    first = tokenizer.bos_token_id if first is None else first
    last = tokenizer.eos_token_id if last is None else last
    if first is None or last is None:
        raise UserError(
            "the tokenizer has no special tokens that a text stands between",
            field="model",
            mend="take an encoder such as all-MiniLM, BERT or XLM-R",
        )
    return int(first), int(last)


def longest_input(config: Any) -> int:
    """The most tokens that an encoder can read."""
    positions = int(getattr(config, "max_position_embeddings", 512))
    # The first of RoBERTa's positions stand for padding and for what comes before it.
    behind_padding = config.model_type in ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert")
    return positions - (config.pad_token_id + 1 if behind_padding else 0)


def load_token_classifier(
    folder: Path, *, precision: Precision = "auto", field: str = "model"
) -> TokenClassifier:
    """The compressor in a folder, on the accelerator if there is one.

    Raises UserError for a folder that holds another kind of model, or a tokenizer that cannot tell which characters a
    token stands for.
    """
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    check_architecture(folder, field)
    tokenizer = fast_tokenizer(AutoTokenizer.from_pretrained(folder), field)
    model = AutoModelForTokenClassification.from_pretrained(folder, dtype=torch_dtype(precision))
    return TokenClassifier(model.to("cuda") if torch.cuda.is_available() else model, tokenizer)


def check_architecture(folder: Path, field: str) -> None:
    """Raise UserError unless the folder holds a token classifier with two labels; nothing is loaded."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind = (config.get("architectures") or ["model of an unknown kind"])[0]
    labels = len(config.get("id2label", {})) or config.get("num_labels", 2)
    if not kind.endswith("ForTokenClassification") or labels != 2:
        raise UserError(
            f"{folder} holds a {kind} and no compressor (a token classifier with two labels)",
            field=field,
            mend="train one with `python -m flows compress`, or give the folder of a published one",
        )


def fast_tokenizer(tokenizer: Any, field: str) -> "PreTrainedTokenizerBase":
    """The tokenizer itself. Raises UserError when it cannot tell which characters a token stands for."""
    if not tokenizer.is_fast:
        raise UserError(
            f"{type(tokenizer).__name__} cannot tell which characters a token stands for",
            field=field,
            mend="take a model with a tokenizer.json",
        )
    return tokenizer
