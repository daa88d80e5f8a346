"""Runs whose process was ended: put back into the queue, where the next worker finds them.

A run that is started again reads what its finished stages left, and its training goes on from the last checkpoint.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from deployments.service.config import POOL, ServiceConfig
from deployments.service.stack import call, worker_name

_UNDER_WAY = ["RUNNING", "PENDING"]
_SEEN_TO = timedelta(days=1)

NO_HEARTBEATS = "It sends no heartbeats any more, its process is gone"
"""What the automation in deployments/automations.yaml says of a run that it marks Crashed."""


def under_way(config: ServiceConfig) -> list[dict[str, Any]]:
    """The pool's runs that a worker has taken and that have not ended."""
    return _runs(config, _UNDER_WAY)


def lost(config: ServiceConfig) -> list[dict[str, Any]]:
    """The pool's runs that were found without a process within the last day: older ones were seen to by somebody, or
    given up."""
    oldest = datetime.now(UTC) - _SEEN_TO
    return [
        run
        for run in _runs(config, ["CRASHED"])
        if run["state"]["message"] == NO_HEARTBEATS
        and datetime.fromisoformat(run["state"]["timestamp"]) > oldest
    ]


def _runs(config: ServiceConfig, states: list[str]) -> list[dict[str, Any]]:
    """The pool's newest runs in states of these types."""
    runs = {"state": {"type": {"any_": states}}}
    body = {
        "flow_runs": runs,
        "work_pools": {"name": {"any_": [POOL]}},
        "limit": 200,
        "sort": "START_TIME_DESC",
    }
    return list(call(config, "POST", "/flow_runs/filter", body).raise_for_status().json())


def put_back(config: ServiceConfig, runs: list[dict[str, Any]], why: str) -> list[str]:
    """Schedule runs anew whose process is gone; returns their names. What has ended by itself is left alone."""
    names = []
    for run in runs:
        now = call(config, "GET", f"/flow_runs/{run['id']}").json()
        if now["state"]["type"] not in (*_UNDER_WAY, "CRASHED"):
            continue
        state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": why}
        answer = call(config, "POST", f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})
        answer.raise_for_status()
        names.append(str(run["name"]))
    return names


def other_workers(config: ServiceConfig) -> list[str]:
    """Workers of the pool that are not this machine's: a run under way may be theirs."""
    answer = call(config, "POST", f"/work_pools/{POOL}/workers/filter", {})
    if answer.status_code == 404:  # no pool yet
        return []
    answer.raise_for_status()
    workers = answer.json()
    return [one["name"] for one in workers if one["status"] == "ONLINE" and one["name"] != worker_name()]
