"""How a stage runs: a plain function first, computed once per content, inside Prefect or without it."""

import fcntl
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel

from tasks.core.config import Config, identity
from tasks.core.digests import code_digest
from tasks.core.errors import DamagedArtifact
from tasks.core.launching.launch import LaunchConfig, launch
from tasks.core.mirrored_checkpoints import FOLDER, mirrored
from tasks.core.store import Manifest, Store

if TYPE_CHECKING:
    from tasks.core.sharding import Sharding

Report = Callable[[dict[str, Any]], None]
"""Takes a stage's live events: metrics ({"step": 3, "train/loss": 0.5}) and progress ({"progress": [3, 10]})."""

C = TypeVar("C", bound=Config)
I = TypeVar("I", bound=BaseModel)  # noqa: E741 - config, inputs, result
R = TypeVar("R", bound=BaseModel)


@dataclass(frozen=True)
class Stage(Generic[C, I, R]):
    """A step of a method. `run(config, inputs, out, report)` writes its files beneath `out`, which is
    empty unless an earlier attempt was killed, and returns a result whose references may lie beneath `out`."""

    name: str
    run: Callable[[C, I, Path, Report], R]
    config: type[C]
    inputs: type[I]
    result: type[R]
    own_process: bool = False
    """True for stages that load a model: they get a process group of their own, and take a GPU slot where there are
    any."""
    distributed: bool = False
    """True for trainings, which share the work among all processes of the launch; other stages get one process."""
    loads_model: Callable[[C, I], bool] | None = None
    """Whether a call loads a model, for stages whose settings may leave that to a server: then no slot is taken."""
    sharding: "Sharding[C, I, R] | None" = None
    """How a call may be cut into several. Its key is the same, and so is its result."""

    def needs_gpu(self, config: C, inputs: I) -> bool:
        """Whether this call has to hold a GPU slot."""
        return self.own_process and (self.loads_model is None or self.loads_model(config, inputs))

    def key(self, config: C, inputs: I) -> str:
        """The cache key: name, code, configuration and the content of the inputs."""
        material = [self.name, code_digest(self.run.__module__), identity(config), identity(inputs)]
        return sha256(json.dumps(material, sort_keys=True, default=str).encode()).hexdigest()[:32]

    def __call__(
        self, config: dict[str, Any], inputs: dict[str, Any], out: Path, report: Report
    ) -> dict[str, Any]:
        """Run on JSON values, as a process of its own does."""
        result = self.run(self.config.model_validate(config), self.inputs.model_validate(inputs), out, report)
        return result.model_dump(mode="json")

    @property
    def address(self) -> str:
        """Where this stage is found, as `module:STAGE`; every stage's module binds it to that name."""
        return f"{self.run.__module__}:STAGE"


def is_whole(store: Store, stage: Stage[C, I, R], key: str) -> bool:
    """True when the result exists and its files are undamaged; a damaged one is named and made to not exist."""
    manifest = store.find(stage.name, key)
    if manifest is None:
        return False
    try:
        store.verify(manifest)
    except DamagedArtifact as damage:
        print(f"{damage}; it will be rebuilt", file=sys.stderr, flush=True)
        store.condemn(stage.name, key)
        return False
    return True


def compute(
    stage: Stage[C, I, R],
    config: C,
    inputs: I,
    store: Store,
    settings: LaunchConfig,
    report: Report,
    slot: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Manifest:
    """The stage's result from the store, or computed now. No Prefect, no MLflow.

    Two callers on one machine that want the same result at once: one computes, the other waits and reads. A model is
    loaded within `slot`, which makes calls that have to share a GPU wait for each other.
    """
    key = stage.key(config, inputs)
    work = store.work_folder(stage.name, key)
    with _one_at_a_time(work.with_suffix(".lock")):
        if is_whole(store, stage, key):
            manifest = store.find(stage.name, key)
            assert manifest is not None
            return manifest
        out = work / "out"
        if not stage.distributed:
            settings = settings.model_copy(update={"processes": 1, "nodes": 1})
        with slot() if stage.needs_gpu(config, inputs) else nullcontext():
            begun = time.monotonic()
            if stage.own_process:
                values = {"config": config.model_dump(mode="json"), "inputs": inputs.model_dump(mode="json")}
                follow = stage.distributed and store.remote and settings.mirror_checkpoints
                with mirrored(store, stage.name, key, work) if follow else nullcontext():
                    result = launch(
                        stage.address,
                        job=work,
                        stage=stage.name,
                        settings=settings,
                        on_event=report,
                        **values,
                    )
            else:
                shutil.rmtree(out, ignore_errors=True)
                out.mkdir(parents=True)
                result = stage.run(config, inputs, out, report).model_dump(mode="json")
            report({"seconds": time.monotonic() - begun})
        manifest = store.publish(stage.name, key, out, result)
        shutil.rmtree(work)
        if store.remote and stage.distributed:
            store.remove(f"{stage.name}/{key}/{FOLDER}")
        return manifest


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # freed by the kernel when the holder dies, however it dies
        yield
