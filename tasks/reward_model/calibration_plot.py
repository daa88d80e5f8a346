"""The calibration of a reward model as a picture."""

from io import BytesIO

from tasks.reward_model.evaluation import PairEvaluation

_GROUND, _TEXT, _GRID, _MAIN, _QUIET = "#ffffff", "#22262b", "#dfe3e8", "#1f56b5", "#5f6b7a"


def draw_calibration(evaluation: PairEvaluation) -> bytes:
    """A PNG: observed frequency over predicted probability, and how many comparisons stand behind each point.

    Equal figures give equal bytes.
    """
    from matplotlib.figure import Figure

    rows = evaluation.calibration
    predicted = [row.predicted for row in rows]
    figure = Figure(figsize=(4.6, 4.4), facecolor=_GROUND, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_QUIET)
        axes.tick_params(colors=_TEXT)
        axes.grid(axis="y", color=_GRID)
        axes.set_axisbelow(True)
    above.plot([0, 1], [0, 1], linestyle="--", color=_QUIET, label="calibrated")
    above.plot(predicted, [row.observed for row in rows], marker="o", color=_MAIN, label="reward model")
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="observed frequency")
    above.legend(frameon=False, loc="upper left")
    above.set_title(
        f"Accuracy {evaluation.accuracy:.1%} on {evaluation.pairs:,} held-out pairs, "
        f"calibration error {evaluation.calibration_error:.3f}",
        fontsize=9,
        color=_TEXT,
    )
    below.bar(predicted, [row.comparisons for row in rows], width=0.05, color=_MAIN)
    below.set(xlabel="predicted probability of being the better answer", ylabel="comparisons")
    image = BytesIO()
    figure.savefig(image, format="png", dpi=150, facecolor=_GROUND, metadata={"Software": None})
    return image.getvalue()
