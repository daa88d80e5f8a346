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

ROUNDING = 0.25
"""By how much, in nats, a row's loss may be another than alone: in 16 bits a sequence of another length adds up to a
few hundredths."""

BLIND = 1e-3
"""By how much it may hang on what another row says, in the same places: not at all but for rounding."""


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
    return _layout(rows, shared_length(rows))


def _layout(rows: Sequence[dict[str, Any]], prefix: int) -> dict[str, "torch.Tensor"]:
    import torch

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
    window, or take no mask or positions of this form.

    The loss of one of the two longest rows has to stay what it is alone, within `ROUNDING`, and what it was when the
    other's tokens turn round. So a model that ignores positions is only found where its loss moves by more than that.
    """
    import torch

    rows = [_unweighted(row) for row in rows if any(label != -100 for label in row["labels"][1:])]
    rows = sorted(rows, key=lambda row: len(row["input_ids"]), reverse=True)[:2]
    if not rows:
        return
    model.eval()  # no dropout; a trainer sets it to train again
    *others, row = rows
    prefix = shared_length(rows)
    silent = [other | {"labels": [-100] * len(other["labels"])} for other in others]
    turned = [other | {"input_ids": _turned(other["input_ids"], prefix)} for other in silent]
    try:
        with torch.no_grad():
            alone = _loss(model, {name: torch.tensor([tokens]) for name, tokens in row.items()})
            beside, otherwise = (_loss(model, _layout([*before, row], prefix)) for before in (silent, turned))
    except (RuntimeError, ValueError) as error:
        raise _unfit(model, f"its forward pass says: {error}", field) from error
    if not (abs(beside - alone) <= ROUNDING and abs(otherwise - beside) <= BLIND):
        raise _unfit(model, f"the loss of a row is {alone:.3f} alone, {beside:.3f} beside another", field)


def _turned(tokens: list[int], prefix: int) -> list[int]:
    return tokens[:prefix] + tokens[prefix:][::-1]


def _unweighted(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("input_ids", "labels")}


def _loss(model: Any, batch: dict[str, "torch.Tensor"]) -> float:
    return float(model(**{name: value.to(model.device) for name, value in batch.items()}).loss)


def _unfit(model: Any, why: str, field: str) -> UserError:
    return UserError(
        f"rows cannot share a sequence in a model of the kind {model.config.model_type}: {why}",
        field=field,
        mend="choose `length`",
    )
