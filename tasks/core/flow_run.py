"""A flow run: what its stages share (store, launch, tracking), and how a stage becomes a Prefect task."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from pydantic import BaseModel, Field

from tasks.core import sharding
from tasks.core.abandoned_runs import end_abandoned
from tasks.core.artifacts import progress_artifact
from tasks.core.command_line import NAMES_OF_KEYS
from tasks.core.config import PLACEMENT, Config
from tasks.core.credentials import Credential, take_credentials
from tasks.core.fan_out import FanOutConfig, check_fan_out, parts
from tasks.core.interruption import interrupting
from tasks.core.launching.forking import warm_up
from tasks.core.launching.launch import LaunchConfig, check_launch
from tasks.core.mapping import completed
from tasks.core.progress import Progress
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.run import Run
from tasks.core.settings import default_store
from tasks.core.sharding import ShardsConfig, ShardsInputs
from tasks.core.stage import Report, Stage, is_whole
from tasks.core.stage_task import StageCall
from tasks.core.store import Store, fetch
from tasks.core.task_runners import FanOut
from tasks.core.tracking import Tracking, TrackingConfig
from tasks.core.whereabouts import Whereabouts

C = TypeVar("C", bound=Config)
I = TypeVar("I", bound=BaseModel)  # noqa: E741 - config, inputs, result
R = TypeVar("R", bound=BaseModel)


class FlowConfig(Config):
    """What every method's configuration has."""

    store: str = Field("", json_schema_extra=PLACEMENT)
    """Where artifacts are kept: a folder or `s3://…`; empty takes LOOPWRIGHT_STORE, or `.loopwright/store`."""
    tracking: TrackingConfig = TrackingConfig()
    """Where runs are recorded."""
    credentials: tuple[Credential, ...] = Field((), json_schema_extra=PLACEMENT)
    """Prefect's blocks with keys of servers, which become environment variables of the run: `aws-credentials/NAME`, or
    `secret/NAME` that holds a JSON object such as `{"AWS_ENDPOINT_URL": "…"}`."""
    launch: LaunchConfig = LaunchConfig()
    """How the stages that load a model are started."""
    fan_out: FanOutConfig = Field(FanOutConfig(), json_schema_extra=PLACEMENT)
    """Where shards of a data set are worked on side by side."""
    retries: int = Field(1, ge=0, le=10)
    """How often a stage whose process crashed is started again (it resumes from its last checkpoint)."""


@dataclass
class FlowRun(Run):
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
    fan_out: FanOut = field(default_factory=lambda: FanOut(FanOutConfig()))
    """Where calls that do not hang on one another run."""
    iteration_runs: list[str] = field(default_factory=list)
    """MLflow's runs of the iterations that ended."""
    _seconds: dict[str, float] = field(default_factory=dict)
    """What the stages of the present iteration took."""
    _whereabouts: Whereabouts = field(default_factory=Whereabouts)

    def stage(
        self, stage: Stage[C, I, R], config: C, inputs: I, *, label: str = "", training: bool = False
    ) -> R:
        """Run a stage as a Prefect task cached by content; `training` gives it an MLflow run of its own.

        Where the run is to work on shards and the stage can be cut, its parts are run first, and it puts them together.
        """
        stage = self._joining(stage, config, inputs, label)
        call = self._call(stage, config, inputs, label)
        own_run = self._start_training(call.name, stage.name, config) if training else ""
        computed: list[float] = []

        def on_event(event: dict[str, Any]) -> None:
            if "seconds" in event:
                computed.append(event["seconds"])
            elif own_run and "step" in event:
                figures = {key: value for key, value in event.items() if isinstance(value, float)}
                self.tracking.metrics(own_run, figures, step=int(event["step"]))

        try:
            call.as_task(self._record_storage(), self.config.retries, on_event)()
            result = self._whereabouts.here(call.result())
        except BaseException as error:
            if own_run:
                self.tracking.fail(own_run, error)
            raise
        self._count(call, computed[0] if computed else None)
        if own_run:
            self._end_training(own_run, result, cached=not computed)
        return result

    def stages(
        self,
        stage: Stage[C, I, R],
        config: C,
        inputs: Sequence[I],
        *,
        labels: Sequence[str],
        whole: str = "",
        at_once: int = 1,
        each: Callable[[int, R], None] | None = None,
    ) -> list[R]:
        """Run a stage on several inputs, submitted to the flow's task runner as tasks that are cached by content."""
        group, results = uuid4().hex, dict[int, R]()
        calls = [self._call(stage, config, *one, group) for one in zip(inputs, labels, strict=True)]
        at_once = max(at_once, self.fan_out.config.most_at_once)
        # To find results takes no cluster, which would take a minute to start.
        elsewhere = self.fan_out.config.runner != "threads"
        missing = elsewhere and any(not is_whole(self.store, stage, call.key) for call in calls)
        with (
            self._in_all(whole if len(calls) > 1 else "", len(calls)) as count,
            self.fan_out.submitting() if missing else nullcontext(),
            interrupting(group),
        ):
            for number, seconds in completed(calls, self._record_storage(), self.config.retries, at_once):
                results[number] = self._whereabouts.here(calls[number].result())
                self._count(calls[number], seconds)
                count(len(results))
                if each:
                    each(number, results[number])
        return [results[number] for number in range(len(calls))]

    def has(self, stage: Stage[C, I, R], config: C, inputs: I) -> bool:
        """Whether the store holds the stage's result, undamaged."""
        key = stage.key(config, inputs)
        self.store.use(stage.name, key, self.run_id)
        return is_whole(self.store, stage, key)

    @contextmanager
    def iterate(self, number: int) -> Iterator[dict[str, float]]:
        """One iteration: a child run in MLflow; the yielded mapping takes its metrics, recorded in the end."""
        self.iteration, self._seconds = number, {}
        tags = {"iteration": str(number), "stage": "iteration"}
        self.iteration_run_id = self._start(f"iteration {number}", self.run_id, tags)
        values: dict[str, float] = {}
        try:
            yield values
        except BaseException as error:
            self.tracking.fail(self.iteration_run_id, error)
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

    def _joining(self, stage: Stage[C, I, R], config: C, inputs: I, label: str) -> Stage[C, I, R]:
        """The stage itself; or, when its parts have been run, one that puts their results together under its key."""
        rows, plan = self.fan_out.config.shard_rows, stage.sharding
        if not rows or plan is None or self.has(stage, config, inputs):
            return stage
        label = label or stage.name
        asked = plan.cut(config, inputs, _Shards(self, rows, label))
        if len(asked) < 2:
            return stage
        labels = [f"{label} (shard {number} of {len(asked)})" for number in range(1, len(asked) + 1)]
        results = self.stages(stage, config, asked, labels=labels, whole=label)

        @wraps(stage.run)
        def join(config: C, inputs: I, out: Path, report: Report) -> R:
            return plan.join(config, inputs, results, out)

        return replace(stage, run=join, own_process=False, sharding=None)

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

    def _call(
        self, stage: Stage[C, I, R], config: C, inputs: I, label: str, group: str = ""
    ) -> StageCall[C, I, R]:
        key, name = stage.key(config, inputs), self._named(label or stage.name)
        self.store.use(stage.name, key, self.run_id)
        return StageCall(
            stage,
            config,
            inputs,
            key,
            name,
            self.method,
            self.store,
            self.config.launch,
            group,
            takes_slot=not self.fan_out.config.cluster,
        )

    def _named(self, label: str) -> str:
        return (f"iteration {self.iteration}: " if self.iteration else "") + label

    def _count(self, call: StageCall[C, I, R], seconds: float | None) -> None:
        """Record the time that a call took; where an iteration calls a stage more than once, the sum."""
        if seconds is None:
            Progress(call.name).close("already done")
            return
        name = f"time/{call.stage.name}_s"
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds
        timed = {name: self._seconds[name]}
        self.tracking.metrics(self.iteration_run_id or self.run_id, timed, step=self.iteration)

    @contextmanager
    def _in_all(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """Shows how many of several calls have ended; nothing without a label."""
        name = self._named(label)
        progress = Progress(name, progress_artifact(f"{self.method} {name}", name)) if label else None

        def count(done: int) -> None:
            if progress:
                progress({"progress": [done, total], "text": "shards"})

        try:
            yield count
        except BaseException:
            if progress:
                progress.close("failed")
            raise
        if progress:
            progress.close()

    def _record_storage(self) -> Any:
        """Where Prefect keeps the stages' records: beside the artifacts they describe."""
        if not self.store.remote:
            return Path(self.store.root) / "records"
        from prefect.filesystems import RemoteFileSystem

        name = f"loopwright-{self.flow_run_id[:8]}"
        RemoteFileSystem(basepath=f"{self.store.root}/records").save(name, overwrite=True)
        return f"remote-file-system/{name}"


@dataclass(frozen=True)
class _Shards:
    """Cuts data sets for a run, as a stage of its own."""

    run: FlowRun
    rows: int
    label: str

    def __call__(self, ref: DatasetRef) -> list[DatasetRef]:
        if ref.rows <= self.rows:
            return [ref]
        size, whole = ShardsConfig(rows=self.rows), ShardsInputs(rows=ref)
        return self.run.stage(sharding.STAGE, size, whole, label=f"{self.label} (cut)").shards


def check_run(config: FlowConfig) -> None:
    """Take the credentials, and raise UserError when they are not there, when the store cannot be written to, MLflow
    does not answer, Ray cannot be had, or processes cannot be launched as asked."""
    take_credentials(config.credentials)
    check_launch(config.launch)
    check_fan_out(config.fan_out, config)
    Store(config.store or default_store()).check()
    if config.tracking.artifacts:
        Store(config.tracking.artifacts).check("tracking.artifacts")
    if "://" in config.tracking.uri and not config.tracking.uri.startswith("sqlite:"):
        Tracking(config.tracking)


@contextmanager
def open_run(method: str, config: FlowConfig) -> Iterator[FlowRun]:
    """Check the store, begin the MLflow run, and end it with the fate of the block."""
    from prefect.exceptions import Pause
    from prefect.runtime import flow_run as prefect_run

    taken = take_credentials(config.credentials)
    warm_up()
    store = Store(config.store or default_store())
    store.check()
    tracking = Tracking(config.tracking)
    end_abandoned(tracking)
    flow_run_id = str(prefect_run.id or "")
    tags = {"method": method, "prefect.flow_run_id": flow_run_id}
    run_id = tracking.go_on(tags)
    if not run_id:
        run_id = tracking.start(f"{method} {time.strftime('%Y-%m-%d %H:%M')}", tags=tags)
        tracking.params(run_id, config)
    keys = (str(value) for _, part in parts(config) for name, value in part if name.endswith(NAMES_OF_KEYS))
    fan_out = FanOut(config.fan_out, retries=config.retries, keys=(*keys, *taken))
    try:
        with closing(fan_out):
            yield FlowRun(method, config, store, tracking, flow_run_id, run_id, fan_out=fan_out)
    except Pause:  # it waits in Prefect without a process, and goes on under the same id
        tracking.suspend(run_id)
        raise
    except BaseException as error:
        tracking.tag(run_id, "failure", str(error)[:500])
        tracking.fail(run_id, error)
        raise
    tracking.finish(run_id)
