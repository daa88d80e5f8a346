"""`make up` and `make down` with real servers, and every deployment on a real Prefect server."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest
import yaml

from deployments.service.automations import OWN_FILE
from deployments.service.config import POOL, ROOT
from deployments.service.deploying import PREFECT_FILE, deploy, read_entries, read_queues
from deployments.service.interrupted import NO_HEARTBEATS
from deployments.service.presets import CONFIGS
from deployments.service.processes import MARK
from tasks.core.slots import GPU_SLOTS
from tests.asking_again import PREFECT_CLIENT
from tests.free_port import free_port
from tests.scripted_server import Reply, ScriptedServer


@pytest.fixture(scope="module")
def deployed(prefect_server: str) -> dict[str, dict[str, Any]]:
    """Every deployment as the server has it, by its name."""
    names = deploy()
    return {name: PREFECT_CLIENT.get(f"{prefect_server}/deployments/name/{name}").json() for name in names}


def named_entries() -> dict[str, dict[str, Any]]:
    """The file's entries as `flow/deployment`."""
    return {f"{entry['entrypoint'].rpartition('.')[2]}/{entry['name']}": entry for entry in read_entries()}


def flow_config(name: str) -> Any:
    return import_module(f"flows.{name.split('/')[0].replace('-', '_')}").CONFIG


def filled_in(entry: dict[str, Any], parameters: dict[str, Any], value: str = "rows.jsonl") -> dict[str, Any]:
    config = json.loads(json.dumps(parameters["config"]))
    for path in entry.get("fill_in", []):
        *parents, name = path.split(".")
        part = config
        for parent in parents:
            part = part[parent]
        part[name] = value
    return dict(config)


def test_every_configuration_is_deployed_with_parameters_that_fit_its_flow(deployed):
    entries = named_entries()
    assert deployed.keys() == entries.keys()
    text, flows = PREFECT_FILE.read_text(), {name.split("/")[0] for name in entries}
    for path in CONFIGS.glob("*.yaml"):  # the first line is the command that runs it
        command = path.read_text().partition("\n")[0].replace("make demo", "-m flows llm2llm")
        flow = command.partition("-m flows ")[2].split()[0]
        assert flow not in flows or f"presets.{path.stem} " in text, path
    for name, deployment in deployed.items():
        entry, model = entries[name], flow_config(name)
        config = filled_in(entry, deployment["parameters"])
        preset = model.model_validate(entry["parameters"].get("config", {})).model_dump(mode="json")
        assert model.model_validate(deployment["parameters"]["config"]).model_dump(mode="json") == preset
        assert set(config) == set(model.model_fields)  # nothing is left to the form
        assert deployment["work_pool_name"] == POOL
        assert deployment["work_queue_name"] in read_queues()
        assert [one["active"] for one in deployment["schedules"]] == [False] * len(entry["schedules"])
        assert deployment["enforce_parameter_schema"]
        assert bool(entry.get("fill_in")) == ("Fill in" in deployment["description"])


def start(api: str, deployment: dict[str, Any], config: dict[str, Any]) -> httpx.Response:
    return PREFECT_CLIENT.post(
        f"{api}/deployments/{deployment['id']}/create_flow_run",
        json={"parameters": {"config": config}, "state": {"type": "SCHEDULED"}},
    )


def test_the_server_refuses_what_lacks_a_field_or_is_out_of_bounds_before_a_run_begins(
    deployed, prefect_server
):
    entries = named_entries()
    for name, deployment in deployed.items():
        whole = filled_in(entries[name], deployment["parameters"])
        assert start(prefect_server, deployment, whole).status_code == 201, name
        wrong: list[dict[str, Any]] = [whole | {"retries": -1}, whole | {"no_such_field": 1}]
        if "training" in whole:
            wrong.append(whole | {"training": whole["training"] | {"method": "magic"}})
        if entries[name].get("fill_in"):
            wrong.append(filled_in(entries[name], deployment["parameters"], ""))
        if name == "perl/hh-cpu":
            wrong.append(deployment["parameters"]["config"])  # as it is, nothing filled in
        for one in wrong:
            assert start(prefect_server, deployment, one).status_code == 409, (name, one)


def test_forms_begin_with_what_is_to_be_filled_in_and_end_with_where_a_run_is_kept(deployed):
    for name, deployment in deployed.items():
        schema = deployment["parameter_openapi_schema"]
        reference = schema["properties"]["config"]["$ref"].rpartition("/")[2]
        fields = schema["definitions"][reference]["properties"]
        order = sorted(fields, key=lambda field: fields[field]["position"])
        assert order[-6:] == ["store", "tracking", "credentials", "launch", "fan_out", "retries"]
        assert all(field["title"] and field.get("description", "x") for field in fields.values())
        if name == "perl/hh-cpu":
            assert order[:2] == ["data", "preferences"]
            data = schema["definitions"][fields["data"]["$ref"].rpartition("/")[2]]
            assert (data["required"], data["properties"]["test"]["position"]) == (["train", "test"], 1)


def test_deploying_again_keeps_the_schedules_that_a_person_switched_or_made(deployed, prefect_server):
    there = deployed["llm2llm/demo"]
    address = f"{prefect_server}/deployments/{there['id']}/schedules"
    nightly = there["schedules"][0]["id"]
    assert PREFECT_CLIENT.patch(f"{address}/{nightly}", json={"active": True}).is_success
    own = {"schedule": {"cron": "30 5 * * 1", "timezone": "UTC"}, "active": True}
    assert PREFECT_CLIENT.post(address, json=[own]).is_success
    deploy()
    found = PREFECT_CLIENT.get(address).json()
    assert sorted((one["schedule"]["cron"], one["active"]) for one in found) == [
        ("0 3 * * *", True),
        ("30 5 * * 1", True),
    ]


class Service:
    """`make up` in a folder of its own on free ports."""

    def __init__(self, home: Path) -> None:
        self.home, self.prefect, self.mlflow = home, free_port(), free_port()
        self.environment = {name: value for name, value in os.environ.items() if "PREFECT" not in name} | {
            "LOOPWRIGHT_HOME": str(home),
            "LOOPWRIGHT_PREFECT_PORT": str(self.prefect),
            "LOOPWRIGHT_MLFLOW_PORT": str(self.mlflow),
        }
        self.api = f"http://127.0.0.1:{self.prefect}/api"

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        program = [sys.executable, "-m", "deployments.service", *words]
        return subprocess.run(program, cwd=ROOT, env=self.environment, text=True, capture_output=True)

    def up(self) -> dict[str, str]:
        """What was done with each service."""
        done = self.command("up")
        assert done.returncode == 0, done.stdout + done.stderr
        lines = (line.split() for line in done.stdout.splitlines()[:3])
        return {words[0]: words[1] for words in lines}

    def pids(self) -> dict[str, int]:
        files = (self.home / "service").glob("*.json")
        return {file.stem: json.loads(file.read_text())["pid"] for file in files}

    def processes(self) -> list[psutil.Process]:
        """Everything alive that carries the service's mark or its folder."""
        token, found = (self.home / "service" / "token").read_text(), []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get(MARK, "").startswith(token)
            except psutil.Error:
                continue
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    def get(self, path: str) -> Any:
        return PREFECT_CLIENT.get(f"{self.api}{path}").json()

    def post(self, path: str, body: Any) -> Any:
        answer = PREFECT_CLIENT.post(f"{self.api}{path}", json=body).raise_for_status()
        return answer.json() if answer.content else None

    def set_state(self, run: str, **state: str) -> None:
        self.post(f"/flow_runs/{run}/set_state", {"state": state, "force": True})

    def running(self, deployment: str) -> str:
        """A run that is said to be under way, and has no process."""
        path = f"/deployments/{self.get(f'/deployments/name/{deployment}')['id']}/create_flow_run"
        far = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2999-01-01T00:00:00Z"}}
        run = str(self.post(path, {"state": far})["id"])
        self.set_state(run, type="RUNNING")
        return run

    def send(self, event: str, resource: str, payload: dict[str, Any] | None = None) -> None:
        """Tell Prefect that something happened, as its client or a webhook does."""
        said = {"event": event, "resource": {"prefect.resource.id": resource}, "payload": payload or {}}
        now = datetime.now(UTC).isoformat()
        self.post("/events", [said | {"occurred": now, "id": str(uuid4())}])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("service"))
    yield service
    service.command("down")


def wait_until(reached: Callable[[], object], patience_s: float = 600) -> None:
    deadline = time.monotonic() + patience_s
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def tiny(config: dict[str, Any], model: Path) -> dict[str, Any]:
    """A configuration with as little work as a loop can have."""
    changed = json.loads(json.dumps(config)) | {"iterations": 1, "equal_steps": False}
    changed["student"]["model"] = changed["teacher"]["model"] = str(model)
    changed["training"] |= {"max_steps": 1, "batch_size": 2}
    changed["evaluation"]["restricted"] = False
    changed["evaluation"]["max_new_tokens"] = 2
    changed["data"]["test_rows"] = 5
    return dict(changed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_outlives_down_and_up_and_only_what_died_is_started_again(service, tiny_model):
    assert service.up() == {"prefect": "started", "mlflow": "started", "worker": "started"}
    assert service.up() == {"prefect": "runs", "mlflow": "runs", "worker": "runs"}
    assert service.command("status").returncode == 0

    deployment = service.get("/deployments/name/llm2llm/demo")
    run = start(service.api, deployment, tiny(deployment["parameters"]["config"], tiny_model)).json()["id"]
    wait_until(lambda: service.get(f"/flow_runs/{run}")["state"]["type"] == "RUNNING")
    there = service.processes()
    down = service.command("down")
    assert down.returncode == 0, down.stderr
    assert "was interrupted" in down.stdout
    assert service.processes() == []
    assert not any(process.is_running() and process.status() != "zombie" for process in there)
    assert service.command("status").returncode == 1
    assert "nothing" in service.command("down").stdout

    assert set(service.up().values()) == {"started"}
    wait_until(
        lambda: service.get(f"/flow_runs/{run}")["state"]["type"] not in ("SCHEDULED", "PENDING", "RUNNING")
    )
    found = service.get(f"/flow_runs/{run}")
    assert (found["state"]["type"], found["deployment_id"]) == ("COMPLETED", deployment["id"])
    body = {"artifacts": {"flow_run_id": {"any_": [run]}}}
    artifacts = PREFECT_CLIENT.post(f"{service.api}/artifacts/filter", json=body).json()
    assert {"llm2llm-iterations", "llm2llm-report"} <= {one["key"] for one in artifacts}
    assert list(
        (service.home / "store").glob("report/*/manifest.json")
    )  # the worker's runs use the same store,

    mlflow = f"http://127.0.0.1:{service.mlflow}"
    search = {"experiment_ids": ["1"], "filter": f"tags.`prefect.flow_run_id` = '{run}'"}
    runs = httpx.post(f"{mlflow}/api/2.0/mlflow/runs/search", json=search).json()["runs"]
    assert "llm2llm" in {tag["value"] for one in runs for tag in one["data"]["tags"]}  # and the same MLflow
    other = httpx.get(f"{mlflow}/health", headers={"Host": "elsewhere.example"})
    api = httpx.get(
        f"{mlflow}/api/2.0/mlflow/experiments/get?experiment_id=1", headers={"Host": "elsewhere.example"}
    )
    assert (other.status_code, api.status_code) == (200, 403)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_servers_that_are_killed_during_a_training_are_started_again_and_the_run_goes_on(service, tiny_model):
    service.up()
    deployment = service.get("/deployments/name/llm2llm/demo")
    config = tiny(deployment["parameters"]["config"], tiny_model)
    config["training"] |= {"max_steps": 60, "checkpoint_steps": 2, "seed": 7}
    run = start(service.api, deployment, config).json()["id"]
    wait_until(lambda: list(service.home.glob("store/work/sft/*/checkpoints/*/whole.json")))
    assert service.get(f"/v2/concurrency_limits/{GPU_SLOTS}")["active_slots"] == 1
    before = service.pids()
    for name in ("prefect", "mlflow"):
        os.kill(before[name], signal.SIGKILL)
    assert service.up() == {"prefect": "started", "mlflow": "started", "worker": "runs"}
    after = service.pids()
    assert [before[name] == after[name] for name in ("prefect", "mlflow", "worker")] == [False, False, True]
    wait_until(lambda: service.get(f"/flow_runs/{run}")["state"]["type"] not in ("PENDING", "RUNNING"))
    found = service.get(f"/flow_runs/{run}")
    assert (found["state"]["type"], found["run_count"]) == ("COMPLETED", 1)
    # The lease outlived the server: the slot could be given back.
    assert service.get(f"/v2/concurrency_limits/{GPU_SLOTS}")["active_slots"] == 0


def automate(service: Service, *files: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    program = [sys.executable, "-m", "deployments.service", "automate", *map(str, files)]
    environment = service.environment | variables
    return subprocess.run(program, cwd=ROOT, env=environment, text=True, capture_output=True)


@pytest.mark.timeout(1800)
def test_automations_notify_start_a_retraining_and_find_dead_runs(service, tmp_path):
    service.up()
    infra = ROOT / "infra" / "automations"
    refused = automate(service, infra / "notify.yaml")
    assert (refused.returncode, "LOOPWRIGHT_NOTIFY_URL: there is no webhook" in refused.stderr) == (2, True)
    elsewhere = automate(service, infra / "notify.yaml", LOOPWRIGHT_NOTIFY_URL="http://127.0.0.1:9/")
    assert elsewhere.returncode == 0, elsewhere.stderr  # another address takes its place below
    (own,) = yaml.safe_load(OWN_FILE.read_text())
    # Waiting without a process is no death, whatever the state's name.
    waiting = ("Suspended", "Paused", "Scheduled", "AwaitingRetry", "Completed", "Failed", "Cancelled")
    assert {f"prefect.flow-run.{state}" for state in waiting} < set(own["trigger"]["expect"])
    # The same automation with less patience, so that the test need have none either.
    quick = own | {"name": "quick", "trigger": own["trigger"] | {"within": 10}}
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump([quick]))
    with ScriptedServer(lambda body: Reply()) as receiver:
        files = (infra / "notify.yaml", infra / "new-data.yaml", tmp_path / "quick.yaml")
        done = automate(service, *files, LOOPWRIGHT_NOTIFY_URL=f"{receiver.url}/chat/completions")
        assert done.returncode == 0, done.stderr
        present = {one["name"]: one["enabled"] for one in service.post("/automations/filter", {})}
        named = [one["name"] for file in (OWN_FILE, *files) for one in yaml.safe_load(file.read_text())]
        assert present == dict.fromkeys(named, True)

        dead = service.running("llm2llm/demo")
        service.send("prefect.flow-run.heartbeat", f"prefect.flow-run.{dead}")
        service.send("loopwright.data.arrived", "loopwright.data.library", {"location": "/new/rows"})

        def fail() -> None:
            failed = service.running("llm2llm/demo")
            service.set_state(failed, type="FAILED", message='no "rows" <b>')

        def promote() -> None:
            payload = {"version": "3", "reason": "better"}
            service.send("loopwright.model.promoted", "loopwright.model.library", payload)

        events: dict[str, Callable[[], None]] = {
            'failed: no "rows" <b> http': fail,
            "version 3 is champion; better": promote,
        }

        def arrived(words: str) -> bool:
            """One may come twice: Prefect posts again what was not answered in seconds."""
            return any(words in request.json["text"] for request in receiver.requests)

        for _ in range(5):  # on a busy machine its server loses a call now and then, which it only logs
            missing = [words for words in events if not arrived(words)]
            for words in missing:
                events[words]()
            with contextlib.suppress(AssertionError):
                wait_until(lambda missing=missing: all(map(arrived, missing)), 60)
        log = (service.home / "service" / "prefect.log").read_text()[-20_000:]
        assert [words for words in events if not arrived(words)] == [], log
        wait_until(lambda: service.get(f"/flow_runs/{dead}")["state"]["type"] == "CRASHED", 120)
        wait_until(lambda: arrived(f"crashed: {NO_HEARTBEATS} http"), 120)
    (retraining,) = service.post("/flow_runs/filter", {"deployments": {"name": {"any_": ["library"]}}})
    service.set_state(retraining["id"], type="CANCELLED")
    config = retraining["parameters"]["config"]
    preset = service.get("/deployments/name/retrain/library")["parameters"]["config"]
    assert config == preset | {"location": "/new/rows"}


@pytest.mark.timeout(1800)
def test_a_service_with_other_settings_is_refused_and_down_ends_everything(service):
    service.up()
    after = service.pids()
    changed = service.environment | {"LOOPWRIGHT_MLFLOW_PORT": str(free_port())}
    program = [sys.executable, "-m", "deployments.service", "up"]
    refused = subprocess.run(program, cwd=ROOT, env=changed, text=True, capture_output=True)
    assert (refused.returncode, "other settings" in refused.stderr) == (2, True)
    assert service.pids() == after

    service.command("down")
    assert service.processes() == []


def test_a_taken_port_starts_nothing(tmp_path):
    import socket

    service = Service(tmp_path)
    with socket.create_server(("127.0.0.1", service.mlflow)):
        done = service.command("up")
    assert done.returncode == 2
    assert f"port {service.mlflow} is taken by" in done.stderr
    assert "Traceback" not in done.stderr
    assert service.pids() == {}
