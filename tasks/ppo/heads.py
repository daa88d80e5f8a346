"""What turns hidden states into numbers: the value function's head, and the reward model's with its normalisation."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.ppo.backbone import Backbone
from tasks.ppo.rollout import Rollout
from tasks.reward_model.normalisation import Normalisation

if TYPE_CHECKING:
    from torch import Tensor

ROWS = 32
"""Responses that the reward model reads at once; it keeps no activations."""


def value_head(model: Any) -> Any:
    """A linear head of one number on the hidden states of `model`, in float32 where the model lies.

    It begins at 0, and so do all values: a random one would give values that have nothing to do with the rewards.
    """
    import torch

    width = model.config.get_text_config(decoder=True).hidden_size
    head = torch.nn.Linear(width, 1, device=model.device, dtype=torch.float32)
    for parameter in head.parameters():
        torch.nn.init.zeros_(parameter)
    return head


@dataclass(frozen=True)
class RewardRole:
    """A frozen reward model as it was trained: read at the end of the turn, after prompt and response."""

    backbone: Backbone
    head: Any
    """A linear head in float32."""
    normalisation: Normalisation
    end: int
    """The id that ends a turn: what the reward model was trained to be read at."""
    context: int | None
    """The model's longest sequence; of a longer one the beginning is left out, as in training."""

    def raw(self, rollout: Rollout) -> "Tensor":
        """The unnormalised rewards [B].

        A response that was cut at its limit is read as if it had ended there, for without the end of the turn it would
        be unlike everything the model knows.
        """
        import torch

        with torch.no_grad():
            parts = [self._read(rollout.select(slice(at, at + ROWS))) for at in range(0, len(rollout), ROWS)]
            return torch.cat(parts)

    def __call__(self, rollout: Rollout) -> "Tensor":
        """The rewards [B] in [0, 1]; one that is not finite stays so, for whoever learns from them to refuse."""
        low, high, raw = self.normalisation.low, self.normalisation.high, self.raw(rollout)
        return ((raw - low) / (high - low)).clamp(0.0, 1.0).where(raw.isfinite(), raw)

    def _read(self, rollout: Rollout) -> "Tensor":
        import torch

        empty = torch.zeros_like(rollout.ended)[:, None]
        ids = torch.cat([rollout.prompts, rollout.responses, empty.long()], dim=1)
        seen = torch.cat([rollout.prompt_mask, rollout.mask, empty], dim=1)
        ends = rollout.prompts.shape[1] + rollout.mask.sum(dim=1) - rollout.ended.long()
        ids = ids.scatter(1, ends[:, None], self.end)
        seen = seen.scatter(1, ends[:, None], True)
        if self.context is not None:
            seen &= seen.flip(1).cumsum(dim=1).flip(1) <= self.context
        used = seen.any(dim=0).nonzero()
        first, last = int(used[0]), int(used[-1])
        hidden = self.backbone.hidden(ids[:, first : last + 1], seen[:, first : last + 1])
        rows = torch.arange(len(rollout), device=ids.device)
        rewards: Tensor = self.head(hidden[rows, ends - first].float()).squeeze(1)
        return rewards
