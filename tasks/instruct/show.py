"""The end of instruction writing: what every operation brought, samples and data in MLflow and Prefect, the result."""

from itertools import islice

from pydantic import Field

from tasks.core.artifacts import log, markdown_artifact, table_artifact
from tasks.core.examples import read_records
from tasks.core.flow_result import FlowResult
from tasks.core.flow_run import FlowRun
from tasks.core.references import DatasetRef
from tasks.core.store import fetch
from tasks.core.tracking import recorded
from tasks.instruct import report
from tasks.instruct.mapping import MapResult
from tasks.instruct.report import InstructReportConfig, InstructReportInputs
from tasks.instruct.stage import OperationFigures, WritingResult
from tasks.instruct.training import BeforeAndAfter
from tasks.report.show import linked, mlflow_page, prefect_page

MOST_TABLE_ROWS = 500


class InstructFlowResult(FlowResult):
    """A flow's result; its iterations are the rounds."""

    words: str
    """What was written, at what cost, and why it ended."""
    operations: list[OperationFigures] = Field(default_factory=list)

    def summary(self) -> str:
        """What every operation brought, and where everything is."""
        table = [
            f"{one.operation:<18}{one.asked:>6} asked{one.written:>6} written{one.kept:>6} kept ({one.kept_share:.0%})"
            + "".join(f", {count} {reason}" for reason, count in one.rejected.items())
            for one in self.operations
        ]
        places = [f"{name:>9}  {place}" for name, place in self.places.items()]
        return "\n".join([*table, self.words, *places])


def show_instructions(
    run: FlowRun,
    wanted: int,
    seeds: DatasetRef,
    result: WritingResult,
    found: MapResult | None,
    trained: BeforeAndAfter | None,
) -> InstructFlowResult:
    """Write the report, publish it and the rows, and return what the flow returns."""
    for number, figures in enumerate(result.rounds, start=1):
        with run.iterate(number) as metrics:
            metrics |= figures.metrics()
    parts = [part for part in (result, found, trained) if part is not None]
    metrics = {name: value for part in parts for name, value in part.metrics().items()}
    run.tracking.metrics(run.run_id, metrics)
    words = in_words(wanted, result)
    inputs = InstructReportInputs(
        words=words,
        operations=result.operations,
        seeds=seeds,
        rows=result.rows,
        map=found,
        trained=trained,
        settings=recorded(run.config),
    )
    page = run.stage(report.STAGE, InstructReportConfig(), inputs, label="report")
    run.tracking.artifact(run.run_id, fetch(page.folder), "report")
    table_artifact("instruct operations", page.operations, "What every operation brought")
    if page.coverage:
        table_artifact("instruct coverage", page.coverage, "What seeds and operations cover")
    rows = [
        {"operation": row["facts"]["operation"], "instruction": row["input"], "response": row["target"]}
        for row in islice(read_records(result.rows), MOST_TABLE_ROWS)
    ]
    run.tracking.table(run.run_id, rows, "rows.json")
    run.tracking.artifact(run.run_id, fetch(result.chats), "data")
    places = {"model": trained.model.uri} if trained else {}
    places |= {"rows": result.rows.uri, "chats": result.chats.uri, "report": page.page}
    places |= {"Prefect": prefect_page(run), "MLflow": mlflow_page(run)}
    links = "\n".join(f"- {name}: {linked(place)}" for name, place in places.items())
    text = f"{words}\n\nMLflow run `{run.run_id}`\n\n{links}"
    markdown_artifact("instruct report", text, "What was written, at what cost")
    log(words)
    return InstructFlowResult(
        flow="instruct",
        status="completed",
        stopped=result.stopped,
        flow_run_id=run.flow_run_id,
        mlflow_run_id=run.run_id,
        iterations=run.results,
        metrics=metrics,
        model=trained.model if trained else None,
        places=places,
        words=words,
        operations=result.operations,
    )


def in_words(wanted: int, result: WritingResult) -> str:
    """Rows, calls, tokens, variety, and why it ended early."""
    used = result.usage
    money = f", {result.money:.4f} in money" if result.money else ""
    ended = f" Ended early: {result.stopped}." if result.stopped else ""
    return (
        f"{result.rows.rows} of {wanted} rows, {len(result.rounds)} rounds, {used.calls} calls, "
        f"{used.prompt_tokens} tokens of prompts, {used.completion_tokens} of answers{money}; "
        f"different pairs of words {result.distinct_2:.0%}, of the seeds {result.seeds_distinct_2:.0%}.{ended}"
    )
