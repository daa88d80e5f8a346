"""What all prompts of a call begin with is computed once, and the rest of a batch of prompts after it."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import DynamicCache


@dataclass(frozen=True)
class Prefix:
    """The tokens every prompt of a call begins with: how many, and their keys and values (one row)."""

    length: int
    cache: "DynamicCache"

    def expanded(self, rows: int) -> "DynamicCache":
        """A cache of its own for a batch of `rows`."""
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(rows)
        return cache


def attends_to_everything(model: Any) -> bool:
    """True when every layer of the model attends to all tokens before, however far: no window, no recurrent state."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)


def compute_prefix(model: Any, prompts: Sequence[list[int]]) -> Prefix:
    """The longest common prefix of `prompts` that leaves each at least one token, run through the model.

    The padding of a batch stands between the prefix and the rest, where full attention masks it out exactly.
    A sliding window counts padding too, and a recurrent state runs through it: with such layers the prefix is
    empty.
    """
    import torch
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    if len(prompts) < 2 or not attends_to_everything(model):
        return Prefix(0, cache)
    first, last = min(prompts), max(prompts)
    longest = min(map(len, prompts)) - 1
    length = next((i for i in range(longest) if first[i] != last[i]), longest)
    if length:
        ids = torch.tensor([first[:length]], device=model.device)
        model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return Prefix(length, cache)


def prefill(
    model: Any, rows: Sequence[list[int]], prefix: Prefix, keep: int
) -> tuple["Tensor", "DynamicCache"]:
    """Run the rows, which all begin with `prefix`, through the model in one left-padded batch.

    Returns the logits of the last `keep` positions (rows, keep, vocabulary) and the cache filled with all of it:
    prefix, padding, the rest of each row.
    """
    import torch

    rests = [row[prefix.length :] for row in rows]
    width = max(map(len, rests))
    # The padding is masked out, so any token will do; 0 exists in every vocabulary.
    ids = torch.tensor([[0] * (width - len(rest)) + rest for rest in rests])
    mask = torch.tensor([[1] * prefix.length + [0] * (width - len(rest)) + [1] * len(rest) for rest in rests])
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, prefix.length :]
    cache = prefix.expanded(len(rows))
    logits = model(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        position_ids=positions.to(model.device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=keep,
    ).logits
    return logits, cache
