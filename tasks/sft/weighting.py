"""Rows that count in proportion to their reward: the loss is the mean over the tokens of a batch, each token's weighted
by its row's reward over the mean reward of the training rows, so that the learning rate keeps its meaning."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tasks.core.errors import UserError
from tasks.core.examples import Example

if TYPE_CHECKING:
    from trl import SFTTrainer


def reward_weights(rows: Sequence[Example]) -> list[float]:
    """A weight for each row, 1 on average. Raises UserError when a row has no reward, or no reward is above 0."""
    rewards = [row.reward for row in rows if row.reward is not None]
    if len(rewards) < len(rows) or min(rewards) < 0 or not sum(rewards):
        raise UserError(
            "rows can only be weighted by rewards that are known, not negative, and not all 0",
            field="training.weighting",
            mend="choose `equal`, or train on scored samples",
        )
    mean = sum(rewards) / len(rewards)
    return [reward / mean for reward in rewards]


def weighted(trainer: type["SFTTrainer"]) -> type["SFTTrainer"]:
    """The trainer with the rows' column `weight`, where there is one, in its loss."""

    class Weighted(trainer):
        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            self.data_collator: Any = _with_weights(self.data_collator)

        def _set_signature_columns_if_needed(self) -> None:
            super()._set_signature_columns_if_needed()
            if "weight" not in self._signature_columns:
                self._signature_columns.append("weight")

        def compute_loss(self, model: Any, inputs: dict[str, Any], *arguments: Any, **keywords: Any) -> Any:
            weights = inputs.pop("weight", None)
            if weights is None:
                return super().compute_loss(model, inputs, *arguments, **keywords)

            def scaled(**given: Any) -> Any:
                outputs = model(**given)
                outputs.log_probs = outputs.log_probs * weights
                return outputs

            return super().compute_loss(scaled, inputs, *arguments, **keywords)

    return Weighted


def _with_weights(collate: Any) -> Any:
    import torch

    def collated(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = collate(rows)
        if (
            "weight" in rows[0] and "weight" not in batch
        ):  # rows in one sequence come with a weight for each token
            batch["weight"] = torch.tensor([[row["weight"]] for row in rows], dtype=torch.float32)
        return batch

    return collated
