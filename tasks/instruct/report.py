"""Stage: the report of written instructions: operations, a map, samples, and what the rows are good for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from tasks.core.config import Config
from tasks.core.digests import folder_digest
from tasks.core.examples import Example, read_examples, read_records
from tasks.core.references import DatasetRef, Reference
from tasks.core.stage import Report, Stage
from tasks.instruct.drawing import draw_map
from tasks.instruct.mapping import SEEDS, MapResult
from tasks.instruct.stage import OperationFigures
from tasks.instruct.training import BeforeAndAfter
from tasks.report.choice import choose
from tasks.report.compare import pair, read_predictions
from tasks.report.page import templates
from tasks.report.tables import write_csv
from tasks.report.wording import percent, points, span


class InstructReportConfig(Config):
    """How much the page shows."""

    most_samples: int = Field(5, ge=0, le=100)
    """Rows shown of every operation; of more a random choice."""
    most_answers: int = Field(10, ge=0, le=1000)
    """Answers before and after the training that are shown."""
    seed: int = Field(0, ge=0, le=2**31)
    """Seed of these choices."""


class InstructReportInputs(BaseModel):
    """What was written from what, its map, and the test before and after."""

    words: str
    operations: list[OperationFigures]
    seeds: DatasetRef
    rows: DatasetRef
    map: MapResult | None = None
    trained: BeforeAndAfter | None = None
    settings: dict[str, Any] = Field(default_factory=dict)


class InstructReportResult(BaseModel):
    """Where the files are, and the tables for Prefect."""

    folder: Reference
    page: str
    operations: list[dict[str, Any]]
    coverage: list[dict[str, Any]]


def run(
    config: InstructReportConfig, inputs: InstructReportInputs, out: Path, report: Report
) -> InstructReportResult:
    """Write report.html, operations.csv, coverage.csv, clusters.csv and map.png beneath `out`."""
    rows = read_examples(inputs.rows)
    known = {row.id: row for row in (*read_examples(inputs.seeds), *rows)}
    tables = {
        "operations": [_operation_row(one) for one in inputs.operations],
        "coverage": _coverage_rows(inputs.map),
        "clusters": _cluster_rows(inputs.map),
    }
    for name, table in tables.items():
        write_csv(out / f"{name}.csv", table)
    drawn = draw_map(list(read_records(inputs.map.points))) if inputs.map else None
    if drawn:
        (out / "map.png").write_bytes(drawn.light)
    text = (
        templates(Path(__file__).parent)
        .get_template("instruct.html.jinja")
        .render(
            words=inputs.words,
            tables=tables,
            map=inputs.map,
            drawn=[drawn] if drawn else [],
            samples=_samples(config, rows, known),
            trained=inputs.trained,
            changed=_change_in_words(inputs.trained),
            answers=_answers(config, inputs.trained),
            settings=inputs.settings,
        )
    )
    (out / "report.html").write_text(text, encoding="utf-8")
    return InstructReportResult(
        folder=Reference(uri=str(out), digest=folder_digest(out)),
        page=str(out / "report.html"),
        operations=tables["operations"],
        coverage=tables["coverage"],
    )


def _operation_row(one: OperationFigures) -> dict[str, Any]:
    return {
        "operation": one.operation,
        "asked": one.asked,
        "written": one.written,
        "kept": one.kept,
        "share kept": percent(one.kept_share),
        "rejected": ", ".join(f"{count} {reason}" for reason, count in one.rejected.items()),
    }


def _coverage_rows(found: MapResult | None) -> list[dict[str, Any]]:
    return [
        {
            "group": one.group,
            "rows": one.rows,
            "clusters": one.clusters,
            "evenly filled": f"{one.even_clusters:.1f}",
            "likeness to the nearest seed": f"{one.to_seed:.2f}",
            "to the nearest of its own": f"{one.to_own:.2f}" if one.rows > 1 else "–",
        }
        for one in (found.groups if found else [])
    ]


def _cluster_rows(found: MapResult | None) -> list[dict[str, Any]]:
    """The largest cluster first."""
    if not found:
        return []
    counts: dict[int, list[int]] = {number: [0, 0] for number in range(found.clusters)}
    for point in read_records(found.points):
        counts[point["cluster"]][point["group"] != SEEDS] += 1
    order = sorted(range(found.clusters), key=lambda number: -found.sizes[number])
    return [
        {"nearest to the centre": found.names[number], "seeds": counts[number][0], "new": counts[number][1]}
        for number in order
    ]


def _samples(
    config: InstructReportConfig, rows: Sequence[Example], known: dict[str, Example]
) -> dict[str, list[tuple[Example, Example | None]]]:
    """Of every operation some rows, each with the row it was made from where there is one."""
    by_operation: dict[str, list[Example]] = {}
    for row in rows:
        by_operation.setdefault(str(row.facts["operation"]), []).append(row)
    return {
        operation: [
            (row, known.get(row.parent or "")) for row in choose(found, config.most_samples, config.seed)
        ]
        for operation, found in sorted(by_operation.items())
    }


def _change_in_words(trained: BeforeAndAfter | None) -> str:
    if trained is None:
        return ""
    likely = ""
    if trained.logprob_before is not None and trained.logprob_after is not None:
        likely = (
            f" The responses of the test rows have a log-probability of {trained.logprob_after:.1f} on the mean, "
            f"{trained.logprob_before:.1f} before."
        )
    before, after = trained.before, trained.after
    return (
        f"Likeness of the answers to the test rows' responses (ROUGE-L): {percent(before.accuracy)} before, "
        f"{percent(after.accuracy)} ({span(after.low, after.high)}) after {trained.steps} steps; the difference is "
        f"{points(trained.gain)} points ({points(trained.low)} to {points(trained.high)}).{likely}"
    )


def _answers(config: InstructReportConfig, trained: BeforeAndAfter | None) -> list[Any]:
    if trained is None:
        return []
    answers = read_predictions(trained.before.predictions), read_predictions(trained.after.predictions)
    return choose(pair(*answers, field="data.test"), config.most_answers, config.seed)


STAGE = Stage("instruct_report", run, InstructReportConfig, InstructReportInputs, InstructReportResult)
