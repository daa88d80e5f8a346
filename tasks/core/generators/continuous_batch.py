"""Rows that a model continues together, a token a step; a row may join or leave between any two steps."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tasks.core.generators.buffered_cache import BufferedCache
from tasks.core.generators.prefix import Prefix, attends_to_everything, prefill

if TYPE_CHECKING:
    from torch import Tensor


class ContinuousBatch:
    """The rows in flight, by their place in the batch (iteration-level scheduling: Yu et al. 2022, "Orca").

    With a layer that does not attend to everything (a sliding window, a recurrent state) rows only join an empty
    batch, and the cache is transformers' own.
    """

    def __init__(self, model: Any, prefix: Prefix) -> None:
        self.open = attends_to_everything(model)
        """Rows may join while others are in flight."""
        self._model, self._prefix = model, prefix
        self._lengths: list[int] = []
        self._width = 0
        self._buffers: BufferedCache | None = None
        self._cache: Any = None

    def __len__(self) -> int:
        return len(self._lengths)

    def join(self, prompts: Sequence[list[int]]) -> "Tensor":
        """Read prompts, which become the last rows; returns the logits of their first new tokens (rows, vocabulary).

        Equal prompts are read once.
        """
        import torch

        distinct = list(dict.fromkeys(map(tuple, prompts)))
        where = {prompt: place for place, prompt in enumerate(distinct)}
        places = torch.tensor([where[tuple(prompt)] for prompt in prompts])
        logits, cache = prefill(self._model, [list(prompt) for prompt in distinct], self._prefix, 1)
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        places, device = places.to(logits.device), logits.device
        if self.open:
            width = int(lengths.max())
            # Of a prompt's columns (prefix, padding, the rest) those that are its tokens, aligned to the right.
            tokens = torch.arange(width) - (width - lengths)[:, None]
            columns = torch.where(tokens < self._prefix.length, tokens, tokens + (width - lengths)[:, None])
            if self._buffers is None:
                self._buffers = BufferedCache(len(cache.layers))
                self._cache = self._buffers.cache
            self._buffers.join(cache, places, columns.clamp(min=0).to(device))
        else:
            cache.batch_select_indices(places)
            self._cache, self._width = cache, int(lengths.max())
        self._lengths += lengths.tolist()
        return logits[places, -1]

    def keep(self, staying: Sequence[int]) -> list[int]:
        """Let all rows but those at the places `staying` leave; returns which place each row that is left had."""
        import torch

        order = list(staying)
        if len(order) == len(self):
            return order
        if self._buffers is not None:
            # Rows at the end move into the gaps, so that few are copied.
            last = [place for place in order if place >= len(order)]
            kept = set(order)
            order = [place if place in kept else last.pop() for place in range(len(order))]
        self._lengths = [self._lengths[place] for place in order]
        if self._buffers is not None:
            self._buffers.select(order, max(self._lengths, default=0))
        elif order:
            self._cache.batch_select_indices(torch.tensor(order, device=self._model.device))
        return order

    def step(self, tokens: Sequence[int]) -> "Tensor":
        """Append a token to every row; returns the logits of the next ones (rows, vocabulary)."""
        import torch

        if self._buffers is not None:
            self._buffers.reserve()
            width = self._buffers.window.width + 1
        else:
            self._width = width = self._width + 1
        lengths = torch.tensor(self._lengths, device=self._model.device)[:, None]
        columns = torch.arange(width, device=self._model.device)
        logits = self._model(
            input_ids=torch.tensor(tokens, device=self._model.device)[:, None],
            attention_mask=(columns >= width - 1 - lengths).long(),
            position_ids=lengths,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        if self._buffers is not None:
            self._buffers.advance()
        self._lengths = [length + 1 for length in self._lengths]
        return logits
