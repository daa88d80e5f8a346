"""Tracking: the one shape every method has in MLflow.

A run per flow run, a child per iteration, a grandchild per training. Metrics of an iteration stand on its child, and
on the parent with `step=iteration`, which draws a curve per loop. Every call names its run: MLflow's stack of active
runs is local to a thread, and stages run in threads and processes of their own.
"""

import json
import math
import sqlite3
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from tasks.core.abandoned_runs import process_tags
from tasks.core.config import Config
from tasks.core.errors import UserError
from tasks.core.launching.job import exclusive
from tasks.core.references import DatasetRef
from tasks.core.served_artifacts import FOLDER, SQLITE, reach_served_artifacts
from tasks.core.settings import default_tracking_uri, home, without_password


class TrackingConfig(Config):
    """Where runs are recorded."""

    uri: str = ""
    """MLflow's address; empty takes MLFLOW_TRACKING_URI, or else a SQLite file beside the store."""
    experiment: str = Field("loopwright", min_length=1)
    """MLflow experiment the runs belong to."""
    artifacts: str = ""
    """Where a new experiment keeps its artifacts: a folder or `s3://…`; empty takes a folder beside the SQLite file, or
    what the server says."""


class _Uninterrupted:
    """An MLflow client whose calls run to their end in a thread of their own.

    A signal raises in the main thread only: a call made there can be cut in the middle of a transaction, and the
    database stays locked for the calls that would record the run's end.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlflow")

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)
        return lambda *values, **named: self._thread.submit(call, *values, **named).result()


class Tracking:
    """One experiment on one MLflow server or database."""

    def __init__(self, config: TrackingConfig) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self.uri = config.uri or default_tracking_uri()
        _reach(self.uri)
        self.local = self.uri.startswith(SQLITE)
        """Whether runs are kept in a file."""
        if self.local:
            reach_served_artifacts()
        place = _place(config.artifacts) or ((home() / FOLDER).as_uri() if self.local else None)
        # Of runs that start at once, one makes the tables of a new file.
        with exclusive(Path(self.uri.removeprefix(SQLITE)).parent) if self.local else nullcontext():
            try:
                self.client = _Uninterrupted(MlflowClient(tracking_uri=self.uri))
                experiment = self.client.get_experiment_by_name(config.experiment)
                self.experiment_id = (
                    experiment.experiment_id
                    if experiment
                    else self.client.create_experiment(config.experiment, artifact_location=place)
                )
            except MlflowException as error:
                raise _unreachable(self.uri, error) from error
        if experiment and experiment.lifecycle_stage == "deleted":
            raise UserError(
                f"the experiment {config.experiment} was deleted in MLflow",
                field="tracking.experiment",
                mend="restore it (mlflow experiments restore), or name another one",
            )
        if config.artifacts and experiment and experiment.artifact_location.rstrip("/") != place:
            raise UserError(
                f"the experiment {config.experiment} is there and keeps its artifacts at "
                f"{experiment.artifact_location}",
                field="tracking.artifacts",
                mend="leave it empty, or name another experiment (tracking.experiment)",
            )

    def start(self, name: str, *, parent: str | None = None, tags: Mapping[str, str] | None = None) -> str:
        """Begin a run, tagged with the process that answers for it, and return its id."""
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

        all_tags = process_tags() | dict(tags or {}) | ({MLFLOW_PARENT_RUN_ID: parent} if parent else {})
        return str(self.client.create_run(self.experiment_id, run_name=name, tags=all_tags).info.run_id)

    def suspend(self, run_id: str) -> None:
        """Say that a run waits without a process (SCHEDULED in MLflow)."""
        self.client.update_run(run_id, status="SCHEDULED")

    def go_on(self, tags: Mapping[str, str]) -> str:
        """The id of the suspended run with these tags, which runs again in this process; empty without one."""
        conditions = [
            "attributes.status = 'SCHEDULED'",
            *(f"tags.`{name}` = '{tags[name]}'" for name in tags),
        ]
        for run in self.search(" and ".join(conditions)):
            for name, value in process_tags().items():
                self.tag(run.info.run_id, name, value)
            self.client.update_run(run.info.run_id, status="RUNNING")
            return str(run.info.run_id)
        return ""

    def end_suspended(self, run_id: str) -> None:
        """End, as KILLED, a run that waits without a process and that nobody will start anew."""
        if self.client.get_run(run_id).info.status == "SCHEDULED":
            self.finish(run_id, "KILLED")

    def params(self, run_id: str, config: Config) -> None:
        """Record a configuration, one parameter per leaf ("training.learning_rate")."""
        from mlflow.entities import Param

        leaves = recorded(config)
        pairs = [Param(name, str(value)[:6000]) for name, value in leaves.items()]
        for begin in range(0, len(pairs), 100):  # MLflow's limit per call
            self.client.log_batch(run_id, params=pairs[begin : begin + 100])

    def metrics(self, run_id: str, values: Mapping[str, float], step: int = 0) -> None:
        """Record figures; those that are not finite are left out (MLflow's SQL store refuses some)."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        finite = [
            Metric(name, float(value), now, step) for name, value in values.items() if math.isfinite(value)
        ]
        if finite:
            self.client.log_batch(run_id, metrics=finite)

    def dataset(self, run_id: str, ref: DatasetRef, name: str, context: str) -> None:
        """Record that a run used a data set (`context`: "train", "test")."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        entity = Dataset(
            name=name,
            digest=ref.digest[:36],  # MLflow refuses longer ones
            source_type="local" if "://" not in ref.uri else "fsspec",
            source=json.dumps({"uri": ref.uri}),
            profile=json.dumps({"rows": ref.rows}),
        )
        self.client.log_inputs(run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", context)])])

    def artifact(self, run_id: str, path: Path, folder: str | None = None) -> None:
        """Keep a file, or all files of a folder, with a run."""
        if path.is_dir():
            self.client.log_artifacts(run_id, str(path), folder)
        else:
            self.client.log_artifact(run_id, str(path), folder)

    def table(self, run_id: str, rows: list[dict[str, Any]], file: str) -> None:
        """Keep rows as a table that MLflow's page shows."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        content = {"columns": columns, "data": [[row.get(column) for column in columns] for row in rows]}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / file
            path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
            self.client.log_artifact(run_id, str(path))

    def tag(self, run_id: str, name: str, value: str) -> None:
        """Set a tag of a run."""
        self.client.set_tag(run_id, name, value)

    def search(self, condition: str) -> list[Any]:
        """The experiment's runs that MLflow's condition is true of, as MLflow's entities."""
        found: list[Any] = []
        token = None
        while page := self.client.search_runs([self.experiment_id], condition, page_token=token):
            found += page
            token = page.token
            if not token:
                break
        return found

    def iterations(self, run_id: str) -> list[dict[str, float]]:
        """The figures of a run's iterations that ended, in their order."""
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

        own = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run_id}' and tags.stage = 'iteration'"
        found = self.search(f"{own} and attributes.status = 'FINISHED'")
        return [run.data.metrics for run in sorted(found, key=lambda run: int(run.data.tags["iteration"]))]

    def finish(self, run_id: str, status: str = "FINISHED") -> None:
        """End a run: FINISHED, FAILED or KILLED."""
        self.client.set_terminated(run_id, status)

    def fail(self, run_id: str, error: BaseException) -> None:
        """End a run by what ended its work: FAILED by an error, KILLED by Ctrl-C or SIGTERM, which are none."""
        self.finish(run_id, "FAILED" if isinstance(error, Exception) else "KILLED")


def _place(artifacts: str) -> str:
    """An address as MLflow keeps it."""
    return (
        artifacts.rstrip("/") if "://" in artifacts or not artifacts else Path(artifacts).absolute().as_uri()
    )


def _reach(uri: str) -> None:
    """Open the database or ask the server once: MLflow itself tries again for minutes. Raises UserError."""
    import httpx

    try:
        if uri.startswith(SQLITE):
            file = Path(uri.removeprefix(SQLITE))
            file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(file)) as database:
                database.execute("PRAGMA schema_version")
        elif uri.startswith(("http://", "https://")):
            httpx.get(f"{uri.rstrip('/')}/health", timeout=10)
    except (OSError, sqlite3.Error, httpx.HTTPError, httpx.InvalidURL) as error:
        raise _unreachable(uri, error) from error


def _unreachable(uri: str, error: Exception) -> UserError:
    return UserError(
        without_password(f"MLflow at {uri} does not answer: {str(error).partition(chr(10))[0]}"),
        field="tracking.uri",
        mend="start it, correct the address, or leave the field empty for a SQLite file",
    )


def recorded(config: BaseModel) -> dict[str, Any]:
    """A configuration as it may be shown and kept: a value per leaf ("training.learning_rate"), addresses without users
    and passwords."""
    leaves: dict[str, Any] = without_password(flatten(config.model_dump(mode="json")))
    return leaves


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        flat |= flatten(item, f"{name}.") if isinstance(item, Mapping) else {name: item}
    return flat
