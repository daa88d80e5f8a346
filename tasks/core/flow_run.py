"""A flow run: what its stages share (store, launch, tracking), and how a stage becomes a Prefect task."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, Field

from tasks.core.artifacts import artifact_key, log, progress_artifact
from tasks.core.config import PLACEMENT, Config
from tasks.core.errors import StageFailed
from tasks.core.launching.forking import warm_up
from tasks.core.launching.launch import LaunchConfig
from tasks.core.progress import Progress
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.settings import default_store
from tasks.core.stage import Report, Stage, compute, is_whole
from tasks.core.store import Store, fetch
from tasks.core.tracking import Tracking, TrackingConfig

C = TypeVar("C", bound=Config)
I = TypeVar("I", bound=BaseModel)  # noqa: E741 - config, inputs, result
R = TypeVar("R", bound=BaseModel)


class FlowConfig(Config):
    """What every method's configuration has."""

    store: str = Field("", json_schema_extra=PLACEMENT)
    """Where artifacts are kept: a folder or `s3://…`; empty takes LOOPWRIGHT_STORE, or `.loopwright/store`."""
    tracking: TrackingConfig = TrackingConfig()
    """Where runs are recorded."""
    launch: LaunchConfig = LaunchConfig()
    """How the stages that load a model are started."""
    retries: int = Field(1, ge=0, le=10)
    """How often a stage whose process crashed is started again (it resumes from its last checkpoint)."""


class Run(Protocol):
    """What a loop needs of the run it belongs to: how stages are run, and where its figures go."""

    iteration: int

    def stage(
        self, stage: Stage[C, I, R], config: C, inputs: I, *, label: str = "", training: bool = False
    ) -> R:
        """The stage's result, computed or found."""
        ...

    def iterate(self, number: int) -> AbstractContextManager[dict[str, float]]:
        """One iteration; the mapping takes its metrics."""
        ...

    def dataset(self, ref: DatasetRef, context: str) -> None:
        """Record that the run uses a data set."""
        ...


@dataclass
class FlowRun:
    """One run of a method; `iteration` is the number of the present one, 0 outside the loop."""

    method: str
    config: FlowConfig
    store: Store
    tracking: Tracking
    flow_run_id: str
    run_id: str
    iteration: int = 0
    iteration_run_id: str = ""
    results: list[dict[str, float]] = field(default_factory=list)
    iteration_runs: list[str] = field(default_factory=list)
    """MLflow's runs of the iterations that ended."""

    def stage(
        self, stage: Stage[C, I, R], config: C, inputs: I, *, label: str = "", training: bool = False
    ) -> R:
        """Run a stage as a Prefect task cached by content; `training` gives it an MLflow run of its own."""
        from prefect import task

        key = stage.key(config, inputs)
        name = (f"iteration {self.iteration}: " if self.iteration else "") + (label or stage.name)
        own_run = self._start_training(name, stage.name, config) if training else ""
        computed: list[str] = []

        def work() -> dict[str, Any]:
            computed.append(key)
            with self._showing(name, stage.name, own_run) as report:
                compute(stage, config, inputs, self.store, self.config.launch, report)
            return {"key": key}

        cached_task = task(
            name=stage.name,
            task_run_name=name,
            persist_result=True,
            result_serializer="json",
            result_storage=self._record_storage(),
            cache_key_fn=lambda context, parameters: f"{stage.name}-{key}",
            refresh_cache=not is_whole(self.store, stage, key),
            retries=self.config.retries,
            retry_delay_seconds=2,
            retry_condition_fn=_crashed,
        )(work)
        try:
            cached_task()
            # From the manifest and not from Prefect's record: it knows where the store lies now.
            manifest = self.store.find(stage.name, key)
            assert manifest is not None
            result = stage.result.model_validate(manifest.result)
        except BaseException:
            if own_run:
                self.tracking.finish(own_run, "FAILED")
            raise
        if not computed:
            Progress(name).close("already done")
        if own_run:
            self._end_training(own_run, result, cached=not computed)
        return result

    @contextmanager
    def iterate(self, number: int) -> Iterator[dict[str, float]]:
        """One iteration: a child run in MLflow; the yielded mapping takes its metrics, recorded in the end."""
        self.iteration = number
        tags = {"iteration": str(number), "stage": "iteration"}
        self.iteration_run_id = self._start(f"iteration {number}", self.run_id, tags)
        values: dict[str, float] = {}
        try:
            yield values
        except BaseException:
            self.tracking.finish(self.iteration_run_id, "FAILED")
            raise
        for run_id in (self.iteration_run_id, self.run_id):
            self.tracking.metrics(run_id, values, step=number)
        self.tracking.finish(self.iteration_run_id)
        self.results.append(values)
        self.iteration_runs.append(self.iteration_run_id)
        self.iteration, self.iteration_run_id = 0, ""

    def dataset(self, ref: DatasetRef, context: str) -> None:
        """Record in MLflow that the present iteration, or the run, uses a data set."""
        self.tracking.dataset(self.iteration_run_id or self.run_id, ref, f"{self.method}-{context}", context)

    def _start(self, name: str, parent: str, tags: dict[str, str]) -> str:
        tags = {"method": self.method, "prefect.flow_run_id": self.flow_run_id} | tags
        return self.tracking.start(name, parent=parent, tags=tags)

    def _start_training(self, name: str, stage: str, config: Config) -> str:
        tags = {"stage": stage, "iteration": str(self.iteration)}
        run_id = self._start(name, self.iteration_run_id or self.run_id, tags)
        self.tracking.params(run_id, config)
        return run_id

    def _end_training(self, run_id: str, result: BaseModel, *, cached: bool) -> None:
        """Adapters are small and become artifacts of the run; full weights stay in the store, their address tagged."""
        model = getattr(result, "model", None)
        if isinstance(model, ModelRef):
            self.tracking.tag(run_id, "model.uri", model.uri)
            self.tracking.tag(run_id, "model.digest", model.digest)
            if model.base is not None:
                self.tracking.artifact(run_id, fetch(model), "adapter")
        self.tracking.tag(run_id, "cached", str(cached).lower())
        self.tracking.finish(run_id)

    @contextmanager
    def _showing(self, name: str, stage: str, own_run: str) -> Iterator[Report]:
        progress = Progress(name, progress_artifact(artifact_key(f"{self.method} {name}"), name))

        def report(event: dict[str, Any]) -> None:
            progress(event)
            if "seconds" in event:
                timed = {f"time/{stage}_s": event["seconds"]}
                self.tracking.metrics(self.iteration_run_id or self.run_id, timed, step=self.iteration)
            elif own_run and "step" in event:
                figures = {key: value for key, value in event.items() if isinstance(value, float)}
                self.tracking.metrics(own_run, figures, step=int(event["step"]))

        begun = time.monotonic()
        try:
            yield report
        except BaseException:
            progress.close("failed")
            raise
        progress.close()
        log(f"{name}: {time.monotonic() - begun:.1f} s")

    def _record_storage(self) -> Any:
        """Where Prefect keeps the stages' records: beside the artifacts they describe."""
        if not self.store.remote:
            return Path(self.store.root) / "records"
        from prefect.filesystems import RemoteFileSystem

        name = f"loopwright-{self.flow_run_id[:8]}"
        RemoteFileSystem(basepath=f"{self.store.root}/records").save(name, overwrite=True)
        return f"remote-file-system/{name}"


def _crashed(task: Any, run: Any, state: Any) -> bool:
    """A user's mistake, a lack of memory or a time-out comes back the same; a crash or a kill need not."""
    failure = state.result(raise_on_failure=False)
    return isinstance(failure, StageFailed) and failure.passing


def check_run(config: FlowConfig) -> None:
    """Raise UserError when the store cannot be written to or MLflow does not answer."""
    Store(config.store or default_store()).check()
    if "://" in config.tracking.uri and not config.tracking.uri.startswith("sqlite:"):
        Tracking(config.tracking)


@contextmanager
def open_run(method: str, config: FlowConfig) -> Iterator[FlowRun]:
    """Check the store, begin the MLflow run, and end it with the fate of the block."""
    from prefect.runtime import flow_run as prefect_run

    warm_up()
    store = Store(config.store or default_store())
    store.check()
    tracking = Tracking(config.tracking)
    flow_run_id = str(prefect_run.id or "")
    tags = {"method": method, "prefect.flow_run_id": flow_run_id}
    run_id = tracking.start(f"{method} {time.strftime('%Y-%m-%d %H:%M')}", tags=tags)
    tracking.params(run_id, config)
    try:
        yield FlowRun(method, config, store, tracking, flow_run_id, run_id)
    except BaseException as error:
        tracking.tag(run_id, "failure", str(error)[:500])
        tracking.finish(run_id, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    tracking.finish(run_id)
