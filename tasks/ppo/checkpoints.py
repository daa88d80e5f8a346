"""Checkpoints of a policy's training, exact to the bit: trained weights, optimizer, controller, figures."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from tasks.ppo.kl_control import KLController
from tasks.ppo.processes import from_first, process_number
from tasks.ppo.roles import LanguageModelRoles
from tasks.ppo.running_moments import RunningMoments
from tasks.ppo.saving import load_trained_weights, save_trained_weights
from tasks.ppo.sharding import ShardedOptimizer, whole_weights

if TYPE_CHECKING:
    from torch.optim import Optimizer

_STATE = "state.json"
_OPTIMIZER = "optimizer.safetensors"


class TrainingState(BaseModel):
    """Where a training stands, beside its tensors."""

    step: int
    """Steps done. Prompts, samples and minibatches of a step hang on its number and the seed alone."""
    controller: dict[str, Any]
    moments: dict[str, float]
    figures: list[dict[str, float]]
    """Of every step done."""
    failure: str = ""
    """Why a verifier failed last."""


def save_checkpoint(
    folder: Path, state: TrainingState, roles: LanguageModelRoles, optimizer: "Optimizer | ShardedOptimizer"
) -> None:
    """Write `folder`/step-N in whole or not at all, and remove what came before it.

    Every process has to call it; the first writes. What is written hangs on neither their number nor the sharding.
    """
    torn = folder / f"torn-{state.step}"
    first, sharded = process_number() == 0, isinstance(optimizer, ShardedOptimizer)
    if not first and not sharded:
        return
    with whole_weights(optimizer):
        if first:
            shutil.rmtree(torn, ignore_errors=True)
            save_trained_weights(roles, torn)
    values = optimizer.state_dict()["state"]
    if not first:
        return
    _save_optimizer(values, torn / _OPTIMIZER)
    (torn / _STATE).write_text(state.model_dump_json(), encoding="utf-8")
    torn.rename(folder / f"step-{state.step}")
    for older in _whole(folder)[:-1]:
        shutil.rmtree(older)


def load_checkpoint(
    folder: Path,
    roles: LanguageModelRoles,
    make: "Callable[[], Optimizer | ShardedOptimizer]",
    controller: KLController,
    moments: RunningMoments,
) -> "tuple[TrainingState | None, Optimizer | ShardedOptimizer]":
    """Put everything where the newest checkpoint beneath `folder` had it, if there is one; its state, and the
    optimizer that `make` makes of the weights as they are then.

    Every process has to call it; the first says which is the newest, for others may see a shared folder as it was.
    """
    newest = from_first(next((path.name for path in reversed(_whole(folder))), None))
    if newest is None:
        return None, make()
    place = folder / newest
    state = TrainingState.model_validate(json.loads((place / _STATE).read_text(encoding="utf-8")))
    load_trained_weights(roles, place)
    optimizer = make()
    optimizer.load_state_dict(optimizer.state_dict() | {"state": _load_optimizer(place / _OPTIMIZER)})
    controller.load_state_dict(state.controller)
    moments.load_state_dict(state.moments)
    return state, optimizer


def _save_optimizer(state: dict[int, dict[str, Any]], file: Path) -> None:
    from safetensors.torch import save_file

    tensors = {
        f"{number}.{name}": tensor.detach().contiguous()
        for number, values in state.items()
        for name, tensor in values.items()
    }
    save_file(tensors, file)


def _load_optimizer(file: Path) -> dict[int, dict[str, Any]]:
    from safetensors.torch import load_file

    state: dict[int, dict[str, Any]] = {}
    for name, tensor in load_file(file).items():
        number, _, part = name.partition(".")
        state.setdefault(int(number), {})[part] = tensor
    return state


def _whole(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), key=lambda path: int(path.name.partition("-")[2]))
