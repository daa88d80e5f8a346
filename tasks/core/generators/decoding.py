"""Batched decoding: a shared prefix is computed once, and a row that has ended leaves its batch at once."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import DynamicCache

    from tasks.core.generators.base import Sampling

Finish = Literal["stop", "length"]


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """The model without dropout and without autograd; its mode is restored afterwards."""
    import torch

    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def plan_batches(costs: Sequence[tuple[Any, ...]], max_rows: int, max_tokens: int) -> list[list[int]]:
    """Indices of rows, batch by batch, dearest first, so that running out of memory shows in the first batch.

    `costs[i]` begins with the tokens row i takes; what follows orders rows of equal length. A batch holds at
    most `max_rows` rows and, padded to its longest, at most `max_tokens` tokens, but always at least one row.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(costs)), key=costs.__getitem__, reverse=True):
        if batches and len(batches[-1]) < min(max_rows, max_tokens // costs[batches[-1][0]][0]):
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


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


def compute_prefix(model: Any, prompts: Sequence[list[int]]) -> Prefix:
    """The longest common prefix of `prompts` that leaves each at least one token, run through the model.

    The padding of a batch stands between the prefix and the rest, where full attention masks it out exactly.
    A sliding window counts padding too, and a recurrent state runs through it: with such layers the prefix is
    empty.
    """
    import torch
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    cache = DynamicCache(config=model.config)
    if len(prompts) < 2 or any(type(layer) is not DynamicLayer for layer in cache.layers):
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
) -> tuple["Tensor", "Tensor", "DynamicCache"]:
    """Run the rows, which all begin with `prefix`, through the model in one left-padded batch.

    Returns the logits of the last `keep` positions (rows, keep, vocabulary), the attention mask (rows,
    prefix + width) and the cache filled with all of it.
    """
    import torch

    rests = [row[prefix.length :] for row in rows]
    width = max(map(len, rests))
    # The padding is masked out, so any token will do; 0 exists in every vocabulary.
    ids = torch.tensor([[0] * (width - len(rest)) + rest for rest in rests])
    mask = torch.tensor([[1] * prefix.length + [0] * (width - len(rest)) + [1] * len(rest) for rest in rests])
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, prefix.length :]
    cache = prefix.expanded(len(rows))
    mask = mask.to(model.device)
    logits = model(
        input_ids=ids.to(model.device),
        attention_mask=mask,
        position_ids=positions.to(model.device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=keep,
    ).logits
    return logits, mask, cache


def decode(
    model: Any,
    prompts: Sequence[list[int]],
    prefix: Prefix,
    choose: Callable[["Tensor", list[int], list[list[int]]], "Tensor"],
    finish: Callable[[list[int]], Finish | None],
) -> Iterator[tuple[int, list[int], Finish]]:
    """Continue every prompt of a batch and yield (row, its new tokens, why it ended) as rows end.

    `choose` takes logits (rows in flight, vocabulary), the rows' indices and their new tokens so far, and returns
    one token each; `finish` takes the tokens of a row so far and says why it ends, or None while it goes on.
    """
    import torch

    # Several samples of one prompt share its reading; a row's place is where its prompt stands in the cache.
    distinct = list(dict.fromkeys(map(tuple, prompts)))
    places = [distinct.index(tuple(prompt)) for prompt in prompts]
    logits, mask, cache = prefill(model, [list(prompt) for prompt in distinct], prefix, 1)
    logits = logits[places, -1]
    positions = mask.sum(1, keepdim=True)

    rows = list(range(len(prompts)))
    tokens: list[list[int]] = [[] for _ in prompts]
    while True:
        going = []
        chosen = choose(logits, rows, [tokens[row] for row in rows]).tolist()
        for at, (row, token) in enumerate(zip(rows, chosen, strict=True)):
            tokens[row].append(token)
            if (why := finish(tokens[row])) is None:
                going.append(at)
            else:
                yield row, tokens[row], why
        if not going:
            return
        rows, places = [rows[at] for at in going], [places[at] for at in going]
        if places != list(range(len(mask))):
            kept = torch.tensor(places, device=model.device)
            cache.batch_select_indices(kept)
            mask, positions = mask[kept], positions[kept]
            places = list(range(len(rows)))
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        logits = model(
            input_ids=torch.tensor([tokens[row][-1:] for row in rows], device=model.device),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        positions = positions + 1


def choose_tokens(logits: "Tensor", sampling: "Sampling", draws: Sequence[float]) -> "Tensor":
    """One token per row of `logits` (rows, vocabulary): the likeliest at temperature 0, otherwise sampled.

    `draws` holds one number in [0, 1) per row, put through the inverse of the cumulative distribution: the
    token of a row depends on nothing but its own logits and draw. The order is temperature, then top-k, then
    top-p (nucleus sampling, Holtzman et al. 2020), each on what the one before left.
    """
    import torch

    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits.float() / sampling.temperature
    order = None
    if sampling.top_k or sampling.top_p < 1:
        most = min(sampling.top_k or logits.shape[-1], logits.shape[-1])
        logits, order = logits.topk(most, dim=-1)
    probabilities = logits.softmax(dim=-1)
    if sampling.top_p < 1:
        before = probabilities.cumsum(dim=-1) - probabilities
        probabilities = probabilities.masked_fill(before >= sampling.top_p, 0.0)
    cumulative = probabilities.cumsum(dim=-1)
    total = cumulative[:, -1:].contiguous()
    draw = torch.tensor(draws, dtype=total.dtype, device=total.device)[:, None] * total
    token = torch.searchsorted(cumulative, draw, right=True)
    # Rounding may lift a draw to the total itself: then it belongs to the last token that adds to it.
    token = torch.minimum(token, torch.searchsorted(cumulative, total))
    return (token if order is None else order.gather(1, token)).squeeze(1)
