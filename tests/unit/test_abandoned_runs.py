"""Runs whose process was killed are ended by the next; all others are left alone. A real kill -9, a SQLite file."""

import os
import signal
import subprocess
import sys
import time

import pytest
from mlflow import MlflowClient

from tasks.core import abandoned_runs
from tasks.core.abandoned_runs import BOOT, HOST, KILLED, NAMESPACE, PROCESS, end_abandoned, process_tags
from tasks.core.tracking import Tracking, TrackingConfig

WRITER = """
import sys, time
from tasks.core.tracking import Tracking, TrackingConfig
tracking = Tracking(TrackingConfig(uri=sys.argv[1], experiment=sys.argv[2]))
flow = tracking.start("flow")
print(flow, tracking.start("iteration 1", parent=flow), flush=True)
time.sleep(600)
"""
ROOT = {NAMESPACE: abandoned_runs._ROOT_NAMESPACE}


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOPWRIGHT_HOME", str(folder))
        yield f"sqlite:///{folder}/mlflow.db"


@pytest.fixture
def tracking(uri, request):
    """An experiment for every test."""
    return Tracking(TrackingConfig(uri=uri, experiment=request.node.name))


@pytest.fixture
def status(uri):
    client = MlflowClient(tracking_uri=uri)
    return lambda run: client.get_run(run).info.status


@pytest.fixture
def writer(tracking, request):
    """A process with a run and its child in MLflow, and the ids of these."""
    command = [sys.executable, "-c", WRITER, tracking.uri, request.node.name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    yield process, process.stdout.readline().split()
    process.kill()
    process.communicate()


def gone() -> str:
    """A process that has ended, as its tag had it."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    start = abandoned_runs._start(process.pid)
    process.wait()
    return f"{process.pid} {start}"


def test_runs_of_a_process_that_was_killed_are_ended_by_the_next(tracking, writer, uri, status):
    process, runs = writer
    assert len(runs) == 2
    assert end_abandoned(tracking) == []  # it lives
    assert [status(run) for run in runs] == ["RUNNING", "RUNNING"]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert sorted(end_abandoned(tracking)) == sorted(runs)
    assert [status(run) for run in runs] == ["KILLED", "KILLED"]
    assert MlflowClient(tracking_uri=uri).get_run(runs[0]).data.tags["failure"] == KILLED
    assert end_abandoned(tracking) == []


def test_a_killed_process_that_nobody_has_collected_is_gone_too(tracking, writer):
    process, runs = writer
    os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while not (ended := end_abandoned(tracking)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sorted(ended) == sorted(runs)


def test_a_process_id_that_another_process_has_now_is_not_the_runs(tracking, status):
    pid, start = process_tags()[PROCESS].split()
    reused = tracking.start("before", tags={PROCESS: f"{pid} {int(start) - 1}"})
    own = tracking.start("now")
    assert end_abandoned(tracking) == [reused]
    assert (status(reused), status(own)) == ("KILLED", "RUNNING")


def test_a_process_of_which_no_start_can_be_read_counts_as_alive(tracking, monkeypatch):
    tracking.start("flow", tags={PROCESS: f"{os.getpid()} 1"})
    monkeypatch.setattr(abandoned_runs, "_start", lambda pid: "")  # as where /proc hides other users
    assert end_abandoned(tracking) == []


@pytest.mark.parametrize(
    "elsewhere", [{HOST: "other"}, {NAMESPACE: "pid:[1]"}, {BOOT: "1", NAMESPACE: "pid:[1]"}]
)
def test_runs_of_other_machines_and_containers_are_left_alone(tracking, status, elsewhere):
    run = tracking.start("flow", tags={PROCESS: gone()} | elsewhere)
    assert end_abandoned(tracking) == []
    assert status(run) == "RUNNING"


def test_a_boot_ends_the_runs_before_it_where_only_this_machine_writes(tracking, monkeypatch, status):
    monkeypatch.setattr(abandoned_runs, "_machine", lambda: {HOST: "node", BOOT: "2"} | ROOT)
    run = tracking.start("flow", tags={BOOT: "1"})
    tracking.local = False  # a server: another machine may have this name
    assert end_abandoned(tracking) == []
    tracking.local = True
    assert end_abandoned(tracking) == [run]
    assert status(run) == "KILLED"


def test_ended_runs_and_other_experiments_and_runs_without_tags_are_left_alone(tracking, uri, status):
    tags = {PROCESS: gone()}
    other = Tracking(TrackingConfig(uri=uri, experiment="another")).start("flow", tags=tags)
    ended = tracking.start("flow", tags=tags)
    tracking.finish(ended, "FAILED")
    client = MlflowClient(tracking_uri=uri)
    foreign = client.create_run(tracking.experiment_id).info.run_id
    assert end_abandoned(tracking) == []
    assert [status(run) for run in (other, ended, foreign)] == ["RUNNING", "FAILED", "RUNNING"]
