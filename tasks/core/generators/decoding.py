"""Batched decoding: a row that has ended leaves its batch at once, and waiting ones take its place."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tasks.core.generators.continuous_batch import ContinuousBatch
from tasks.core.generators.prefix import Prefix

if TYPE_CHECKING:
    from torch import Tensor

    from tasks.core.generators.base import Sampling

Finish = Literal["stop", "length"]

_SORTED_FIRST = 1024
"""So many of the likeliest tokens nearly always hold the nucleus."""


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
class Limits:
    """How much is in flight at once."""

    rows: int
    tokens: int
    """Of all rows, each counted as long as the longest of them may become; one row is always allowed."""
    new_tokens: int
    """Longest completion."""


def decode(
    model: Any,
    prompts: Sequence[list[int]],
    prefix: Prefix,
    choose: Callable[["Tensor", list[int], list[list[int]]], "Tensor"],
    finish: Callable[[list[int]], Finish | None],
    limits: Limits,
) -> Iterator[tuple[int, list[int], Finish]]:
    """Continue every prompt, the longest first, and yield (row, its new tokens, why it ended) as rows end.

    `choose` takes logits (rows in flight, vocabulary), the rows' indices and their new tokens so far, and returns
    one token each; `finish` takes the tokens of a row so far and says why it ends, or None while it goes on.
    """
    import torch

    batch = ContinuousBatch(model, prefix)
    waiting = sorted(range(len(prompts)), key=lambda row: (len(prompts[row]), prompts[row]), reverse=True)
    rows: list[int] = []
    tokens: dict[int, list[int]] = {}
    parts: list[Tensor] = []
    while waiting or rows:
        if batch.open or not rows:
            joining = next_to_join(prompts, waiting, rows, limits)
            if joining:
                parts.append(batch.join([prompts[row] for row in joining]))
                waiting = waiting[len(joining) :]
                rows += joining
                tokens |= {row: [] for row in joining}
        going = []
        chosen = choose(torch.cat(parts), rows, [tokens[row] for row in rows]).tolist()
        for place, (row, token) in enumerate(zip(rows, chosen, strict=True)):
            tokens[row].append(token)
            if (why := finish(tokens[row])) is None:
                going.append(place)
            else:
                yield row, tokens.pop(row), why
        rows = [rows[place] for place in batch.keep(going)]
        parts = [batch.step([tokens[row][-1] for row in rows])] if rows else []


def next_to_join(
    prompts: Sequence[list[int]], waiting: Sequence[int], rows: Sequence[int], limits: Limits
) -> Sequence[int]:
    """The first of the `waiting` rows for which there is room beside `rows`, or none yet.

    Reading a prompt costs as much as many steps, so equal prompts, which are read once, join together where they can,
    and while others are in flight the next ones wait until a quarter of the batch is free.
    """
    if not waiting:
        return []
    longest = max(len(prompts[row]) for row in [waiting[0], *rows]) + limits.new_tokens
    most = max(1, min(limits.rows, limits.tokens // longest))
    fitting = waiting[: max(0, most - len(rows))]
    if len(fitting) == len(waiting):
        return fitting
    equal = next((at for at, row in enumerate(waiting) if prompts[row] != prompts[waiting[0]]), len(waiting))
    least = max(1, most // 4, min(equal, most // 2))
    if rows and len(fitting) < least:
        return []
    whole = len(fitting)
    while whole and prompts[waiting[whole - 1]] == prompts[waiting[len(fitting)]]:
        whole -= 1
    return fitting[:whole] if whole >= least else fitting


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
    if sampling.top_k:
        logits, order = logits.topk(min(sampling.top_k, logits.shape[-1]), dim=-1)
    if sampling.top_p < 1:
        probabilities, likeliest = _nucleus(logits, sampling.top_p)
        order = likeliest if order is None else order.gather(1, likeliest)
    else:
        probabilities = logits.softmax(dim=-1)
    cumulative = probabilities.cumsum(dim=-1)
    total = cumulative[:, -1:].contiguous()
    draw = torch.tensor(draws, dtype=total.dtype, device=total.device)[:, None] * total
    token = torch.searchsorted(cumulative, draw, right=True)
    # Rounding may lift a draw to the total itself: then it belongs to the last token that adds to it.
    token = torch.minimum(token, torch.searchsorted(cumulative, total))
    return (token if order is None else order.gather(1, token)).squeeze(1)


def _nucleus(logits: "Tensor", top_p: float) -> tuple["Tensor", "Tensor"]:
    """The tokens of each row that may come, likeliest first: their probabilities (0 for others after them) and ids.

    To sort a whole vocabulary takes as long as a small model takes for a token, and few rows need it.
    """
    total = logits.logsumexp(dim=-1, keepdim=True)
    for most in (min(_SORTED_FIRST, logits.shape[-1]), logits.shape[-1]):
        values, order = logits.topk(most, dim=-1)
        probabilities = (values - total).exp()
        before = probabilities.cumsum(dim=-1) - probabilities
        if bool((probabilities.sum(dim=-1) >= top_p).all()):
            break
    return probabilities.masked_fill(before >= top_p, 0.0), order
