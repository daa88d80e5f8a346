"""The calibration of what was learned from preferences, as a picture of the report."""

from collections.abc import Mapping
from typing import Any

from tasks.report.drawing import Colours, Curve, Draw, add_legend, make_curve
from tasks.report.wording import decimals, percent
from tasks.reward_model.evaluation import PairEvaluation


def calibration_curve(evaluations: Mapping[str, PairEvaluation], suffix: str = "") -> Curve:
    """Observed frequency over predicted probability of each model, by its name. Equal input gives equal bytes."""
    title = "Calibration on held-out pairs"
    words = "; ".join(
        f"the {name} is right in {percent(tested.accuracy)} of {tested.pairs:,}, "
        f"its calibration error is {decimals(tested.calibration_error)}"
        for name, tested in evaluations.items()
    )
    return make_curve(f"calibration{suffix}", title, f"{title}: {words}.", _calibrated(evaluations))


def _calibrated(evaluations: Mapping[str, PairEvaluation]) -> Draw:
    looks = {"reward model": ("main", "-", "o"), "judge": ("other", "--", "s")}

    def draw(axes: Any, colours: Colours) -> None:
        axes.plot([0, 1], [0, 1], linestyle=":", color=colours.quiet, label="calibrated")
        for name, tested in evaluations.items():
            colour, dashes, marker = looks[name]
            predicted = [row.predicted for row in tested.calibration]
            observed = [row.observed for row in tested.calibration]
            look = {"color": getattr(colours, colour), "linestyle": dashes, "marker": marker}
            axes.plot(predicted, observed, label=name, clip_on=False, **look)
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.set_xlabel("predicted probability of being the better answer")
        axes.set_ylabel("observed frequency")
        add_legend(axes, columns=3)

    return draw
