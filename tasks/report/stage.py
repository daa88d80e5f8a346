"""Stage: the report of a loop: one HTML page, its curves as PNG files, its iteration table as CSV."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from tasks.core.config import Config
from tasks.core.digests import folder_digest
from tasks.core.references import Reference
from tasks.core.stage import Report, Stage
from tasks.evaluate import Prediction, bootstrap_interval
from tasks.report.beginning import SET_OUT_FROM, first_iteration, set_out_from
from tasks.report.cases import read_cases
from tasks.report.compare import RESAMPLES, Comparison, changes, difference, pair, read_predictions
from tasks.report.curves import Baseline, draw_curves
from tasks.report.headline import headline
from tasks.report.lineage import chains, read_lineage
from tasks.report.page import Compared, Page, render
from tasks.report.policies import is_reinforced
from tasks.report.policy_headline import policy_headline
from tasks.report.policy_section import read_policies
from tasks.report.records import IterationRecord
from tasks.report.sample_section import read_samples
from tasks.report.samples import is_sampled
from tasks.report.tables import (
    class_changes,
    filter_counts,
    headings,
    iteration_rows,
    readable,
    write_csv,
)
from tasks.report.usage import teacher_usage
from tasks.reward_model.stage import RewardTrainingResult


class ReportConfig(Config):
    """What the report is called and how much it shows."""

    title: str = Field("", max_length=200)
    """Title of the page; empty takes the method's name."""
    method: str = Field("loop", max_length=100)
    """Name of the method."""
    most_rows: int = Field(50, ge=1, le=1000)
    """Most rows shown per table; of more a random choice is shown."""
    confidence: float = Field(0.95, gt=0.0, lt=1.0)
    """Level of the intervals around differences; the evaluation's, so that all intervals have one level."""
    seed: int = Field(0, ge=0, le=2**31)
    """Seed of the bootstrap and of the choice of shown rows."""


class ReportInputs(BaseModel):
    """The loop and what it is compared with."""

    iterations: list[IterationRecord] = Field(min_length=1)
    """All iterations, first to last; each has results on "test"."""
    comparisons: list[Comparison] = Field(default_factory=list)
    """Baselines, tested on the same rows."""
    stopped: str = ""
    """Why the loop ended before its last iteration."""
    cautions: list[str] = Field(default_factory=list)
    """What a reader should know of the data."""
    reward_model: RewardTrainingResult | None = None
    """What rewarded the samples of a loop, where that was learned."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """The flow's configuration, one entry per leaf ("training.learning_rate")."""


class ReportResult(BaseModel):
    """Where the files are, and the iteration table for a terminal."""

    folder: Reference
    """All of them."""
    page: str
    csv: str
    curves: list[str]
    table: list[dict[str, Any]]
    policies: list[dict[str, Any]] = Field(default_factory=list)
    """Where a policy was trained by reinforcement learning: its figures and its start's on held-out prompts."""


def run(config: ReportConfig, inputs: ReportInputs, out: Path, report: Report) -> ReportResult:
    """Write `report.html`, `iterations.csv` and `curves/*.png` beneath `out`, for policies also `policies.csv`.

    Raises UserError when a baseline, or an iteration, was tested on other rows than the last iteration.
    """
    records, sampled = inputs.iterations, is_sampled(inputs.iterations)
    reinforced = is_reinforced(records)
    rows = iteration_rows(records)
    last = read_predictions(records[-1].splits["test"].predictions)
    first = first_iteration(records)
    own = sampled or reinforced
    before = set_out_from(inputs.comparisons, config.confidence, config.seed) if own else None
    beginning = before or first
    if before is not None:
        pairs = pair(before.answers, last, "comparisons")
    else:
        pairs = pair(first.answers, last, "iterations") if len(records) > 1 else []
    compared = [_compare(config, comparison, records[-1], last) for comparison in inputs.comparisons]
    lineage, origins = read_lineage(records, sampled=sampled)
    baselines = [entry.baseline for entry in compared]
    # Of a single training on rewards there is nothing to draw by iteration.
    curves = [] if reinforced else draw_curves(rows, origins, baselines, sampled=sampled)
    shown: dict[str, Any] = {
        "settings": inputs.settings,
        "most": config.most_rows,
        "confidence": config.confidence,
        "seed": config.seed,
    }
    samples = (
        read_samples(records, rows, beginning, first, last, inputs.reward_model, **shown) if sampled else None
    )
    policies = read_policies(records, **shown) if reinforced else None
    trained = policies.figures[-1].record.trained if policies else None
    # Why a training on rewards ended is said by its own cautions.
    ended = inputs.stopped and not (trained and trained.stopped == inputs.stopped)
    cautions = [*([f"The loop ended early: {inputs.stopped}."] if ended else []), *inputs.cautions]
    cautions += samples.cautions if samples else []
    cautions += policies.cautions if policies else []
    change = difference(pairs, config.confidence, config.seed) if pairs else None
    usage, errors = teacher_usage(records)
    words = headline(records, beginning, change, inputs.comparisons, config.confidence, cautions)
    if policies:
        words = policy_headline(policies.figures[-1], config.confidence, words.result, cautions)
    page = Page(
        title=config.title or f"{config.method}: report",
        method=config.method,
        confidence=config.confidence,
        most_rows=config.most_rows,
        headline=words,
        beginning=beginning,
        records=records,
        rows=rows,
        headings=headings(rows, sampled=sampled, reinforced=reinforced),
        compared=compared,
        curves=curves,
        classes=class_changes(beginning.test, records[-1].splits["test"]),
        filter=filter_counts(records),
        cases=read_cases(records, lineage, config.most_rows, config.seed),
        fixed=changes(pairs, fixed=True, most=config.most_rows, seed=config.seed),
        broken=changes(pairs, fixed=False, most=config.most_rows, seed=config.seed),
        chains=chains(records[-1], lineage, config.most_rows, config.seed, sampled=sampled),
        usage=usage,
        errors=errors,
        settings=inputs.settings,
        samples=samples,
        policies=policies,
    )
    (out / "report.html").write_text(render(page), encoding="utf-8")
    write_csv(out / "iterations.csv", rows)
    if policies:
        write_csv(out / "policies.csv", policies.rows)
    (out / "curves").mkdir(exist_ok=True)
    drawn = [*curves, *(samples.curves if samples else ()), *(policies.curves if policies else ())]
    paths = [out / "curves" / f"{curve.name}.png" for curve in drawn]
    for path, curve in zip(paths, drawn, strict=True):
        path.write_bytes(curve.light)
    return ReportResult(
        folder=Reference(uri=str(out), digest=folder_digest(out)),
        page=str(out / "report.html"),
        csv=str(out / "iterations.csv"),
        curves=[str(path) for path in paths],
        table=readable(rows, sampled=sampled, reinforced=reinforced),
        policies=policies.table if policies else [],
    )


def _compare(
    config: ReportConfig, comparison: Comparison, last: IterationRecord, answers: list[Prediction]
) -> Compared:
    theirs = read_predictions(comparison.predictions)
    gap = difference(pair(theirs, answers, "comparisons"), config.confidence, config.seed)
    values = [prediction.value for prediction in theirs]
    low, high = bootstrap_interval(values, config.confidence, RESAMPLES, config.seed)
    accuracy = sum(values) / len(values)
    baseline = Baseline(comparison.name, comparison.steps, comparison.rows, accuracy, low, high)
    # A loop that set out from this very policy has more steps by its nature; its headline speaks of that.
    set_out_from_it = bool(last.selections or last.policy) and comparison.name in SET_OUT_FROM
    fewer_steps = not set_out_from_it and comparison.steps < last.metrics.get("train/steps", 0)
    return Compared(comparison, baseline, gap, fewer_steps)


STAGE = Stage("report", run, ReportConfig, ReportInputs, ReportResult)
