"""From a registered model to its weights, and to a folder that MLflow itself can load."""

import json
import re
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

from tasks.core.errors import UserError
from tasks.core.references import ModelRef
from tasks.core.tracking import Tracking, TrackingConfig
from tasks.promotion.registered_version import FIELD, RegisteredVersion
from tasks.promotion.registry import CHAMPION, ModelRegistry
from tasks.promotion.served import SERVED, Served

_ADDRESS = re.compile(r"models:/(?P<name>[^/@:]+)(?:@(?P<alias>[\w.-]+)|/(?P<number>\d+))")


def champion_model(name: str, tracking: TrackingConfig = TrackingConfig()) -> ModelRef:  # noqa: B008 - frozen
    """The weights of a registered model's champion. Raises UserError when there is none."""
    return registered_model(f"models:/{name}@{CHAMPION}", tracking)


def registered_model(
    address: str,
    tracking: TrackingConfig = TrackingConfig(),  # noqa: B008 - frozen
    *,
    field: str = FIELD,
) -> ModelRef:
    """The weights behind `models:/NAME@ALIAS` or `models:/NAME/NUMBER`, in the store that they were left in.

    Raises UserError, which names `field`, for another form of address and for a version that does not exist.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise UserError(
            f"{address} names no registered model", field=field, mend="write models:/NAME@champion"
        )
    registry = ModelRegistry(Tracking(tracking), match["name"])
    found: RegisteredVersion | None
    if match["alias"]:
        found = registry.at(match["alias"])
    else:
        found = next((one for one in registry.versions() if one.number == match["number"]), None)
    if found is None:
        there = [one.number for one in registry.versions()]
        raise UserError(
            f"{address} does not exist",
            field=field,
            mend=f"versions of {match['name']}: {', '.join(there)}; none of them has that alias"
            if there and match["alias"]
            else f"versions of {match['name']}: {', '.join(there) or 'none'}",
        )
    return found.model


def write_served(folder: Path, served: Served) -> None:
    """Write to `folder`, which must not exist, what `mlflow.pyfunc.load_model` needs: the references of weights and
    problem, a signature, and the module that does the work. No weights are copied, and nothing is pickled."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    columns = [
        ColSpec(DataType.string, "input"),
        ColSpec(Array(DataType.string), "choices", required=False),
    ]
    signature = ModelSignature(Schema(columns), Schema([ColSpec(DataType.string, "completion")]))
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "served"
        data.mkdir()
        (data / SERVED).write_text(
            json.dumps(served.model_dump(mode="json"), indent=1, sort_keys=True), encoding="utf-8"
        )
        with warnings.catch_warnings():
            # An example, which it asks for, would load the weights here and now.
            warnings.filterwarnings("ignore", message=".*An input example was not provided")
            mlflow.pyfunc.save_model(
                folder,
                loader_module="tasks.promotion.served",
                data_path=str(data),
                signature=signature,
                pip_requirements=[f"loopwright=={version('loopwright')}"],
            )
