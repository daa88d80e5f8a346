"""A batch of prompts with the responses that the policy sampled to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Rollout:
    """One batch of B prompts, all tensors on one device."""

    prompts: "Tensor"
    """[B, P] token ids, padded on the left."""
    prompt_mask: "Tensor"
    """[B, P] bool."""
    responses: "Tensor"
    """[B, R] token ids as sampled, padded on the right after the end token."""
    mask: "Tensor"
    """[B, R] bool: True for sampled tokens up to and including the end token."""
    ended: "Tensor"
    """[B] bool: the end token was reached within the limit."""

    def __len__(self) -> int:
        return len(self.prompts)

    def select(self, rows: "Tensor | slice") -> "Rollout":
        """Some of the rows, by their indices or as a slice."""
        return Rollout(
            self.prompts[rows],
            self.prompt_mask[rows],
            self.responses[rows],
            self.mask[rows],
            self.ended[rows],
        )

    def response_tokens(self) -> list[list[int]]:
        """The sampled tokens of each row, the end token among them."""
        pairs = zip(self.responses.tolist(), self.mask.sum(1).tolist(), strict=True)
        return [tokens[:length] for tokens, length in pairs]


def make_rollout(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    ended: Sequence[bool],
    *,
    padding: int,
    device: Any = None,
) -> Rollout:
    """The rollout of prompts and their responses, both as token ids without padding; `padding` is any id there is.

    Raises ValueError when there is no row, or a prompt or a response has no token.
    """
    import torch

    if not len(prompts) == len(responses) == len(ended):
        raise ValueError(f"{len(prompts)} prompts, {len(responses)} responses, {len(ended)} endings")
    if not prompts or not all(map(len, [*prompts, *responses])):
        raise ValueError("a rollout has at least one row, and every prompt and response a token")
    wide, long = max(map(len, prompts)), max(map(len, responses))
    left = torch.tensor([[padding] * (wide - len(row)) + [*row] for row in prompts], device=device)
    right = torch.tensor([[*row] + [padding] * (long - len(row)) for row in responses], device=device)
    prompt_lengths = torch.tensor([len(row) for row in prompts], device=device)
    lengths = torch.tensor([len(row) for row in responses], device=device)
    return Rollout(
        prompts=left,
        prompt_mask=torch.arange(wide, device=device) >= wide - prompt_lengths[:, None],
        responses=right,
        mask=torch.arange(long, device=device) < lengths[:, None],
        ended=torch.tensor(list(ended), device=device),
    )
