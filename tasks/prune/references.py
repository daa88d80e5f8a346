"""What MLflow refers to: the runs whose results are kept, and the keys that registered models and these runs name."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tasks.core.tracking import Tracking
from tasks.prune.inventory import keys_in

_ALIVE = ("RUNNING", "SCHEDULED")


@dataclass
class Referred:
    """Runs and keys by the reason for which what they use is kept."""

    runs: dict[str, set[str]] = field(default_factory=dict)
    keys: dict[str, set[str]] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    """All runs of this MLflow."""


def referred(tracking: Tracking, recent_runs: int) -> Referred:
    """What registered models, runs under way (or suspended), and the newest runs refer to."""
    registered_runs, registered_keys = _registered(tracking)
    runs = list(_runs(tracking))
    own = sorted(
        (run for run in runs if "stage" not in run.data.tags),
        key=lambda run: run.info.start_time,
        reverse=True,
    )
    kept = {
        "registered model": [run for run in runs if run.info.run_id in registered_runs],
        "run under way": [run for run in runs if run.info.status in _ALIVE],
        "recent run": own[:recent_runs],
    }
    found = Referred(known={run.info.run_id for run in runs})
    for reason, group in kept.items():
        found.runs[reason] = {run.info.run_id for run in group}
        found.keys[reason] = {key for run in group for key in keys_in(_text_of(run))}
    found.keys["registered model"] |= registered_keys
    return found


def _registered(tracking: Tracking) -> tuple[set[str], set[str]]:
    """Of every registered model, and every version of it whatever was decided: its runs, and the keys in its tags."""
    runs, texts = set[str](), list[str]()
    for model in _pages(tracking.client.search_registered_models):
        texts.append(json.dumps(dict(model.tags)))
        for version in _pages(tracking.client.search_model_versions, f"name = '{model.name}'"):
            tags = dict(version.tags)
            texts.append(json.dumps(tags))
            runs |= {str(version.run_id), tags.get("method.run", "")}
    return runs, {key for text in texts for key in keys_in(text)}


def _runs(tracking: Tracking) -> Iterator[Any]:
    """Every run that MLflow has not deleted."""
    experiments = [one.experiment_id for one in _pages(tracking.client.search_experiments)]
    if experiments:
        yield from _pages(tracking.client.search_runs, experiments)


def _pages(search: Any, *values: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(*values, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _text_of(run: Any) -> str:
    """Where a run's model and data sets lie."""
    inputs = [one.dataset.source for one in run.inputs.dataset_inputs] if run.inputs else []
    return json.dumps([dict(run.data.tags), dict(run.data.params), inputs])
