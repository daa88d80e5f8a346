"""One role's pass through a network: the hidden states at the positions that responses are read from."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tasks.ppo.rollout import Rollout

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Backbone:
    """A decoder without its output layer, and the context in which it plays its role (the role's adapter at work).

    It never runs in training mode: with dropout a policy would not be the policy that sampled (and the ratio of the
    two not 1 at first). Checkpointed layers alone are told that they train, which is what makes them checkpoint.
    """

    body: Any
    role: AbstractContextManager[None] = field(default_factory=nullcontext)

    def hidden(self, ids: "Tensor", mask: "Tensor") -> "Tensor":
        """The last hidden states [B, T, d] of token ids [B, T], padded wherever `mask` [B, T] is False."""
        mask = mask.long()
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        with self.role, _checkpointing(self.body):
            states: Tensor = self.body(
                input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
            ).last_hidden_state
        return states

    def before_responses(self, rollout: Rollout) -> "Tensor":
        """The hidden states [N, d] from which the N valid response tokens are predicted, row by row: that of a token
        stands one position before it, at first on the prompt's last token.

        Columns that are padding in every row are left out.
        """
        import torch

        prompt = int(rollout.prompt_mask.sum(dim=1).max())
        response = int(rollout.mask.sum(dim=1).max())
        mask = rollout.mask[:, :response]
        prompts, prompt_mask = rollout.prompts[:, -prompt:], rollout.prompt_mask[:, -prompt:]
        ids = torch.cat([prompts, rollout.responses[:, : response - 1]], dim=1)
        seen = torch.cat([prompt_mask, mask[:, :-1]], dim=1)
        return self.hidden(ids, seen)[:, prompt - 1 :][mask]


def enable_checkpointing(model: Any, **keywords: Any) -> None:
    """Recompute the activations of every layer in the backward pass."""
    model.activation_checkpointing_enable({"use_reentrant": False} | keywords)


@contextmanager
def _checkpointing(body: Any) -> Iterator[None]:
    import torch

    layers = []
    if torch.is_grad_enabled():
        layers = [module for module in body.modules() if getattr(module, "gradient_checkpointing", False)]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False
