"""The comparison as one HTML file that needs no other: tables, and a curve per figure."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.compare.runs import ComparedRun
from tasks.compare.tables import Comparison
from tasks.report.drawing import Colours, Curve, Draw, add_legend, make_curve
from tasks.report.page import templates
from tasks.report.wording import visible

MOST_CURVES = 30
_FIRST = ("eval/", "reward/", "objective/", "held_out/", "data/")
"""What most comparisons are about; other figures follow by name."""
_STYLES = [(colour, dash) for dash in ("-", "--", ":", "-.") for colour in ("main", "other", "quiet")]
MOST_RUNS = len(_STYLES)


def render_comparison(comparison: Comparison) -> str:
    """The page. Names, parameters and figures come from runs, whoever made them: all are escaped."""
    names = sorted(comparison.steps, key=_rank)
    curves = [_draw(comparison.runs, name) for name in names[:MOST_CURVES]]
    template = templates(Path(__file__).parent).get_template("compare.html.jinja")
    return template.render(comparison=comparison, curves=curves, left_out=names[MOST_CURVES:])


def _rank(name: str) -> tuple[int, str]:
    group = next((number for number, start in enumerate(_FIRST) if name.startswith(start)), len(_FIRST))
    return group, name


def _draw(runs: Sequence[ComparedRun], name: str) -> Curve:
    drawn = [run for run in runs if name in run.curves]
    ends = (
        f"{run.label} from {run.curves[name][0][1]:.4g} to {run.curves[name][-1][1]:.4g}" for run in drawn
    )
    title = visible(name)
    return make_curve(name, title, visible(f"{name} by step: {'; '.join(ends)}"), _lines(runs, name))


def _lines(runs: Sequence[ComparedRun], name: str) -> Draw:
    def draw(axes: Any, colours: Colours) -> None:
        from matplotlib.ticker import MaxNLocator

        for run, (colour, dash) in zip(runs, _STYLES, strict=False):
            points = run.curves.get(name, [])
            if points:
                x, y = zip(*points, strict=True)
                style = {"color": getattr(colours, colour), "linestyle": dash, "label": _short(run.label)}
                axes.plot(x, y, marker="o", markersize=3, **style)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        axes.set_xlabel("step")
        add_legend(axes, columns=1 if len(runs) < 4 else 2)

    return draw


def _short(label: str) -> str:
    # matplotlib leaves a label that begins with an underscore out of the legend
    words = " ".join(visible(label).split()).lstrip("_")
    return words if len(words) <= 40 else words[:39] + "…"
