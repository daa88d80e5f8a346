"""The end of a labelling: its rounds, its cost and its labels in MLflow and Prefect, and the flow's result."""

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any

from pydantic import Field

from tasks.core.artifacts import log, markdown_artifact, table_artifact
from tasks.core.examples import read_records
from tasks.core.flow_result import FlowResult
from tasks.core.flow_run import FlowRun
from tasks.core.store import fetch
from tasks.label.choosing import Trial
from tasks.label.config import LabellingConfig
from tasks.label.stage import LabelResult

MOST_TABLE_ROWS = 500


class LabelFlowResult(FlowResult):
    """A flow's result; its iterations are the rounds."""

    words: str
    """Rows, calls and tokens in a sentence or two."""
    trials: list[Trial] = Field(default_factory=list)

    def summary(self) -> str:
        """What was labelled, what it cost, and where everything is."""
        tried = [
            f"tried {one.batch_size:>4} rows, {one.rounds} rounds: {one.accuracy:.1%} right, "
            f"{one.calls_per_row:.3f} calls and {one.prompt_tokens_per_row:.0f} prompt tokens a row"
            for one in self.trials
        ]
        places = [f"{name:>9}  {place}" for name, place in self.places.items()]
        return "\n".join([*tried, self.words, *places])


def show_labels(
    run: FlowRun, labelling: LabellingConfig, trials: Sequence[Trial], result: LabelResult
) -> LabelFlowResult:
    """Publish the labels, and return what the flow returns."""
    for number, one in enumerate(result.rounds, start=1):
        with run.iterate(number) as metrics:
            metrics |= one.metrics()
    figures = result.metrics() | {"label/money": result.cost.money(labelling)}
    run.tracking.metrics(run.run_id, figures)
    rounds = [{"round": number} | one.metrics() for number, one in enumerate(result.rounds, start=1)]
    table_artifact("label rounds", rounds, "What every round asked for and was answered")
    if trials:
        table_artifact("label trials", [one.model_dump() for one in trials], "Settings that were tried out")
    run.tracking.table(run.run_id, list(islice(read_records(result.rows), MOST_TABLE_ROWS)), "labels.json")
    run.tracking.artifact(run.run_id, fetch(result.rows), "labels")
    words = in_words(labelling, result)
    places = {"labels": result.rows.uri}
    markdown_artifact(
        "label report", f"{words}\n\nMLflow run `{run.run_id}`", "What was labelled, at what cost"
    )
    counts = Counter(row["answer"] for row in read_records(result.rows))
    if len(counts) <= MOST_TABLE_ROWS:
        run.tracking.table(run.run_id, _counted(counts), "answers.json")
    log(words)
    return LabelFlowResult(
        flow="label",
        status="completed",
        flow_run_id=run.flow_run_id,
        mlflow_run_id=run.run_id,
        iterations=run.results,
        metrics=figures,
        model=None,
        places=places,
        words=words,
        trials=list(trials),
    )


def in_words(labelling: LabellingConfig, result: LabelResult) -> str:
    """Rows, calls and tokens, against a prompt for every row alone."""
    cost, rows = result.cost, result.rows.rows
    right = ""
    if result.accuracy is not None:
        right = f", {result.accuracy:.1%} right ({result.low:.1%} to {result.high:.1%})"
    spent = cost.money(labelling)
    money = f", {spent:.4f} in money" if spent else ""
    return (
        f"{result.answered} of {rows} rows labelled{right}, in batches of {labelling.batch_size}, "
        f"{len(result.rounds)} rounds: {cost.calls} calls ({saved_or_more(cost.calls_saved)} than one a row), "
        f"{cost.prompt_tokens} prompt tokens ({saved_or_more(cost.prompt_tokens_saved)}, by estimate), "
        f"{cost.completion_tokens} tokens of answers{money}, {cost.seconds:.0f} s."
    )


def saved_or_more(share: float) -> str:
    """A saved share in words; answers that had to be asked for again may have cost more than was saved."""
    return f"{share:.0%} fewer" if share >= 0 else f"{-share:.0%} more"


def _counted(counts: Counter[Any]) -> list[dict[str, Any]]:
    return [{"answer": answer, "rows": number} for answer, number in counts.most_common()]
