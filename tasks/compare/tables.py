"""The comparison as tables: parameters that differ, final figures with their intervals, figures by iteration."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.compare.runs import ComparedRun, differing, figures, interval
from tasks.report.wording import figure as written


@dataclass(frozen=True)
class Comparison:
    """What tables and page show; every row has a cell for every run."""

    runs: list[ComparedRun]
    parameters: dict[str, list[str]]
    final: dict[str, list[str]]
    steps: dict[str, list[tuple[int, list[str]]]]
    """Figures that any run has for more than one step: (step, cells) in the order of steps."""


def compare(runs: Sequence[ComparedRun]) -> Comparison:
    """The comparison of runs in their order."""
    names = figures(runs)
    final = {name: [_with_interval(run.final, name) for run in runs] for name in names}
    steps = {name: _by_step(runs, name) for name in names if curve(runs, name)}
    return Comparison(list(runs), differing(runs), final, steps)


def curve(runs: Sequence[ComparedRun], name: str) -> bool:
    """Whether a figure has more than one step in any run, and so a curve."""
    return any(len(run.curves.get(name, ())) > 1 for run in runs)


def _by_step(runs: Sequence[ComparedRun], name: str) -> list[tuple[int, list[str]]]:
    columns = [run.by_step(name) for run in runs]
    steps = sorted({step for column in columns for step in column})
    return [(step, [written(column.get(step)) for column in columns]) for step in steps]


def _with_interval(values: dict[str, float], name: str) -> str:
    ends = interval(values, name)
    text = written(values.get(name))
    return text if ends is None else f"{text} ({written(ends[0])} to {written(ends[1])})"
