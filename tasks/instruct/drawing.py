"""The map of the instructions: a dot for every text, near others of like meaning, coloured by where it comes from."""

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.instruct.mapping import SEEDS
from tasks.report.drawing import Colours, Curve, add_legend, make_curve

_HUES = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#9c755f", "#76b7b2", "#edc948")


def draw_map(points: Sequence[Mapping[str, Any]]) -> Curve:
    """The map on both grounds; seeds are crosses in grey."""
    groups = sorted({str(point["group"]) for point in points} - {SEEDS})

    def draw(axes: Any, colours: Colours) -> None:
        for number, group in enumerate([SEEDS, *groups]):
            places = [(point["x"], point["y"]) for point in points if point["group"] == group]
            seeds = group == SEEDS
            axes.scatter(
                [x for x, _ in places],
                [y for _, y in places],
                s=14 if seeds else 6,
                marker="x" if seeds else "o",
                linewidths=0.8 if seeds else 0,
                color=colours.quiet if seeds else _HUES[(number - 1) % len(_HUES)],
                label=group,
            )
        axes.set_xticks([])
        axes.set_yticks([])
        add_legend(axes, 3)

    counts = ", ".join(
        f"{sum(point['group'] == group for point in points)} {group}" for group in [SEEDS, *groups]
    )
    return make_curve("map", "Instructions by meaning", f"A dot for each of {counts}.", draw)
