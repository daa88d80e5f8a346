"""What the flow `compress` returns, and where a person looks next."""

from typing import TYPE_CHECKING, Any

from pydantic import Field

from tasks.compress import report
from tasks.compress.report import CompressionReportConfig, CompressionReportInputs
from tasks.core.artifacts import markdown_artifact, table_artifact
from tasks.core.flow_result import FlowResult
from tasks.core.flow_run import FlowRun
from tasks.core.store import fetch
from tasks.core.tracking import recorded
from tasks.report.show import linked, mlflow_page, prefect_page

if TYPE_CHECKING:
    from tasks.compress.measuring import MeasurementResult
    from tasks.compress.quality import QualityResult
    from tasks.compress.training import CompressorTrainingResult


class CompressionResult(FlowResult):
    """What the flow returns, and prints as the last line of the command."""

    arms: list[dict[str, Any]] = Field(default_factory=list)
    """A row per way to make prompts shorter, and rate."""

    def summary(self) -> str:
        """The arms as a table, how good the encoder is, and where everything is."""
        from rich.console import Console
        from rich.table import Table

        console = Console(width=120, highlight=False)
        with console.capture() as captured:
            if self.arms:
                columns = ("inputs", "accuracy", "low", "high", "kept", "prompt tokens", "answer s")
                table = Table(*columns)
                for row in self.arms:
                    table.add_row(*(str(row[column]) for column in columns))
                console.print(table)
            console.print(
                f"Words that the teacher kept are found with F1 {self.metrics['words/f1_at_rate']:.3f} at its rate "
                f"(random: {self.metrics['words/kept_share']:.3f}); {self.metrics['data/kept']:.0f} of "
                f"{self.metrics['data/generated']:.0f} answers of the teacher were of use."
            )
            for name, place in self.places.items():
                console.print(f"{name:>10}  {place}", soft_wrap=True, markup=False)
        return captured.get()


def show(
    run: FlowRun,
    quality: "QualityResult",
    trained: "CompressorTrainingResult",
    measured: "list[MeasurementResult]",
    confidence: float,
) -> CompressionResult:
    """Write the report, publish it, and return what the flow returns; `confidence` is the level of all intervals."""
    figures = run.results[-1]
    settings = recorded(run.config)
    written = run.stage(
        report.STAGE,
        CompressionReportConfig(confidence=confidence),
        CompressionReportInputs(
            quality=quality, trained=trained, measured=measured, figures=figures, settings=settings
        ),
        label="report",
    )
    run.tracking.artifact(run.run_id, fetch(written.folder), "report")
    run.tracking.tag(run.run_id, "model.uri", trained.model.uri)
    if written.table:
        run.tracking.table(run.run_id, written.table, "arms.json")
        table_artifact(f"{run.method} arms", written.table, "Answers to whole and shorter prompts")
    places = {
        "compressor": trained.model.uri,
        "pairs": quality.train.uri,
        "dropped": quality.dropped.uri,
        "report": written.page,
        "Prefect": prefect_page(run),
        "MLflow": mlflow_page(run),
    }
    text = "\n".join(f"- {name}: {linked(place)}" for name, place in places.items())
    markdown_artifact(f"{run.method} report", f"MLflow run `{run.run_id}`\n\n{text}", "Where everything is")
    return CompressionResult(
        flow=run.method,
        status="completed",
        flow_run_id=run.flow_run_id,
        mlflow_run_id=run.run_id,
        iterations=run.results,
        metrics=figures,
        baselines={result.name: result.metrics() for result in measured},
        model=trained.model,
        places=places,
        arms=written.table,
    )
