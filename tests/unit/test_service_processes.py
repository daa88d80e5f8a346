"""The service's processes: records that cannot be mistaken, an end to exactly what was started, ports and settings."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from deployments.service import processes
from deployments.service.config import ServiceConfig, read_service_config
from deployments.service.databases import mlflow_database, prefect_database
from deployments.service.health import ServiceFailed, wait_until_healthy
from deployments.service.ports import check_free
from deployments.service.processes import Record, birth, find, left_over, log_file, start, stop
from deployments.service.stack import environment, services
from tasks.core.errors import UserError

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
WITH_CHILDREN = """
import subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
subprocess.Popen(sleep)                               # in its group
subprocess.Popen(sleep, start_new_session=True)       # away from it
print("up", flush=True)
time.sleep(600)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "service"
    folder.mkdir()
    yield folder
    for name in ("one", "two"):
        stop(folder, name, grace_s=0)


def begin(state: Path, name: str, code: str) -> Record:
    record = start(
        name,
        [sys.executable, "-c", code],
        state=state,
        environment=dict(os.environ),
        cwd=state,
        settings="s",
    )
    wait_until(lambda: "up" in log_file(state, name).read_text())
    return record


def wait_until(reached: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_started_process_is_found_again_in_a_session_of_its_own(state):
    record = begin(state, "one", SLEEPER)
    assert find(state, "one") == record
    assert record.alive
    assert os.getsid(record.pid) == record.pid != os.getsid(0)
    assert [process.pid for process in left_over(state, "one")] == [record.pid]
    assert find(state, "two") is None
    assert left_over(state, "two") == []


def test_stop_ends_all_that_the_process_started_and_nothing_else(state):
    record, other = begin(state, "one", WITH_CHILDREN), begin(state, "two", SLEEPER)
    ours = left_over(state, "one")
    assert len(ours) == 3
    assert stop(state, "one", grace_s=1) == 3
    assert not any(process.is_running() and process.status() != "zombie" for process in ours)
    assert other.alive
    assert not record.alive
    assert find(state, "one") is None


def test_what_a_killed_process_leaves_behind_is_found_and_ended(state):
    record = begin(state, "one", WITH_CHILDREN)
    os.kill(record.pid, signal.SIGKILL)
    wait_until(lambda: not record.alive)
    assert len(left_over(state, "one")) == 2
    assert stop(state, "one", grace_s=10) == 2
    assert left_over(state, "one") == []


def test_a_process_that_will_not_end_is_killed(state):
    record = begin(state, "one", STUBBORN)
    assert stop(state, "one", grace_s=0.2) == 1
    assert not record.alive
    assert stop(state, "one", grace_s=0.2) == 0  # and once more is no error


def test_an_id_that_was_given_to_somebody_else_is_not_ours(state):
    stranger = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
    )
    try:
        file = state / "one.json"
        record = Record("one", stranger.pid, "another birth", 0.0, "s")
        file.write_text(json.dumps(record.__dict__))
        assert find(state, "one") == record
        assert not record.alive
        assert left_over(state, "one") == []
        assert stop(state, "one", grace_s=0) == 0
        assert stranger.poll() is None
        assert birth(stranger.pid) != birth(os.getpid())
    finally:
        stranger.kill()
        stranger.wait()
    assert birth(stranger.pid) == ""


def test_another_folders_service_of_the_same_name_is_left_alone(state, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    record = begin(theirs, "one", SLEEPER)
    try:
        begin(state, "one", SLEEPER)
        assert stop(state, "one", grace_s=5) == 1
        assert record.alive
    finally:
        stop(theirs, "one", grace_s=5)


def test_a_service_that_ends_at_once_is_reported_with_the_end_of_its_log(state):
    record = begin(state, "one", "print('up'); raise SystemExit('no such database')")
    with pytest.raises(ServiceFailed, match=r"(?s)one ended.*no such database"):
        wait_until_healthy(record, lambda: False, state=state, patience_s=60)


def test_a_service_that_does_not_answer_is_reported_while_it_lives(state):
    record = begin(state, "one", SLEEPER)
    with pytest.raises(ServiceFailed, match="did not answer"):
        wait_until_healthy(record, lambda: False, state=state, patience_s=0.1)
    assert record.alive
    wait_until_healthy(record, lambda: True, state=state, patience_s=0.1)


def test_a_port_that_is_taken_is_named_with_its_holder():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UserError, match=rf"port {port} is taken by .*process {os.getpid()}") as error:
            check_free("127.0.0.1", port, field="LOOPWRIGHT_MLFLOW_PORT")
    assert "LOOPWRIGHT_MLFLOW_PORT" in str(error.value)
    check_free("127.0.0.1", port, field="LOOPWRIGHT_MLFLOW_PORT")


@pytest.mark.parametrize(
    ("flags", "variables", "field"),
    [
        ({"host": "0.0.0.0"}, {}, "LOOPWRIGHT_HOST"),
        ({"host": "::"}, {}, "LOOPWRIGHT_HOST"),
        ({}, {"LOOPWRIGHT_HOST": "no.such.host.invalid"}, "LOOPWRIGHT_HOST"),
        ({"host": "0.0.0.0"}, {"PREFECT_SERVER_API_AUTH_STRING": "user:"}, "PREFECT_SERVER_API_AUTH_STRING"),
        ({"prefect_port": "http"}, {}, "LOOPWRIGHT_PREFECT_PORT"),
        ({}, {"LOOPWRIGHT_MLFLOW_PORT": "70000"}, "LOOPWRIGHT_MLFLOW_PORT"),
        ({"prefect_port": "4200", "mlflow_port": "4200"}, {}, "LOOPWRIGHT_MLFLOW_PORT"),
        ({}, {"DATABASE_URL": "mysql://root@host/db"}, "DATABASE_URL"),
        ({}, {"LOOPWRIGHT_GPU_SLOTS": "two"}, "LOOPWRIGHT_GPU_SLOTS"),
        ({"gpu_slots": "-1"}, {}, "LOOPWRIGHT_GPU_SLOTS"),
    ],
)
def test_settings_that_cannot_work_or_open_the_service_are_refused(flags, variables, field):
    with pytest.raises(UserError) as error:
        read_service_config(flags, variables)
    assert error.value.field == field


def test_flags_win_over_variables_and_authentication_lets_the_host_be_wider(tmp_path, monkeypatch):
    monkeypatch.setenv("LOOPWRIGHT_HOME", str(tmp_path))
    variables = {"LOOPWRIGHT_PREFECT_PORT": "4301", "LOOPWRIGHT_MLFLOW_PORT": "5301"}
    config = read_service_config({"prefect_port": "4302"}, variables)
    assert (config.prefect_port, config.mlflow_port, config.home) == (4302, 5301, tmp_path)
    assert (config.state.stat().st_mode & 0o777) == 0o700
    wide = {"LOOPWRIGHT_HOST": "0.0.0.0", "PREFECT_SERVER_API_AUTH_STRING": "ann:secret"}
    config = read_service_config({}, wide)
    assert (config.prefect_url, config.mlflow_url) == ("http://127.0.0.1:4200", "http://127.0.0.1:5000")


def secretive(tmp_path: Path) -> ServiceConfig:
    return ServiceConfig(
        home=tmp_path, database="postgresql://ann:pass@db:5433/loops?ssl=disable", authentication="ann:pass"
    )


def test_each_server_has_a_schema_of_its_own_and_no_password_on_a_command_line(tmp_path):
    config = secretive(tmp_path)
    url = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
    assert prefect_database(config)[url] == "postgresql+asyncpg://ann:pass@db:5433/loops?ssl=disable"
    assert mlflow_database(config)["MLFLOW_BACKEND_STORE_URI"] == (
        "postgresql+psycopg2://ann:pass@db:5433/loops?ssl=disable&options=-csearch_path%3Dmlflow"
    )
    for service in services(config, {"DATABASE_URL": config.database}):
        assert "pass" not in " ".join(service.command) + service.settings


def test_runs_do_not_inherit_the_databases_password(tmp_path):
    config = secretive(tmp_path)
    given = {
        "DATABASE_URL": config.database,
        "PREFECT_SERVER_API_AUTH_STRING": "ann:pass",
        "LOOPWRIGHT_NOTIFY_URL": "https://hooks.example/secret",
        "OPENAI_API_KEY": "k",
    }
    found = environment(config, given)
    assert not {"DATABASE_URL", "PREFECT_SERVER_API_AUTH_STRING", "LOOPWRIGHT_NOTIFY_URL"} & found.keys()
    assert found["OPENAI_API_KEY"] == "k"
    assert found["MLFLOW_TRACKING_URI"] == config.mlflow_url
    assert (found["LOOPWRIGHT_STORE"], found["PREFECT_HOME"]) == (f"{tmp_path}/store", f"{tmp_path}/prefect")


def test_only_settings_that_matter_make_a_running_service_another(tmp_path):
    def digests(config: ServiceConfig, **variables: str) -> list[str]:
        return [service.settings for service in services(config, variables)]

    plain = ServiceConfig(home=tmp_path)
    assert digests(plain) == digests(plain, EDITOR="vi")
    moved = ServiceConfig(home=tmp_path, mlflow_port=5001)
    assert [a == b for a, b in zip(digests(plain), digests(moved), strict=True)] == [False, False, False]
    assert digests(plain)[2] != digests(plain, LOOPWRIGHT_STORE="s3://bucket")[2]


def test_the_records_survive_a_start_that_was_cut_before_it_was_recorded(state, monkeypatch):
    def fail(*values: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(processes, "write_json", fail)
    with pytest.raises(OSError, match="disk full"):
        begin(state, "one", SLEEPER)
    found = left_over(state, "one")
    assert [isinstance(process, psutil.Process) for process in found] == [True]
    assert stop(state, "one", grace_s=5) == 1
