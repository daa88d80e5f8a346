"""The curves of a loop's iterations, as PNG files: one in light colours to keep, its dark twin for the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.report.drawing import Colours, Curve, Draw, add_legend, iteration_axis, make_curve
from tasks.report.lineage import Origins
from tasks.report.tables import Row
from tasks.report.wording import percent, visible


@dataclass(frozen=True)
class Baseline:
    """A compared training as the curves show it."""

    name: str
    steps: int
    rows: int
    accuracy: float
    low: float
    high: float


def draw_curves(
    rows: Sequence[Row], origins: Sequence[Origins], baselines: Sequence[Baseline], *, sampled: bool = False
) -> list[Curve]:
    """All curves for which the iterations have figures. `sampled`: the rows are a policy's own samples. Equal input
    gives equal bytes."""
    drawn = []
    axes = {"iteration": "iteration", "train_steps": "optimizer steps", "train_rows": "training rows"}
    if sampled:
        # An iteration goes on from a trained policy: its own steps and samples are not all that this one has seen.
        axes = {"iteration": "iteration"}
    for column, words in axes.items():
        if all(row[column] is not None for row in rows):
            title = f"Test accuracy by {words}"
            alt = f"{title}: {_ends(rows, column)}. The bars are intervals."
            name = f"accuracy-by-{words.replace(' ', '-')}"
            drawn.append(make_curve(name, title, alt, _accuracy(rows, column, words, baselines)))
    names = ("training data", "samples") if sampled else ("seed", "synthetic")
    title = "Training rows by origin"
    alt = f"{title}: {origins[0].synthetic:,} {names[1]} of {_total(origins[0]):,} in the first iteration, "
    alt += f"{origins[-1].synthetic:,} of {_total(origins[-1]):,} in the last."
    drawn.append(make_curve("rows-by-origin", title, alt, _origins(origins, names)))
    if sampled and any(row["generated"] is not None for row in rows):
        title = "Samples drawn and kept"
        alt = f"{title}, by iteration. The table of iterations has the numbers."
        drawn.append(make_curve("drawn-and-kept", title, alt, _counts(rows, _DRAWN_AND_KEPT, "samples")))
    elif not sampled and any(row["wrong"] is not None for row in rows):
        title = "Rows answered wrong, generated and kept"
        alt = f"{title}, by iteration. The table of iterations has the numbers."
        drawn.append(make_curve("wrong-and-kept", title, alt, _counts(rows, _WRONG_AND_KEPT, "rows")))
    return drawn


def _ends(rows: Sequence[Row], column: str) -> str:
    first, last = (f"{percent(row['accuracy'] or 0)} at {row[column]:,}" for row in (rows[0], rows[-1]))
    return f"from {first} to {last}"


def _total(origins: Origins) -> int:
    return origins.seed + origins.synthetic


def _accuracy(rows: Sequence[Row], column: str, words: str, baselines: Sequence[Baseline]) -> Draw:
    ordered = sorted(rows, key=lambda row: (row[column] or 0, row["iteration"] or 0))
    x = [row[column] or 0 for row in ordered]
    mean, low, high = (
        [100 * (row[name] or 0) for row in ordered] for name in ("accuracy", "accuracy_low", "accuracy_high")
    )

    def draw(axes: Any, colours: Colours) -> None:
        from matplotlib.ticker import MaxNLocator

        axes.fill_between(x, low, high, color=colours.main, alpha=0.18, linewidth=0)
        axes.errorbar(
            x, mean, yerr=_bars(mean, low, high), color=colours.main, marker="o", capsize=3, label="loop"
        )
        for number, baseline in enumerate(baselines):
            style = {"color": colours.other, "label": _short(baseline.name)}
            if column == "iteration":
                axes.axhline(100 * baseline.accuracy, linestyle=_DASHES[number % len(_DASHES)], **style)
                continue
            place = baseline.steps if column == "train_steps" else baseline.rows
            value, low_end, high_end = (
                100 * share for share in (baseline.accuracy, baseline.low, baseline.high)
            )
            bars = _bars([value], [low_end], [high_end])
            marker = _MARKERS[number % len(_MARKERS)]
            axes.errorbar([place], [value], yerr=bars, fmt=marker, capsize=3, **style)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.set_xlabel(words)
        axes.set_ylabel("test accuracy, %")
        if baselines:
            add_legend(axes, columns=2)

    return draw


def _bars(mean: Sequence[float], low: Sequence[float], high: Sequence[float]) -> list[list[float]]:
    """Lengths of the error bars; rounding may leave an end of an interval of no width beyond its mean."""
    below = [max(0.0, middle - end) for middle, end in zip(mean, low, strict=True)]
    above = [max(0.0, end - middle) for middle, end in zip(mean, high, strict=True)]
    return [below, above]


_DASHES = ("--", ":", "-.")
_MARKERS = ("s", "^", "D", "v")


def _short(name: str) -> str:
    words = " ".join(visible(name).split())
    # matplotlib leaves a label that begins with an underscore out of the legend
    return (words if len(words) <= 24 else words[:23] + "…").lstrip("_")


def _origins(origins: Sequence[Origins], names: tuple[str, str]) -> Draw:
    def draw(axes: Any, colours: Colours) -> None:
        seed, synthetic = [row.seed for row in origins], [row.synthetic for row in origins]
        x = [row.iteration for row in origins]
        axes.bar(x, seed, width=0.6, color=colours.quiet, label=names[0])
        axes.bar(x, synthetic, width=0.6, bottom=seed, color=colours.main, label=names[1])
        iteration_axis(axes, "rows")

    return draw


@dataclass(frozen=True)
class _Bars:
    """One column of the iteration table as bars; `colour` is a role of Colours."""

    column: str
    label: str
    colour: str
    place: float
    width: float = 0.24


_WRONG_AND_KEPT = (
    _Bars("wrong", "wrong", "other", -0.26),
    _Bars("generated", "generated", "quiet", 0.0),
    _Bars("kept", "kept", "main", 0.26),
)
_DRAWN_AND_KEPT = (
    _Bars("generated", "drawn", "quiet", -0.19, 0.36),
    _Bars("kept", "kept", "main", 0.19, 0.36),
)


def _counts(rows: Sequence[Row], columns: Sequence[_Bars], unit: str) -> Draw:
    def draw(axes: Any, colours: Colours) -> None:
        for bars in columns:
            known = [row for row in rows if row[bars.column] is not None]
            places = [(row["iteration"] or 0) + bars.place for row in known]
            heights = [row[bars.column] for row in known]
            axes.bar(places, heights, width=bars.width, color=getattr(colours, bars.colour), label=bars.label)
        iteration_axis(axes, unit)

    return draw
