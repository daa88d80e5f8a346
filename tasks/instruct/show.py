"""The end of instruction writing: what every operation brought, samples and data in MLflow and Prefect, the result."""

from itertools import islice

from pydantic import Field

from tasks.core.artifacts import log, markdown_artifact, table_artifact
from tasks.core.examples import read_records
from tasks.core.flow_result import FlowResult
from tasks.core.flow_run import FlowRun
from tasks.core.store import fetch
from tasks.instruct.stage import OperationFigures, WritingResult

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


def show_instructions(run: FlowRun, wanted: int, result: WritingResult) -> InstructFlowResult:
    """Publish the rows, and return what the flow returns."""
    for number, figures in enumerate(result.rounds, start=1):
        with run.iterate(number) as metrics:
            metrics |= figures.metrics()
    run.tracking.metrics(run.run_id, result.metrics())
    operations = [
        {
            "operation": one.operation,
            "asked": one.asked,
            "written": one.written,
            "kept": one.kept,
            "rejected": ", ".join(f"{count} {reason}" for reason, count in one.rejected.items()),
        }
        for one in result.operations
    ]
    table_artifact("instruct operations", operations, "What every operation brought")
    rows = [
        {"operation": row["facts"]["operation"], "instruction": row["input"], "response": row["target"]}
        for row in islice(read_records(result.rows), MOST_TABLE_ROWS)
    ]
    run.tracking.table(run.run_id, rows, "rows.json")
    run.tracking.artifact(run.run_id, fetch(result.chats), "data")
    words = in_words(wanted, result)
    places = {"rows": result.rows.uri, "chats": result.chats.uri}
    markdown_artifact(
        "instruct report", f"{words}\n\nMLflow run `{run.run_id}`", "What was written, at what cost"
    )
    log(words)
    return InstructFlowResult(
        flow="instruct",
        status="completed",
        stopped=result.stopped,
        flow_run_id=run.flow_run_id,
        mlflow_run_id=run.run_id,
        iterations=run.results,
        metrics=result.metrics(),
        model=None,
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
