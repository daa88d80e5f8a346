"""Ctrl-C, SIGTERM and kill -9 of the command as a user runs it, with Prefect's temporary server beneath it."""

import os
import signal
import sqlite3
import subprocess
import sys

import psutil
import pytest
from mlflow import MlflowClient

from tests.flows.loops import wait_until

LONG = {"iterations": 1, "training__max_steps": 400, "training__checkpoint_steps": 2}


class Command:
    """The command in a session and a home of its own, without a Prefect server that is there already."""

    def __init__(self, loop) -> None:
        self.loop, self.home = loop, loop.folder / "home"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows", loop.flow, *loop.flags(**LONG)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=environment | {"LOOPWRIGHT_HOME": str(self.home)},
        )

    def until_trained(self, steps: int) -> list[psutil.Process]:
        """Wait for the checkpoint of that step; every process the command has started by then."""
        pattern = f"work/sft/*/checkpoints/checkpoint-{steps}/whole.json"
        wait_until(lambda: list(self.loop.store.glob(pattern)), self.process)
        return psutil.Process(self.process.pid).children(recursive=True)

    def ended(self) -> tuple[int, str]:
        """Exit code and what was printed for the user."""
        _, errors = self.process.communicate(timeout=120)
        return self.process.returncode, errors

    def statuses(self) -> dict[str, list[str]]:
        """How MLflow's runs ended, by the first word of their names, in the order of their start."""
        client = MlflowClient(tracking_uri=f"sqlite:///{self.home}/mlflow.db")
        (experiment,) = client.search_experiments(filter_string="name = 'loopwright'")
        found: dict[str, list[str]] = {}
        runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])
        for run in runs:
            found.setdefault(run.info.run_name.split()[0], []).append(run.info.status)
        return found

    def prefect_states(self) -> list[str]:
        with sqlite3.connect(self.home / "prefect" / "prefect.db") as database:
            query = "SELECT state_type FROM flow_run ORDER BY created"
            return [state for (state,) in database.execute(query)]


@pytest.mark.slow
def test_ctrl_c_is_one_message_and_leaves_nothing_running(loop):
    first = Command(loop)
    children = first.until_trained(2)
    assert len(children) >= 3  # Prefect's server, the fork server and the training
    os.killpg(first.process.pid, signal.SIGINT)  # as a terminal does
    code, printed = first.ended()
    assert code == 130
    assert printed.rstrip().endswith("cancelled; the same command goes on from here")
    assert "Traceback" not in printed
    assert "ERROR" not in printed
    assert psutil.wait_procs(children, timeout=30)[1] == []
    assert first.statuses()["llm2llm"] == ["KILLED"]
    assert first.prefect_states() == ["CRASHED"]

    again = Command(loop)
    again.until_trained(30)
    os.kill(again.process.pid, signal.SIGTERM)
    code, printed = again.ended()
    assert code == 128 + signal.SIGTERM
    assert "Traceback" not in printed
    assert again.statuses()["llm2llm"] == ["KILLED", "KILLED"]
    assert "RUNNING" not in again.prefect_states()


@pytest.mark.slow
def test_a_command_that_was_killed_leaves_no_server_and_its_runs_are_ended_by_the_next(loop):
    first = Command(loop)
    children = first.until_trained(2)
    first.process.kill()
    first.ended()
    assert psutil.wait_procs(children, timeout=30)[1] == []
    assert first.statuses() == {"llm2llm": ["RUNNING"], "iteration": ["RUNNING", "RUNNING"]}
    again = Command(loop)
    again.until_trained(30)
    assert first.statuses()["llm2llm"] == ["KILLED", "RUNNING"]
    assert first.statuses()["iteration"][:2] == ["KILLED", "KILLED"]
    os.killpg(again.process.pid, signal.SIGINT)
    assert again.ended()[0] == 130
