"""The end of a loop: its report in the store, in MLflow and in Prefect, and the flow's result."""

import os
import shlex
import sys
from itertools import islice
from pathlib import Path
from typing import Any

from tasks.core.artifacts import markdown_artifact, table_artifact
from tasks.core.examples import read_records
from tasks.core.flow_result import FlowResult
from tasks.core.flow_run import FlowRun
from tasks.core.references import DatasetRef
from tasks.core.settings import home, without_password
from tasks.core.store import fetch
from tasks.core.tracking import recorded
from tasks.report import stage
from tasks.report.records import IterationRecord, LoopRecord
from tasks.report.stage import ReportConfig, ReportInputs

MOST_TABLE_ROWS = 500


def show_report(run: FlowRun, record: LoopRecord, confidence: float) -> FlowResult:
    """Write the report, publish it, and return what the flow returns; `confidence` is the level of all intervals."""
    inputs = ReportInputs(
        iterations=record.iterations,
        comparisons=record.comparisons,
        stopped=record.stopped,
        cautions=record.cautions,
        reward_model=record.reward_model,
        settings=recorded(run.config),
    )
    settings = ReportConfig(method=run.method, confidence=confidence)
    report = run.stage(stage.STAGE, settings, inputs, label="report")
    run.tracking.artifact(run.run_id, fetch(report.folder), "report")
    for run_id, iteration in zip(run.iteration_runs, record.iterations, strict=True):
        _keep_tables(run, run_id, iteration)
    table_artifact(f"{run.method} iterations", report.table, "What every iteration trained on and reached")
    if report.policies:
        description = "The policy and the one it started from on held-out prompts"
        table_artifact(f"{run.method} policies", report.policies, description)
    last = record.iterations[-1]
    places = {
        "model": last.model.uri,
        "data": last.train.uri,
        "report": report.page,
        "Prefect": prefect_page(run),
        "MLflow": mlflow_page(run),
    }
    text = "\n".join(f"- {name}: {linked(place)}" for name, place in places.items())
    markdown_artifact(f"{run.method} report", f"MLflow run `{run.run_id}`\n\n{text}", "Where everything is")
    run.tracking.tag(run.run_id, "model.uri", last.model.uri)
    run.tracking.tag(run.run_id, "stopped", record.stopped)
    return FlowResult(
        flow=run.method,
        status="completed",
        stopped=record.stopped,
        flow_run_id=run.flow_run_id,
        mlflow_run_id=run.run_id,
        iterations=run.results,
        metrics=run.results[-1],
        baselines={comparison.name: comparison.metrics for comparison in record.comparisons},
        model=last.model,
        places=places,
    )


def _keep_tables(run: FlowRun, run_id: str, iteration: IterationRecord) -> None:
    """The iteration's answers and new rows as tables that MLflow's page shows; all of them lie in the store."""
    answers = islice(read_records(iteration.splits["test"].predictions), MOST_TABLE_ROWS)
    columns = ("input", "target", "completion", "answer", "value")
    run.tracking.table(
        run_id, [{name: row[name] for name in columns} for row in answers], "test_predictions.json"
    )
    if iteration.kept is not None:
        run.tracking.table(run_id, kept_table(iteration.kept), "kept_rows.json")
    if iteration.policy is not None:
        both = islice(read_records(iteration.policy.compared.rows), MOST_TABLE_ROWS)
        run.tracking.table(run_id, list(both), "side_by_side.json")


def kept_table(kept: DatasetRef) -> list[dict[str, Any]]:
    """The first kept rows, the columns that are worth seeing of each; of samples also what the policy answered."""
    rows = list(islice(read_records(kept), MOST_TABLE_ROWS))
    columns: tuple[str, ...] = ("input", "target", "parent")
    if any("completion" in row for row in rows):  # training rows may stand among samples
        columns = ("input", "completion", "reward", "target", "parent")
    return [{name: row.get(name) for name in columns} for row in rows]


def prefect_page(run: FlowRun) -> str:
    """The flow run's page where a server outlives the run, or else the command that opens one."""
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    if settings.api.url and os.environ.get("PREFECT_API_URL"):
        return f"{settings.ui_url or settings.api.url.removesuffix('/api')}/runs/flow-run/{run.flow_run_id}"
    return _command("prefect", "server", "start")


def mlflow_page(run: FlowRun) -> str:
    """The run's page where MLflow is a server, or else the command that opens one."""
    uri = run.tracking.uri
    if uri.startswith(("http://", "https://")):
        uri = without_password(uri)
        return f"{uri.rstrip('/')}/#/experiments/{run.tracking.experiment_id}/runs/{run.run_id}"
    return _command("mlflow", "ui", "--workers", "1", "--backend-store-uri", without_password(uri))


def linked(place: str) -> str:
    """A place in Markdown: a page to follow, or a text to copy."""
    return f"[{place}]({place})" if place.startswith(("http://", "https://")) else f"`{place}`"


def _command(program: str, *arguments: str) -> str:
    """A command to paste: with the environment that it needs, and the program of this installation."""
    beside = Path(sys.executable).with_name(program)
    words = [str(beside) if beside.exists() else program, *arguments]
    prefix = f"PREFECT_HOME={shlex.quote(str(home() / 'prefect'))} " if program == "prefect" else ""
    return prefix + shlex.join(words)
