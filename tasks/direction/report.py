"""Stage: the report of both directions: one HTML page with the gap as its headline, and its tables as CSV."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from tasks.core.config import Config
from tasks.core.digests import folder_digest
from tasks.core.examples import read_records
from tasks.core.references import Reference
from tasks.core.stage import Report, Stage
from tasks.direction.general import LossChange
from tasks.direction.measured import Measured
from tasks.report.choice import choose
from tasks.report.page import templates
from tasks.report.tables import write_csv
from tasks.report.wording import percent, points, span

MOST_ANSWERS = 40


class DirectionReportConfig(Config):
    """What the page is called and how much it shows."""

    method: str = Field("reverse", max_length=100)
    """Name of the flow."""
    most_answers: int = Field(MOST_ANSWERS, ge=0, le=1000)
    """Wrong answers shown; of more a random choice."""
    seed: int = Field(0, ge=0, le=2**31)
    """Seed of that choice."""


class DirectionReportInputs(BaseModel):
    """Models that were asked the same questions; the last one is what the page is about."""

    measured: list[Measured] = Field(min_length=1)
    general: LossChange | None = None
    settings: dict[str, Any] = Field(default_factory=dict)


class DirectionReportResult(BaseModel):
    """Where the files are, and the tables for a terminal and for Prefect."""

    folder: Reference
    page: str
    headline: str
    models: list[dict[str, Any]]
    relations: list[dict[str, Any]]
    words: list[dict[str, Any]]


def run(
    config: DirectionReportConfig, inputs: DirectionReportInputs, out: Path, report: Report
) -> DirectionReportResult:
    """Write report.html, models.csv, relations.csv and words.csv beneath `out`."""
    measured, last = inputs.measured, inputs.measured[-1]
    tables = {
        "models": [_model_row(one) for one in measured],
        "relations": [
            _group_row("relation", one.name, group) for one in measured for group in one.gap.by_relation
        ],
        "words": [_group_row("words", one.name, group) for one in measured for group in one.gap.by_words],
    }
    for name, rows in tables.items():
        write_csv(out / f"{name}.csv", rows)
    words = headline(measured)
    wrong = [row for row in read_records(last.gap.backward.predictions) if row["value"] < 1]
    page = templates(Path(__file__).parent).get_template("direction.html.jinja")
    text = page.render(
        config=config,
        headline=words,
        cautions=cautions(inputs),
        tables=tables,
        general=inputs.general,
        last=last,
        wrong=len(wrong),
        shown=choose(wrong, config.most_answers, config.seed),
        settings=inputs.settings,
    )
    (out / "report.html").write_text(text, encoding="utf-8")
    folder = Reference(uri=str(out), digest=folder_digest(out))
    return DirectionReportResult(folder=folder, page=str(out / "report.html"), headline=words, **tables)


def headline(measured: list[Measured]) -> str:
    """The gap of the last model in words, and what it was before."""
    first, last = measured[0], measured[-1]
    gap = last.gap
    words = (
        f"The direction gap is {points(gap.gap)} points ({points(gap.low)} to {points(gap.high)}): "
        f"{percent(gap.forward.accuracy)} right in the direction that was taught, "
        f"{percent(gap.backward.accuracy)} in the other"
    )
    if first is last:
        return f"{words}."
    beside = "".join(
        f"; {one.name}: {points(one.gap.gap)} points ({percent(one.gap.backward.accuracy)} in the other direction)"
        for one in measured[1:-1]
    )
    return f"{words}{beside}."


def cautions(inputs: DirectionReportInputs) -> list[str]:
    """What speaks against reading too much into the gap."""
    first, last = inputs.measured[0], inputs.measured[-1]
    found = []
    if last.gap.forward.accuracy < 0.5:
        found.append(
            "Less than half is right in the direction that was taught: a small gap says little then. Train longer."
        )
    if first is not last and first.gap.backward.accuracy > 0.1:
        found.append(
            f"Before any training {percent(first.gap.backward.accuracy)} was right in the other direction: some of "
            "these facts were known, or can be guessed."
        )
    if inputs.general is not None and inputs.general.worse:
        found.append(
            f"The loss on the general texts rose from {inputs.general.before:.3f} to {inputs.general.after:.3f} nats "
            "per token, by more than the choice of texts explains."
        )
    return found


def _model_row(one: Measured) -> dict[str, Any]:
    gap = one.gap
    return {
        "model": one.name,
        "rows": one.rows,
        "steps": one.steps,
        "taught direction": f"{percent(gap.forward.accuracy)} ({span(gap.forward.low, gap.forward.high)})",
        "other direction": f"{percent(gap.backward.accuracy)} ({span(gap.backward.low, gap.backward.high)})",
        "gap, points": f"{points(gap.gap)} ({points(gap.low)} to {points(gap.high)})",
    }


def _group_row(kind: str, model: str, group: Any) -> dict[str, Any]:
    return {
        "model": model,
        kind: group.name,
        "asked forward": group.forward_rows,
        "taught direction": percent(group.forward) if group.forward_rows else "–",
        "asked backward": group.backward_rows,
        "other direction": percent(group.backward) if group.backward_rows else "–",
    }


STAGE = Stage("direction_report", run, DirectionReportConfig, DirectionReportInputs, DirectionReportResult)
