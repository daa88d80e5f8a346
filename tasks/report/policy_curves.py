"""The curves of a training by reinforcement learning, step by step, and how far its reward model can be believed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.core.examples import read_records
from tasks.report.calibration import calibration_curve
from tasks.report.drawing import Colours, Curve, add_legend, make_curve
from tasks.report.policies import PolicyFigures
from tasks.report.wording import decimals
from tasks.reward_model.evaluation import PairEvaluation

Series = tuple[list[int], list[float]]
"""Steps, from 1, and the values of a figure at them."""

LONG = 40
"""A training of more steps has the mean over a twentieth of them drawn over its noisy figures."""
_LEAST_EXPLAINED = -1.0
"""A value function that has just begun may explain less than nothing, and by far; the axis ends here."""


@dataclass(frozen=True)
class _Line:
    """A figure of every step; `colour` is a role of Colours."""

    figure: str
    label: str
    colour: str = "main"
    dashes: str = "-"


@dataclass(frozen=True)
class _Plot:
    """Figures that share a unit."""

    name: str
    title: str
    unit: str
    lines: tuple[_Line, ...]
    least: float | None = None
    """Where the axis of the values ends below."""


REWARD, KL = "reward/mean", "objective/kl"
_PLOTS = (
    _Plot("entropy", "Entropy of the policy", "nats per token", (_Line("policy/entropy_avg", "entropy"),)),
    _Plot(
        "clipped",
        "How much of an update was clipped",
        "share of tokens",
        (
            _Line("policy/clipfrac_avg", "policy"),
            _Line("val/clipfrac_avg", "value function", "other", "--"),
        ),
    ),
    _Plot("moved", "How far an update moved the policy", "nats per token", (_Line("policy/approxkl_avg", "KL"),)),
    _Plot(
        "explained-variance",
        "What the value function explains of the returns",
        "share of the variance",
        (_Line("val/explained_variance", "explained"),),
        _LEAST_EXPLAINED,
    ),
    _Plot("length", "Length of the responses", "tokens", (_Line("val/response_tokens", "length"),)),
)  # fmt: skip


def draw_policy_curves(found: Sequence[PolicyFigures]) -> list[Curve]:
    """For every policy its figures by step, those that were recorded, and the calibration of what was learned from
    preferences. Equal input gives equal bytes."""
    drawn: list[Curve] = []
    for figures in found:
        suffix = f"-{figures.iteration}" if len(found) > 1 else ""
        history = list(read_records(figures.record.trained.history))
        reward, kl = _series(history, REWARD), _series(history, KL)
        if reward[0] and kl[0]:
            drawn.append(_reward_and_kl(reward, kl, suffix))
        for plot in _PLOTS:
            lines = [(line, series) for line in plot.lines if (series := _series(history, line.figure))[0]]
            if lines:
                drawn.append(_plot(plot, lines, suffix))
        evaluations = tested_rewards(figures)
        if evaluations:
            drawn.append(calibration_curve(evaluations, suffix))
    return drawn


def tested_rewards(figures: PolicyFigures) -> dict[str, PairEvaluation]:
    """What was learned from preferences and tested on held-out pairs, by name."""
    learned = {"reward model": figures.record.reward_model, "judge": figures.record.judge}
    return {
        name: result.held_out for name, result in learned.items() if result is not None and result.held_out
    }


def _series(history: Sequence[dict[str, Any]], figure: str) -> Series:
    known = [(step, row[figure]) for step, row in enumerate(history, 1) if row.get(figure) is not None]
    return [step for step, _ in known], [value for _, value in known]


def smooth(values: Sequence[float]) -> list[float]:
    """The mean of each value and those before it, over a twentieth of all; short series stay as they are."""
    width = len(values) // 20 if len(values) > LONG else 1
    return [
        sum(values[max(0, place + 1 - width) : place + 1]) / min(width, place + 1)
        for place in range(len(values))
    ]


def _ends(values: Sequence[float]) -> str:
    return f"from {decimals(values[0])} to {decimals(values[-1])}"


def _draw_series(axes: Any, series: Series, colour: str, dashes: str, label: str) -> None:
    steps, values = series
    marker = "o" if len(values) == 1 else None  # a line needs two ends
    if len(values) > LONG:
        axes.plot(steps, values, color=colour, alpha=0.3, linewidth=0.8)
    axes.plot(steps, smooth(values), color=colour, linestyle=dashes, marker=marker, label=label)


def _step_axis(axes: Any, unit: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.set_xlabel("step")
    axes.set_ylabel(unit)


def _reward_and_kl(reward: Series, kl: Series, suffix: str) -> Curve:
    def draw(axes: Any, colours: Colours) -> None:
        beside = axes.twinx()
        for side in ("top", "left", "bottom"):
            beside.spines[side].set_visible(False)
        beside.spines["right"].set_color(colours.quiet)
        beside.tick_params(colors=colours.text, labelcolor=colours.text)
        beside.set_ylabel("KL, nats per response", color=colours.text)
        _draw_series(axes, reward, colours.main, "-", "reward")
        _draw_series(beside, kl, colours.other, "--", "KL")
        axes.plot([], [], color=colours.other, linestyle="--", label="KL from the start (right)")
        _step_axis(axes, "mean reward")
        add_legend(axes, columns=2)

    title = "Reward and KL by step"
    alt = f"{title}: the mean reward of the responses goes {_ends(reward[1])}, their KL from the start {_ends(kl[1])}."
    return make_curve(f"reward-and-kl{suffix}", title, alt, draw)


def _plot(plot: _Plot, lines: Sequence[tuple[_Line, Series]], suffix: str) -> Curve:
    def draw(axes: Any, colours: Colours) -> None:
        for line, series in lines:
            _draw_series(axes, series, getattr(colours, line.colour), line.dashes, line.label)
        values = [value for _, series in lines for value in series[1]]
        if plot.least is not None and min(values) < plot.least:
            top = max(0.0, *values)
            axes.set_ylim(plot.least, top + 0.05 * (top - plot.least))
        _step_axis(axes, plot.unit)
        if len(lines) > 1:
            add_legend(axes, columns=2)

    words = "; ".join(f"{line.label} {_ends(series[1])}" for line, series in lines)
    return make_curve(f"{plot.name}{suffix}", plot.title, f"{plot.title}, by step: {words}.", draw)
