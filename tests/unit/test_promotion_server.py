"""The registry on an MLflow server that keeps artifacts itself: register, load by alias, promote, roll back."""

import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pandas
import pytest

from tasks.core.tracking import Tracking, TrackingConfig
from tasks.evaluate import EvaluationConfig
from tasks.problems.base import ProblemConfig
from tasks.promotion.loading import champion_model, write_served
from tasks.promotion.registry import CHAMPION, PREVIOUS, ModelRegistry
from tasks.promotion.served import as_evaluated
from tests.free_port import free_port

PROBLEM = ProblemConfig(name="classification", labels=("music", "weather"))


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", f"{folder}/artifacts"]
    log = (folder / "log.txt").open("w")
    process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 240
        while not _answers(url):
            assert process.poll() is None, (folder / "log.txt").read_text()[-3000:]
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.HTTPError:
        return False


def test_a_champion_on_a_server_is_promoted_loaded_and_rolled_back(server, tiny_ref, tmp_path):
    import mlflow

    config = TrackingConfig(uri=server)
    tracking = Tracking(config)
    registry = ModelRegistry(tracking, "messages")
    registry.create()
    registry.create()
    run_id = tracking.start("retrain")
    write_served(tmp_path / "model", as_evaluated(tiny_ref, PROBLEM, EvaluationConfig()))
    tracking.artifact(run_id, tmp_path / "model", "model")
    facts = {"run_id": run_id, "source": "model", "promoted": True, "tags": {"decision": "x" * 4000}}
    for number in ("1", "2"):
        parent = str(int(number) - 1) if number != "1" else ""
        version = registry.register(tiny_ref, work=number, parent=parent, **facts)
        assert registry.settle(version)
        registry.finish(version)
    assert registry.unfinished() == []
    registry.advance("v1", "{}", [])
    registry.advance("v2", "{}", ["v1"])
    assert list(registry.heads()) == ["v2"]
    registry.rollback()
    found = [registry.at(alias) for alias in (CHAMPION, PREVIOUS)]
    assert [one.number for one in found if one] == ["1", "2"]
    assert champion_model("messages", config) == tiny_ref
    mlflow.set_tracking_uri(server)
    try:
        loaded = mlflow.pyfunc.load_model("models:/messages@champion")
    finally:
        mlflow.set_tracking_uri(None)
    answers = loaded.predict(pandas.DataFrame({"input": ["play jazz", "rain?"]}))
    assert set(answers["completion"]) <= set(PROBLEM.labels)
