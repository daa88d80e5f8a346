"""Answers out of a fixed set: which tokens may come next, so that a completion becomes one of them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class ChoiceTree:
    """The token sequences of the choices, `end` after each, as a prefix tree.

    Each token is drawn among those that continue a choice, so the likeliest choice as a whole may lose to one
    that opens with a likelier token, as in any greedy decoding.
    """

    def __init__(self, choices: Sequence[Sequence[int]], end: int) -> None:
        self._next: dict[tuple[int, ...], list[int]] = {}
        for choice in choices:
            tokens = (*choice, end)
            for at, token in enumerate(tokens):
                following = self._next.setdefault(tokens[:at], [])
                if token not in following:
                    following.append(token)

    def restrict(self, logits: "Tensor", written: Sequence[Sequence[int]]) -> "Tensor":
        """`logits` (rows, vocabulary) with minus infinity at every token that cannot come next.

        `written` holds each row's new tokens so far, which must be the beginning of a choice.
        """
        import torch

        allowed = torch.full_like(logits, -torch.inf)
        for row, tokens in enumerate(written):
            following = torch.tensor(self._next[tuple(tokens)], device=logits.device)
            allowed[row, following] = logits[row, following]
        return allowed
