"""Where a compressor's weights are: the folder that is named, the hub, or what was trained last in the store."""

from pathlib import Path

from tasks import base_model
from tasks.base_model import ModelConfig
from tasks.core.compression.token_classifier import check_architecture
from tasks.core.errors import UserError
from tasks.core.generators.load import EngineConfig, check_installed
from tasks.core.references import ModelRef
from tasks.core.settings import default_store
from tasks.core.store import Store, fetch

TRAINING = "compressor_training"
"""The stage that leaves compressors in the store."""


def compressor_folder(model: str, store: str) -> Path:
    """The folder of the compressor that is named, or of the one trained last.

    Raises UserError when there is none, or it cannot be had.
    """
    if model:
        base_model.locate(ModelConfig(model=model), "model")
        return base_model.find_model(ModelConfig(model=model)).folder
    place = Store(store or default_store())
    found = place.newest(TRAINING)
    if found is None:
        raise UserError(
            f"no compressor was trained in {place.root}",
            field="model",
            mend="train one with `python -m flows compress`, or name a folder or a hub model with --model=",
        )
    return fetch(ModelRef.model_validate(found.result["model"]))


def located(engine: EngineConfig, field: str) -> EngineConfig:
    """The engine with its compressor, if it has one, by an address for all machines and by its digest, which is what a
    cache key hangs on.

    Raises UserError, which names `field` (`teacher.engine`), when there is no such compressor, or the engine is not
    installed here.
    """
    check_installed(engine, field=field)
    compressor = engine.compressor
    if not compressor.model:
        return engine
    config, name = ModelConfig(model=compressor.model), f"{field}.compressor.model"
    base_model.locate(config, name)
    folder, uri, digest = base_model.find_model(config)
    check_architecture(folder, name)
    found = compressor.model_copy(update={"model": uri, "digest": digest})
    return engine.model_copy(update={"compressor": found})
