"""The curves, as PNG files: one in light colours to keep, its dark twin for the page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from tasks.report.lineage import Origins
from tasks.report.wording import percent, visible

Row = dict[str, float | int | None]
"""A row of the iteration table."""


@dataclass(frozen=True)
class Baseline:
    """A compared training as the curves show it."""

    name: str
    steps: int
    rows: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Colours:
    """One colour per role; text and lines reach a contrast of 4.5 with the ground."""

    ground: str
    text: str
    grid: str
    main: str
    other: str
    quiet: str


LIGHT = Colours("#ffffff", "#22262b", "#dfe3e8", "#1f56b5", "#a8480a", "#5f6b7a")
DARK = Colours("#16191d", "#e3e6ea", "#353b43", "#8db7ff", "#ffb072", "#9aa5b3")


@dataclass(frozen=True)
class Curve:
    """A drawn curve; `alt` says in words what it shows."""

    name: str
    title: str
    alt: str
    light: bytes
    dark: bytes


def draw_curves(
    rows: Sequence[Row], origins: Sequence[Origins], baselines: Sequence[Baseline]
) -> list[Curve]:
    """All curves for which the iterations have figures. Equal input gives equal bytes."""
    drawn = []
    axes = {"iteration": "iteration", "train_steps": "optimizer steps", "train_rows": "training rows"}
    for column, words in axes.items():
        if all(row[column] is not None for row in rows):
            title = f"Test accuracy by {words}"
            alt = f"{title}: {_ends(rows, column)}. The bars are intervals."
            drawn.append(
                _curve(
                    f"accuracy-by-{words.replace(' ', '-')}",
                    title,
                    alt,
                    _accuracy(rows, column, words, baselines),
                )
            )
    title = "Training rows by origin"
    alt = f"{title}: {origins[0].synthetic:,} synthetic of {_total(origins[0]):,} in the first iteration, "
    alt += f"{origins[-1].synthetic:,} of {_total(origins[-1]):,} in the last."
    drawn.append(_curve("rows-by-origin", title, alt, _origins(origins)))
    if any(row["wrong"] is not None for row in rows):
        title = "Rows answered wrong, generated and kept"
        alt = f"{title}, by iteration. The table of iterations has the numbers."
        drawn.append(_curve("wrong-and-kept", title, alt, _wrong_and_kept(rows)))
    return drawn


def _ends(rows: Sequence[Row], column: str) -> str:
    first, last = (f"{percent(row['accuracy'] or 0)} at {row[column]:,}" for row in (rows[0], rows[-1]))
    return f"from {first} to {last}"


def _total(origins: Origins) -> int:
    return origins.seed + origins.synthetic


def _curve(name: str, title: str, alt: str, draw: Callable[[Any, Colours], None]) -> Curve:
    return Curve(name, title, alt, _png(draw, LIGHT), _png(draw, DARK))


def _png(draw: Callable[[Any, Colours], None], colours: Colours) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.2), facecolor=colours.ground, layout="constrained")
    axes = figure.add_subplot(facecolor=colours.ground)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(colours.quiet)
    axes.tick_params(colors=colours.text, labelcolor=colours.text)
    axes.grid(axis="y", color=colours.grid)
    axes.set_axisbelow(True)
    draw(axes, colours)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(colours.text)
    legend = axes.get_legend()
    for text in legend.get_texts() if legend else ():
        text.set_color(colours.text)
        text.set_parse_math(False)  # names of baselines are plain text, whatever signs they hold
    image = BytesIO()
    figure.savefig(image, format="png", dpi=200, facecolor=colours.ground, metadata={"Software": None})
    return image.getvalue()


def _accuracy(
    rows: Sequence[Row], column: str, words: str, baselines: Sequence[Baseline]
) -> Callable[[Any, Colours], None]:
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
            _legend(axes, columns=2)

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


def _origins(origins: Sequence[Origins]) -> Callable[[Any, Colours], None]:
    def draw(axes: Any, colours: Colours) -> None:
        seed, synthetic = [row.seed for row in origins], [row.synthetic for row in origins]
        x = [row.iteration for row in origins]
        axes.bar(x, seed, width=0.6, color=colours.quiet, label="seed")
        axes.bar(x, synthetic, width=0.6, bottom=seed, color=colours.main, label="synthetic")
        _iterations(axes, "rows")

    return draw


def _wrong_and_kept(rows: Sequence[Row]) -> Callable[[Any, Colours], None]:
    def draw(axes: Any, colours: Colours) -> None:
        for offset, column, colour in (
            (-0.26, "wrong", colours.other),
            (0.0, "generated", colours.quiet),
            (0.26, "kept", colours.main),
        ):
            known = [row for row in rows if row[column] is not None]
            places = [(row["iteration"] or 0) + offset for row in known]
            axes.bar(places, [row[column] for row in known], width=0.24, color=colour, label=column)
        _iterations(axes, "rows")

    return draw


def _iterations(axes: Any, unit: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.set_xlabel("iteration")
    axes.set_ylabel(unit)
    _legend(axes, columns=3)


def _legend(axes: Any, columns: int) -> None:
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False, fontsize=9, borderaxespad=0
    )
