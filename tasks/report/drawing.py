"""How a curve is drawn: the colours of both grounds, the frame, the legend."""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any


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

Draw = Callable[[Any, Colours], None]
"""Draws on matplotlib axes in the colours of one ground."""


@dataclass(frozen=True)
class Curve:
    """A drawn curve; `alt` says in words what it shows."""

    name: str
    title: str
    alt: str
    light: bytes
    dark: bytes


def make_curve(name: str, title: str, alt: str, draw: Draw) -> Curve:
    """The curve on both grounds. Equal input gives equal bytes."""
    return Curve(name, title, alt, _png(draw, LIGHT), _png(draw, DARK))


def _png(draw: Draw, colours: Colours) -> bytes:
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


def iteration_axis(axes: Any, unit: str, columns: int = 3, *, whole: bool = True) -> None:
    """Whole iterations below, `unit` at the side (in `whole` numbers), a legend in so many columns above."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=whole))
    axes.set_xlabel("iteration")
    axes.set_ylabel(unit)
    add_legend(axes, columns)


def add_legend(axes: Any, columns: int) -> None:
    """The legend, above the axes."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False, fontsize=9, borderaxespad=0
    )
