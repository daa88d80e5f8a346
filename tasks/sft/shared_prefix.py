"""Rows in one sequence, behind the beginning that their prompts share: what is the same in all of them, an instruction
say, is computed once per batch, and nothing is padded.

Every row sees the beginning and itself, at the positions that it has alone, so loss and gradients are those of the rows
apart.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tasks.core.errors import UserError

if TYPE_CHECKING:
    import torch

TOLERANCE = 0.05
"""By how much, in nats, the mean loss of rows together may be another than that of the rows apart: rounding in 16 bits
makes a hundredth, a row that sees another one several tenths."""


def shared_length(rows: Sequence[dict[str, Any]]) -> int:
    """How many tokens the prompts begin with alike. Of each one at least the last is left to its row, for it predicts
    the answer's first token."""
    prompts = [next((at for at, label in enumerate(row["labels"]) if label != -100), 0) for row in rows]
    first = rows[0]["input_ids"]
    for at in range(max(min(prompts) - 1, 0)):
        if any(row["input_ids"][at] != first[at] for row in rows):
            return at
    return max(min(prompts) - 1, 0)


def behind_shared_prefix(rows: Sequence[dict[str, Any]]) -> dict[str, "torch.Tensor"]:
    """The batch of rows (`input_ids`, `labels`, perhaps a `weight`) as one sequence of T tokens.

    `input_ids`, `labels` and `position_ids` are (1, T), `attention_mask` is (1, 1, T, T) and true where a token sees
    another; `weight` (1, T - 1) is that of the row whose token is predicted.
    """
    import torch

    prefix = shared_length(rows)
    tokens, labels = list(rows[0]["input_ids"][:prefix]), [-100] * prefix
    positions, owners, weights = list(range(prefix)), [-1] * prefix, [0.0] * prefix
    for number, row in enumerate(rows):
        own = row["input_ids"][prefix:]
        tokens += own
        # A row's first token is predicted by nothing, certainly not by the row before.
        labels += row["labels"][prefix:] if prefix else [-100, *row["labels"][1:]]
        positions += range(prefix, prefix + len(own))
        owners += [number] * len(own)
        weights += [row.get("weight", 1.0)] * len(own)
    owner = torch.tensor(owners)
    visible = (owner[None, :] == owner[:, None]) | (owner[None, :] == -1)
    batch = {
        "input_ids": torch.tensor([tokens]),
        "labels": torch.tensor([labels]),
        "position_ids": torch.tensor([positions]),
        "attention_mask": visible.tril()[None, None],
    }
    if "weight" in rows[0]:
        batch["weight"] = torch.tensor([weights[1:]], dtype=torch.float32)
    return batch


def check_model(model: Any, rows: Sequence[dict[str, Any]], *, field: str) -> None:
    """Raise UserError where the model's rows see one another all the same: its layers are no attention, look at a
    window, or take no mask of this form. Compares the loss of the two longest rows together with that of each alone."""
    import torch

    rows = [row for row in rows if any(label != -100 for label in row["labels"][1:])]
    rows = sorted(rows, key=lambda row: len(row["input_ids"]), reverse=True)[:2]
    if not rows:
        return
    batch = behind_shared_prefix(rows)
    counts = [sum(label != -100 for label in row["labels"][1:]) for row in rows]
    try:
        with torch.no_grad():
            together = float(_loss(model, batch))
            apart = sum(
                count
                * float(_loss(model, {name: torch.tensor([row[name]]) for name in ("input_ids", "labels")}))
                for count, row in zip(counts, rows, strict=True)
            ) / sum(counts)
    except (RuntimeError, ValueError) as error:
        raise _unfit(model, f"its forward pass says: {error}", field) from error
    if not abs(together - apart) <= TOLERANCE:
        raise _unfit(model, f"their loss is {together:.3f} in the place of {apart:.3f}", field)


def _loss(model: Any, batch: dict[str, "torch.Tensor"]) -> "torch.Tensor":
    loss: torch.Tensor = model(**{name: value.to(model.device) for name, value in batch.items()}).loss
    return loss


def _unfit(model: Any, why: str, field: str) -> UserError:
    return UserError(
        f"rows cannot share a sequence in a model of the kind {model.config.model_type}: {why}",
        field=field,
        mend="choose `length`",
    )
