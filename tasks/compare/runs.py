"""The runs that are compared, as MLflow has them: named by id, by name, or by a registered version."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.core.errors import UserError
from tasks.core.tracking import Tracking
from tasks.promotion.registry import ModelRegistry

FIELD = "RUN"
_ID = re.compile(r"[0-9a-f]{32}")
_VERSION = re.compile(r"models:/(?P<name>[^/@:]+)(?:@(?P<alias>[\w.-]+)|/(?P<number>\d+))")
_LOW, _HIGH = "_low", "_high"


@dataclass(frozen=True)
class ComparedRun:
    """One run; `curves` are its figures by name, each as (step, value) in the order of steps."""

    asked: str
    """What it was named by."""
    run_id: str
    name: str
    method: str
    status: str
    parameters: dict[str, str]
    curves: dict[str, list[tuple[int, float]]]

    @property
    def label(self) -> str:
        """What it is called in tables and curves: a name of one's own, or else name and id."""
        return self.asked if self.asked.startswith("models:/") else f"{self.name} ({self.run_id[:6]})"

    @property
    def final(self) -> dict[str, float]:
        """The last value of every figure."""
        return {name: points[-1][1] for name, points in self.curves.items()}

    def by_step(self, figure: str) -> dict[int, float]:
        """The values of a figure by step."""
        return dict(self.curves.get(figure, []))


def read_run(tracking: Tracking, asked: str) -> ComparedRun:
    """The run behind an id, a name, or `models:/NAME@ALIAS`. Raises UserError when there is none, or more than one."""
    run = tracking.client.get_run(_run_id(tracking, asked))
    found = {name: _curve(tracking, run.info.run_id, name) for name in sorted(run.data.metrics)}
    return ComparedRun(
        asked=asked,
        run_id=run.info.run_id,
        name=str(run.info.run_name),
        method=run.data.tags.get("method", ""),
        status=run.info.status,
        parameters=dict(run.data.params),
        curves=found,
    )


def differing(runs: Sequence[ComparedRun]) -> dict[str, list[str]]:
    """The parameters that are not the same in all runs, with the value of each; empty where a run has none."""
    names = sorted({name for run in runs for name in run.parameters})
    values = {name: [run.parameters.get(name, "") for run in runs] for name in names}
    return {name: row for name, row in values.items() if len(set(row)) > 1}


def figures(runs: Sequence[ComparedRun]) -> list[str]:
    """The figures that any run has; the ends of an interval go with what they are the interval of."""
    names = {name for run in runs for name in run.curves}
    ends = {name + end for name in names for end in (_LOW, _HIGH)}
    return sorted(names - ends, key=lambda name: (name.startswith("time/"), name))


def interval(values: dict[str, float], figure: str) -> tuple[float, float] | None:
    """The interval of a figure, where the run has one."""
    low, high = values.get(figure + _LOW), values.get(figure + _HIGH)
    return None if low is None or high is None else (low, high)


def _run_id(tracking: Tracking, asked: str) -> str:
    if (version := _VERSION.fullmatch(asked)) is not None:
        return _run_of_version(tracking, asked, **version.groupdict())
    if _ID.fullmatch(asked):
        found = [run for run in _search(tracking, "") if run.info.run_id == asked]
    else:
        found = [run for run in _search(tracking, "") if run.info.run_name == asked]
    if not found:
        newest = ", ".join(repr(run.info.run_name) for run in _search(tracking, "")[:5])
        raise UserError(
            f"there is no run {asked}",
            field=FIELD,
            mend=f"the newest are {newest}" if newest else "there are none",
        )
    if len(found) > 1:
        ids = ", ".join(run.info.run_id for run in found)
        raise UserError(
            f"{len(found)} runs are named {asked}", field=FIELD, mend=f"give one of their ids: {ids}"
        )
    return str(found[0].info.run_id)


def _run_of_version(tracking: Tracking, asked: str, name: str, alias: str | None, number: str | None) -> str:
    """The run that trained a registered version: that of its method, where `retrain` registered it."""
    registry = ModelRegistry(tracking, name)
    version = registry.at(alias) if alias else None
    if number:
        version = next((one for one in registry.versions() if one.number == number), None)
    if version is None:
        there = ", ".join(one.number for one in registry.versions())
        raise UserError(f"{asked} does not exist", field=FIELD, mend=f"versions of {name}: {there or 'none'}")
    return version.tags.get("method.run") or version.run_id


def _search(tracking: Tracking, condition: str) -> list[Any]:
    """Runs of all experiments, the newest first."""
    experiments = [one.experiment_id for one in tracking.client.search_experiments()]
    found: list[Any] = []
    token = None
    while True:
        page = tracking.client.search_runs(experiments, condition, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _curve(tracking: Tracking, run_id: str, figure: str) -> list[tuple[int, float]]:
    history = tracking.client.get_metric_history(run_id, figure)
    return sorted({one.step: one.value for one in history}.items())
