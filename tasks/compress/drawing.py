"""The pictures of a compressor's making: what was dropped, how it is calibrated, what compression costs."""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any

_GROUND, _TEXT, _GRID, _QUIET = "#ffffff", "#22262b", "#dfe3e8", "#5f6b7a"
_LINES = ("#1f56b5", "#a8480a", "#2b7a3d", "#7a3d8f")


def draw_histogram(values: Sequence[float], most: float, name: str) -> bytes:
    """A PNG of how many pairs have which value, with the value above which they were dropped."""

    def draw(axes: Any) -> None:
        axes.hist(values, bins=40, color=_LINES[0])
        axes.axvline(most, linestyle="--", color=_LINES[1], label=f"dropped above {most:.3f}")
        axes.set(xlabel=name, ylabel="pairs")
        axes.legend(frameon=False)

    return _png(draw)


def draw_calibration(predicted: Sequence[float], observed: Sequence[float], error: float) -> bytes:
    """A PNG: the share of words that the teacher kept over the probability that the encoder gave them."""

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], linestyle="--", color=_QUIET, label="calibrated")
        axes.plot(predicted, observed, marker="o", color=_LINES[0], label=f"encoder (error {error:.3f})")
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability", ylabel="share kept by the teacher")
        axes.legend(frameon=False)

    return _png(draw)


def draw_arms(accuracies: Mapping[str, Sequence[tuple[float, float, float, float]]], full: float) -> bytes:
    """A PNG of accuracy over the share of the tokens that was kept: per arm points of rate, accuracy, low, high."""

    def draw(axes: Any) -> None:
        axes.axhline(full, linestyle="--", color=_QUIET, label="whole prompts")
        for (name, points), colour in zip(accuracies.items(), _LINES, strict=False):
            rates, values, lows, highs = zip(*points, strict=True)
            below = [max(0.0, value - low) for value, low in zip(values, lows, strict=True)]
            above = [max(0.0, high - value) for value, high in zip(values, highs, strict=True)]
            axes.errorbar(rates, values, yerr=[below, above], marker="o", color=colour, label=name, capsize=3)
        axes.set(xlabel="share of the tokens kept", ylabel="accuracy", ylim=(0, None))
        axes.legend(frameon=False, fontsize=8)

    return _png(draw)


def _png(draw: Callable[[Any], None]) -> bytes:
    """Equal figures give equal bytes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.2), facecolor=_GROUND, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_QUIET)
    axes.tick_params(colors=_TEXT)
    axes.grid(axis="y", color=_GRID)
    axes.set_axisbelow(True)
    draw(axes)
    image = BytesIO()
    figure.savefig(image, format="png", dpi=150, facecolor=_GROUND, metadata={"Software": None})
    return image.getvalue()
