"""The method that a retraining runs: its settings from its own file, and what a retraining decides in their place."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from tasks.base_model import ModelConfig
from tasks.core.command_line import read_config
from tasks.core.errors import UserError
from tasks.core.flow_run import FlowConfig
from tasks.core.tracking import flatten

C = TypeVar("C", bound=FlowConfig)


def read_method(model: type[C], file: str, settings: Mapping[str, Any]) -> C:
    """The method's configuration: its defaults, a YAML file of it, and single settings by their dotted names
    (`training.epochs`) or nested. Raises UserError, as the method's own command would."""
    single = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in flatten(settings).items()
    }
    arguments = [f"--config={file}"] if file else []
    try:
        return read_config(
            model, "retrain", [*arguments, *(f"--{name}={value}" for name, value in single.items())]
        )
    except UserError as error:
        field = "method_settings" if single else "method_config"
        raise UserError(error.fault, field=field, mend=error.mend) from error


def model_field(config: FlowConfig) -> str:
    """The field of the model that a method makes better."""
    return "student" if "student" in type(config).model_fields else "policy"


def improved_model(config: FlowConfig) -> ModelConfig:
    """The model that a method makes better."""
    found = getattr(config, model_field(config))
    assert isinstance(found, ModelConfig)
    return found


def retraining(config: C, retrain: FlowConfig, train: str, start: str) -> C:
    """The method's configuration with the rows at `train`, the model in the folder `start` (empty leaves its own), and
    store, tracking and launch of the retraining."""
    changes: dict[str, Any] = {name: getattr(retrain, name) for name in FlowConfig.model_fields}
    changes["data"] = config.data.model_copy(update={"train": train})  # type: ignore[attr-defined]
    if start:
        own = improved_model(config)
        changes[model_field(config)] = own.model_copy(update={"model": start, "revision": ""})
    return config.model_copy(update=changes)
