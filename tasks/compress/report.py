"""Stage: the report of a compressor: what it learned from, how well it learned, what compression costs and saves."""

import csv
from base64 import b64encode
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from tasks.compress.drawing import draw_arms
from tasks.compress.measurement import table
from tasks.compress.measuring import MeasurementResult
from tasks.compress.quality import QualityResult
from tasks.compress.training import CompressorTrainingResult
from tasks.core.config import Config
from tasks.core.digests import folder_digest
from tasks.core.examples import read_records
from tasks.core.references import DatasetRef, Reference
from tasks.core.stage import Report, Stage
from tasks.report.compare import difference, pair, read_predictions


class CompressionReportConfig(Config):
    """How much the report shows."""

    most_rows: int = Field(20, ge=1, le=1000)
    """Most pairs shown per table."""
    confidence: float = Field(0.95, gt=0.0, lt=1.0)
    """Level of the intervals around differences."""
    seed: int = Field(0, ge=0, le=2**31)
    """Seed of the bootstrap."""


class CompressionReportInputs(BaseModel):
    """All that was found."""

    quality: QualityResult
    trained: CompressorTrainingResult
    measured: list[MeasurementResult] = Field(default_factory=list)
    """The whole prompts first; empty when nothing was measured downstream."""
    figures: dict[str, float]
    settings: dict[str, Any]


class CompressionReportResult(BaseModel):
    """Where the files are, and the table for a terminal."""

    folder: Reference
    page: str
    table: list[dict[str, Any]]


def run(
    config: CompressionReportConfig, inputs: CompressionReportInputs, out: Path, report: Report
) -> CompressionReportResult:
    """Write report.html, arms.csv and the pictures beneath `out`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    rows = table(inputs.measured)
    for row, change in zip(rows[1:], _changes(config, inputs.measured), strict=True):
        row |= change
    pictures = [Path(path) for path in (*inputs.quality.plots, inputs.trained.calibration_plot)]
    images = {path.name: path.read_bytes() for path in pictures}
    if len(inputs.measured) > 1:
        images["accuracy.png"] = draw_arms(_points(inputs.measured), inputs.measured[0].test.accuracy)
    for name, image in images.items():
        (out / name).write_bytes(image)
    if rows:
        with (out / "arms.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[-1]))
            writer.writeheader()
            writer.writerows(rows)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("report.html.jinja").render(
        rows=rows,
        columns=list(rows[-1]) if rows else [],
        confidence=config.confidence,
        images={name: f"data:image/png;base64,{b64encode(image).decode()}" for name, image in images.items()},
        counts=inputs.quality.counts,
        scores=inputs.trained.held_out,
        figures=dict(sorted(inputs.figures.items())),
        settings=inputs.settings,
        kept=_some(inputs.quality.test, config.most_rows),
        dropped=_some(inputs.quality.dropped, config.most_rows),
    )
    (out / "report.html").write_text(page, encoding="utf-8")
    return CompressionReportResult(
        folder=Reference(uri=str(out), digest=folder_digest(out)),
        page=str(out / "report.html"),
        table=rows,
    )


def _changes(
    config: CompressionReportConfig, measured: Sequence[MeasurementResult]
) -> list[dict[str, float | str]]:
    """Of every arm the paired difference to whole prompts, with its interval."""
    if not measured:
        return []
    whole = read_predictions(measured[0].test.predictions)
    found = list[dict[str, float | str]]()
    for result in measured[1:]:
        pairs = pair(whole, read_predictions(result.test.predictions), "data.test")
        change = difference(pairs, config.confidence, config.seed)
        found.append(
            {
                "less whole": round(change.mean, 4),
                "less whole, low": round(change.low, 4),
                "less whole, high": round(change.high, 4),
            }
        )
    return found


def _points(measured: Sequence[MeasurementResult]) -> dict[str, list[tuple[float, float, float, float]]]:
    points: dict[str, list[tuple[float, float, float, float]]] = {}
    for one in measured[1:]:
        points.setdefault(one.arm, []).append((one.kept, one.test.accuracy, one.test.low, one.test.high))
    return points


def _some(ref: DatasetRef, most: int) -> list[dict[str, Any]]:
    """The first rows, each with what it may lack."""
    lacking = {"compressed": "", "answer": "", "reason": "", "error": "", "variation": 0.0, "gap": 0.0}
    return [lacking | row for row in islice(read_records(ref), most)]


STAGE = Stage(
    "compression_report", run, CompressionReportConfig, CompressionReportInputs, CompressionReportResult
)
