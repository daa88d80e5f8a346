"""Compare: runs beside each other, as MLflow's compare page, in a table and as one HTML file (`compare RUN RUN …`)."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from tasks.compare.page import MOST_RUNS, render_comparison
from tasks.compare.runs import FIELD, ComparedRun, read_run
from tasks.compare.tables import Comparison, compare
from tasks.core.command_line import read_config
from tasks.core.config import Config
from tasks.core.errors import UserError
from tasks.core.tracking import Tracking, TrackingConfig
from tasks.report.wording import visible

if TYPE_CHECKING:
    from rich.table import Table

USAGE = """python -m flows compare RUN RUN … [--field=value …]
Parameters that differ, final figures with their intervals, figures by iteration, and a page with the curves.
  RUN                  a run's id or name in MLflow, or models:/NAME@champion, models:/NAME/2
Every field, with its bounds, follows."""


class CompareConfig(Config):
    """Compare runs of any methods: their figures have the same names."""

    tracking: TrackingConfig = TrackingConfig()
    """The MLflow that has the runs."""
    page: str = Field("compare.html", min_length=1)
    """The file that the page is written to."""


def run_compare(arguments: Sequence[str]) -> int:
    """Print the tables on standard error and one JSON line on standard output, and write the page. Returns the exit
    code; raises UserError for a mistake."""
    if not arguments or "-h" in arguments or "--help" in arguments:
        print(USAGE, flush=True)
    named = [argument for argument in arguments if not argument.startswith("-")]
    flags = [argument for argument in arguments if argument.startswith("-")]
    config = read_config(CompareConfig, "python -m flows compare", flags if arguments else ["--help"])
    if not 2 <= len(set(named)) <= MOST_RUNS or len(set(named)) < len(named):
        raise UserError(
            f"{len(set(named))} runs are named",
            field=FIELD,
            mend=f"name from two to {MOST_RUNS} different runs: python -m flows compare RUN RUN",
        )
    page = Path(config.page)
    if not page.parent.is_dir():
        raise UserError(
            f"there is no folder {page.parent}", field="page", mend="make it, or name another file"
        )
    tracking = Tracking(config.tracking)
    comparison = compare([read_run(tracking, name) for name in named])
    try:
        page.write_text(render_comparison(comparison), encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{page} cannot be written: {error.strerror}", field="page", mend="name another file"
        ) from error
    _print(comparison, page)
    found = {"runs": [_as_json(run) for run in comparison.runs], "parameters": comparison.parameters}
    print(json.dumps(found | {"page": str(page)}), flush=True)
    return 0


def _as_json(run: ComparedRun) -> dict[str, object]:
    return {
        "run_id": run.run_id,
        "name": run.name,
        "method": run.method,
        "status": run.status,
        "metrics": run.final,
        "curves": run.curves,
    }


def _print(comparison: Comparison, page: Path) -> None:
    from rich.console import Console

    console = Console(file=sys.stderr, width=_width(comparison), highlight=False, markup=False)
    console.print("Parameters that differ")
    console.print(_table("parameter", comparison.runs, list(comparison.parameters.items())))
    console.print("Final figures")
    console.print(_table("figure", comparison.runs, list(comparison.final.items())))
    if comparison.steps:
        console.print("By iteration")
        rows = [
            (f"{name}  {step}", cells) for name, steps in comparison.steps.items() for step, cells in steps
        ]
        console.print(_table("figure and step", comparison.runs, rows))
    console.print(f"Curves: {page}", soft_wrap=True)


def _table(name: str, runs: Sequence[ComparedRun], rows: Sequence[tuple[str, Sequence[str]]]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(name)
    for run in runs:
        table.add_column(Text(visible(run.label)))
    for first, cells in rows:
        table.add_row(*(Text(visible(cell)) for cell in (first, *cells)))
    return table


def _width(comparison: Comparison) -> int:
    """Room for every run, so that a long value is folded and not cut."""
    return 45 + 30 * len(comparison.runs)
