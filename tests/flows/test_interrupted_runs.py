"""Which runs of the service are put back into the queue, on a real Prefect server: those of a process that is gone."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

import deployments.service.down as stopping
import deployments.service.interrupted as interrupted
from deployments.service import up as starting
from deployments.service.config import POOL, ServiceConfig
from deployments.service.down import down
from deployments.service.interrupted import NO_HEARTBEATS, lost, put_back, under_way
from deployments.service.stack import WORKER, worker_name

pytestmark = pytest.mark.flow


@pytest.fixture
def config(prefect_server: str, tmp_path: Path) -> ServiceConfig:
    port = int(prefect_server.removesuffix("/api").rpartition(":")[2])
    config = ServiceConfig(home=tmp_path, prefect_port=port)
    config.state.mkdir(parents=True)
    return config


@pytest.fixture
def post(prefect_server: str) -> Any:
    def post(path: str, **body: object) -> dict[str, Any]:
        answer = httpx.post(f"{prefect_server}{path}", json=body, timeout=60)
        if answer.status_code != 409:
            answer.raise_for_status()
        return dict(answer.json()) if answer.content else {}

    return post


@pytest.fixture
def runs(prefect_server: str, post: Any) -> Any:
    """Makes a run of the pool in a state, and tells its name and its present state."""
    httpx.delete(f"{prefect_server}/work_pools/{POOL}", timeout=60)
    post("/work_pools/", name=POOL, type="process")
    flow = post("/flows/", name="interrupted")
    deployment = post("/deployments/", name="one", flow_id=flow["id"], work_pool_name=POOL)

    def make(kind: str, message: str = "") -> str:
        run = post(f"/deployments/{deployment['id']}/create_flow_run")
        post(f"/flow_runs/{run['id']}/set_state", state={"type": kind, "message": message}, force=True)
        return str(run["name"])

    return make


def names(found: list[dict[str, Any]]) -> set[str]:
    return {str(run["name"]) for run in found}


def test_runs_under_way_and_those_lost_of_late_go_on(
    config: ServiceConfig, runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, pending = runs("RUNNING"), runs("PENDING")
    runs("COMPLETED")
    runs("CRASHED", "it ran out of memory")
    late = runs("CRASHED", NO_HEARTBEATS)
    assert names(under_way(config)) == {running, pending}
    assert names(lost(config)) == {late}
    with monkeypatch.context() as patch:  # an old one, which somebody has seen to, or given up
        patch.setattr(interrupted, "_SEEN_TO", timedelta(0))
        assert lost(config) == []
    assert set(put_back(config, [*under_way(config), *lost(config)], "why")) == {running, pending, late}
    assert under_way(config) == lost(config) == []


@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_runs_of_other_machines_go_on_when_this_one_stops(
    config: ServiceConfig, runs: Any, post: Any, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    running = runs("RUNNING")
    post(f"/work_pools/{POOL}/workers/heartbeat", name="slurm-7" if elsewhere else worker_name())
    # A worker that was here, and the servers, which are the tests' own and are to stay.
    monkeypatch.setattr(stopping, "left_over", lambda state, name: name == WORKER)
    monkeypatch.setattr(stopping, "find", lambda state, name: None)
    monkeypatch.setattr(stopping, "stop", lambda state, name, grace_s: 1)
    said = "\n".join(down(config))
    assert (f"run {running} was interrupted" in said) is not elsewhere
    assert names(under_way(config)) == ({running} if elsewhere else set())


def test_of_other_machines_runs_those_without_a_process_go_on_when_this_one_starts(
    config: ServiceConfig, runs: Any, post: Any
) -> None:
    running, crashed = runs("RUNNING"), runs("CRASHED", NO_HEARTBEATS)
    post(f"/work_pools/{POOL}/workers/heartbeat", name="slurm-7")
    assert names(lost(config)) == {crashed}
    starting._reclaim(config)
    assert (names(under_way(config)), lost(config)) == ({running}, [])
