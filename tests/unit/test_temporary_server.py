"""Prefect's temporary server: Ctrl-C in the terminal passes it by, and it ends with its flow, however that dies."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from tasks.core.temporary_server import tie_to_this_process

FLOW = """

from tasks.core.settings import set_environment
set_environment()
from tasks.core.temporary_server import tie_to_this_process
tie_to_this_process()
from prefect import flow
from prefect.server.api.server import SubprocessASGIServer

@flow
def waits():
    (server,) = SubprocessASGIServer._instances.values()
    print(server.server_process.pid, server.api_url, flush=True)
    time.sleep(600)

waits()
"""


@pytest.fixture
def flow(tmp_path):
    """A flow that waits, and its server: process and address."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    process = subprocess.Popen(
        [sys.executable, "-c", FLOW],
        env=environment | {"LOOPWRIGHT_HOME": str(tmp_path / "home")},
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "stderr.txt").open("w"),
        text=True,
        start_new_session=True,
    )
    line = process.stdout.readline().split()
    assert line, Path(tmp_path / "stderr.txt").read_text()
    yield process, psutil.Process(int(line[0])), line[1]
    process.kill()
    process.communicate()


def test_it_ends_when_the_flow_is_killed(flow):
    process, server, api = flow
    assert httpx.get(f"{api}/health").json() is True
    os.kill(process.pid, signal.SIGKILL)
    server.wait(timeout=30)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{api}/health")


def test_ctrl_c_ends_the_flow_first_and_the_server_hears_of_it(flow, tmp_path):
    process, server, _ = flow
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does at Ctrl-C
    process.wait(timeout=60)
    server.wait(timeout=30)
    query = "SELECT state_type FROM flow_run"
    with sqlite3.connect(tmp_path / "home" / "prefect" / "prefect.db") as database:
        assert database.execute(query).fetchall() == [("CRASHED",)]


def test_where_a_server_is_configured_nothing_is_changed():
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_API_URL, temporary_settings

    before = SubprocessASGIServer._run_uvicorn_command
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        tie_to_this_process()
    assert SubprocessASGIServer._run_uvicorn_command is before
