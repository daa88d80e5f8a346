"""The curves of rewards: their histograms before and after the filter, and the reward beside the task score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.report.beginning import Beginning
from tasks.report.drawing import Colours, Curve, Draw, add_legend, iteration_axis, make_curve
from tasks.report.samples import HeldOutReward, Step
from tasks.report.tables import Row
from tasks.report.wording import decimals, percent

MOST_HISTOGRAMS = 6
"""Of more iterations so many are drawn, from the first to the last at equal distances."""


def draw_reward_curves(
    rows: Sequence[Row], steps: Sequence[Step], held_out: HeldOutReward | None, beginning: Beginning
) -> list[Curve]:
    """The reward and the task score by iteration, where a reward was recorded, and a histogram per iteration."""
    drawn = [] if held_out is None and _mean_rewards(rows) is None else [_score(rows, held_out, beginning)]
    return drawn + [_histogram(step) for step in _spread(_last_taken(steps))]


def _mean_rewards(rows: Sequence[Row]) -> list[float] | None:
    known = [value for row in rows if (value := row.get("reward_mean")) is not None]
    return known if len(known) == len(rows) else None


@dataclass(frozen=True)
class _Line:
    """A reward by iteration; `colour` is a role of Colours."""

    label: str
    places: list[int]
    values: list[float]
    colour: str
    dashes: str
    marker: str


def _score(rows: Sequence[Row], held_out: HeldOutReward | None, beginning: Beginning) -> Curve:
    places = [int(row["iteration"] or 0) for row in rows]
    scores = [
        [float(row[name] or 0) for row in rows] for name in ("accuracy", "accuracy_low", "accuracy_high")
    ]
    tested, below = places, "iteration"
    if not beginning.is_iteration:
        tested = [places[0] - 1, *places]
        before = (beginning.test.accuracy, beginning.test.low, beginning.test.high)
        scores = [[first, *later] for first, later in zip(before, scores, strict=True)]
        below = f"iteration ({tested[0]}: {beginning.title.lower()})"
    lines = []
    if held_out is not None:
        values = held_out.values
        if not beginning.is_iteration and held_out.metric in beginning.metrics:
            values = [beginning.metrics[held_out.metric], *values]
        lines.append(
            _Line(f"reward, {held_out.rows} rows", tested[-len(values) :], values, "other", "--", "s")
        )
    samples = _mean_rewards(rows)
    if samples is not None:
        lines.append(_Line("reward, samples", places, samples, "quiet", ":", "^"))
    alt = f"Test accuracy goes from {percent(scores[0][0])} to {percent(scores[0][-1])}"
    for line in lines:
        alt += f"; {line.label}, from {decimals(line.values[0])} to {decimals(line.values[-1])}"

    def draw(axes: Any, colours: Colours) -> None:
        mean, low, high = scores
        axes.fill_between(tested, low, high, color=colours.main, alpha=0.18, linewidth=0)
        axes.plot(tested, mean, color=colours.main, marker="o", label="test accuracy")
        for line in lines:
            look = {"color": getattr(colours, line.colour), "linestyle": line.dashes, "marker": line.marker}
            axes.plot(line.places, line.values, label=line.label, **look)
        iteration_axis(axes, "share right, mean reward", columns=2, whole=False)
        axes.set_xlabel(below)

    return make_curve(
        "reward-and-task-score", "Reward and task score", f"{alt}. The band is an interval.", draw
    )


def _last_taken(steps: Sequence[Step]) -> list[Step]:
    """Of every iteration the last step that was taken, or its last one when none was."""
    chosen: dict[int, Step] = {}
    for step in steps:
        if step.selection.taken or step.iteration not in chosen or not chosen[step.iteration].selection.taken:
            chosen[step.iteration] = step
    return list(chosen.values())


def _spread(steps: Sequence[Step]) -> list[Step]:
    if len(steps) <= MOST_HISTOGRAMS:
        return list(steps)
    gaps = MOST_HISTOGRAMS - 1
    return [steps[round(place * (len(steps) - 1) / gaps)] for place in range(MOST_HISTOGRAMS)]


def _histogram(step: Step) -> Curve:
    before, after = step.selection.before, step.selection.after
    title = f"Rewards in iteration {step.iteration}, {step.level}"
    alt = f"{title}: {before.rows:,} rows with a mean reward of {decimals(before.reward)} before the filter, "
    alt += f"{after.rows:,} after it" + (f", with {decimals(after.reward)}." if after.rows else ".")
    return make_curve(
        f"rewards-iteration-{step.iteration}", title, alt, _bars(before.histogram, after.histogram)
    )


def _bars(before: Sequence[int], after: Sequence[int]) -> Draw:
    def draw(axes: Any, colours: Colours) -> None:
        from matplotlib.ticker import MaxNLocator

        # What is kept is part of what there was: one bar stands in front of the other.
        for counts, colour, label in ((before, colours.quiet, "before"), (after, colours.main, "kept")):
            places = [(part + 0.5) / len(counts) for part in range(len(counts))]
            axes.bar(places, counts, width=0.9 / len(counts), color=colour, label=label)
        axes.set_xlim(0, 1)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.set_xlabel("reward")
        axes.set_ylabel("rows")
        add_legend(axes, columns=2)

    return draw
