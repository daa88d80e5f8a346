"""Checkpoints of a policy's training, exact to the bit: trained weights, optimizer, controller, figures."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from tasks.ppo.kl_control import KLController
from tasks.ppo.roles import LanguageModelRoles
from tasks.ppo.running_moments import RunningMoments
from tasks.ppo.saving import load_trained_weights, save_trained_weights

if TYPE_CHECKING:
    from torch.optim import Optimizer

_OPTIMIZER, _STATE = "optimizer.safetensors", "state.json"


class TrainingState(BaseModel):
    """Where a training stands, beside its tensors."""

    step: int
    """Steps done. Prompts, samples and minibatches of a step hang on its number and the seed alone."""
    controller: dict[str, Any]
    moments: dict[str, float]
    figures: list[dict[str, float]]
    """Of every step done."""


def save_checkpoint(
    folder: Path,
    state: TrainingState,
    roles: LanguageModelRoles,
    optimizer: "Optimizer",
) -> None:
    """Write `folder`/step-N in whole or not at all, and remove what came before it."""
    from safetensors.torch import save_file

    place = folder / f"step-{state.step}"
    torn = folder / f"torn-{state.step}"
    shutil.rmtree(torn, ignore_errors=True)
    save_trained_weights(roles, torn)
    tensors = {
        f"{number}.{name}": tensor.detach().contiguous()
        for number, values in optimizer.state_dict()["state"].items()
        for name, tensor in values.items()
    }
    save_file(tensors, torn / _OPTIMIZER)
    (torn / _STATE).write_text(state.model_dump_json(), encoding="utf-8")
    torn.rename(place)
    for older in _whole(folder)[:-1]:
        shutil.rmtree(older)


def load_checkpoint(
    folder: Path,
    roles: LanguageModelRoles,
    optimizer: "Optimizer",
    controller: KLController,
    moments: RunningMoments,
) -> TrainingState | None:
    """Put everything where the newest checkpoint beneath `folder` had it; None when there is none."""
    from safetensors.torch import load_file

    found = _whole(folder)
    if not found:
        return None
    state = TrainingState.model_validate(json.loads((found[-1] / _STATE).read_text(encoding="utf-8")))
    load_trained_weights(roles, found[-1])
    values: dict[int, dict[str, Any]] = {}
    for name, tensor in load_file(found[-1] / _OPTIMIZER).items():
        number, _, part = name.partition(".")
        values.setdefault(int(number), {})[part] = tensor
    optimizer.load_state_dict({"state": values, "param_groups": optimizer.state_dict()["param_groups"]})
    controller.load_state_dict(state.controller)
    moments.load_state_dict(state.moments)
    return state


def _whole(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), key=lambda path: int(path.name.partition("-")[2]))
