"""The end of a run that asked in both directions: its report in the store, in MLflow and in Prefect, and its result."""

from itertools import islice

from tasks.core.artifacts import markdown_artifact, table_artifact
from tasks.core.examples import read_records
from tasks.core.flow_result import FlowResult
from tasks.core.flow_run import FlowRun
from tasks.core.store import fetch
from tasks.core.tracking import recorded
from tasks.direction import report
from tasks.direction.measured import DirectionRecord
from tasks.direction.report import DirectionReportConfig, DirectionReportInputs
from tasks.report.show import MOST_TABLE_ROWS, linked, mlflow_page, prefect_page


class DirectionFlowResult(FlowResult):
    """What a flow returns that asked in both directions."""

    headline: str
    """The gap in words."""
    by_relation: list[dict[str, str | int]]
    by_words: list[dict[str, str | int]]

    def summary(self) -> str:
        """The gap, and where everything is."""
        lines = [self.headline, *(f"{name:>9}  {place}" for name, place in self.places.items())]
        return "\n".join(lines)


def show_directions(run: FlowRun, record: DirectionRecord) -> DirectionFlowResult:
    """Write the report, publish it, and return what the flow returns."""
    inputs = DirectionReportInputs(
        measured=record.measured,
        general=record.general,
        settings=recorded(run.config),
    )
    written = run.stage(report.STAGE, DirectionReportConfig(method=run.method), inputs, label="report")
    run.tracking.artifact(run.run_id, fetch(written.folder), "report")
    tables = {"models": written.models, "relations": written.relations, "name lengths": written.words}
    for name, rows in tables.items():
        table_artifact(f"{run.method} {name}", rows, f"Accuracy in both directions: {name}")
    last = record.measured[-1]
    for direction in ("forward", "backward"):
        answers = read_records(getattr(last.gap, direction).predictions)
        columns = ("input", "target", "completion", "value")
        rows = [{name: row[name] for name in columns} for row in islice(answers, MOST_TABLE_ROWS)]
        run.tracking.table(run.run_id, rows, f"{direction}_answers.json")
    metrics = last.metrics() | (record.general.metrics() if record.general else {})
    run.tracking.metrics(run.run_id, metrics)
    places = {"model": record.model.uri} if record.model else {}
    places |= {"data": record.train.uri} if record.train else {}
    places |= {"report": written.page, "Prefect": prefect_page(run), "MLflow": mlflow_page(run)}
    text = "\n".join(f"- {name}: {linked(place)}" for name, place in places.items())
    markdown_artifact(f"{run.method} report", f"MLflow run `{run.run_id}`\n\n{text}", "Where everything is")
    return DirectionFlowResult(
        flow=run.method,
        status="completed",
        flow_run_id=run.flow_run_id,
        mlflow_run_id=run.run_id,
        iterations=run.results or [metrics],
        metrics=metrics,
        baselines={one.name: one.metrics() for one in record.measured[:-1]},
        model=record.model,
        places=places,
        headline=written.headline,
        by_relation=written.relations,
        by_words=written.words,
    )
