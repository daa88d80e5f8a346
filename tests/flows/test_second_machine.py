"""A run that is gone on with on another machine, where the model's folder lies at another place."""

import shutil
from pathlib import Path

import pytest
from prefect import flow
from pydantic import BaseModel

from tasks.core.config import Config
from tasks.core.digests import folder_digest
from tasks.core.errors import DamagedArtifact
from tasks.core.flow_run import FlowConfig, open_run
from tasks.core.references import ModelRef
from tasks.core.stage import Report, Stage
from tasks.core.store import fetch
from tasks.core.tracking import TrackingConfig

pytestmark = pytest.mark.usefixtures("prefect_server")


class Adapted(BaseModel):
    """An adapter on a base."""

    model: ModelRef


class Named(BaseModel):
    """The folder that is named as a model."""

    folder: str


def _find(config: Config, inputs: Named, out: Path, report: Report) -> Adapted:
    folder = Path(inputs.folder)
    return Adapted(model=ModelRef(uri=str(folder), digest=folder_digest(folder)))


def _adapt(config: Config, inputs: Adapted, out: Path, report: Report) -> Adapted:
    (out / "adapter").mkdir()
    (out / "adapter" / "weights").write_text("adapter")
    digest = folder_digest(out / "adapter")
    return Adapted(model=ModelRef(uri=str(out / "adapter"), digest=digest, base=inputs.model))


FIND = Stage("find", _find, Config, Named, Adapted)
ADAPT = Stage("adapt", _adapt, Config, Adapted, Adapted)


def _adapter(work: Path, folder: Path, *, mapped: bool = False) -> ModelRef:
    places = {"uri": f"sqlite:///{work}/mlflow.db"}

    @flow(name="second machine")
    def adapt() -> ModelRef:
        config = FlowConfig(store=str(work / "store"), tracking=TrackingConfig(**places))
        with open_run("second-machine", config) as run:
            found = run.stage(FIND, Config(), Named(folder=str(folder)))
            if mapped:
                return run.stages(ADAPT, Config(), [found], labels=["adapt"])[0].model
            return run.stage(ADAPT, Config(), found).model

    return adapt()


def test_a_cached_adapter_lies_on_the_base_that_this_machine_has(tmp_path):
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    (there / "weights").write_text("base")
    first = _adapter(tmp_path, there)
    assert first.base
    assert first.base.uri == str(there)
    shutil.move(there, here)
    for mapped in (False, True):
        again = _adapter(tmp_path, here, mapped=mapped)
        assert again.uri == first.uri  # it was not adapted again
        assert again.base
        assert fetch(again.base) == here
    with pytest.raises(DamagedArtifact, match="at that place on every machine"):
        fetch(first.base)
