"""Several calls of one stage as mapped Prefect tasks: in threads and in processes, failing, interrupted, run again."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from prefect import flow
from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

from tasks.core.errors import UserError
from tasks.core.flow_run import FlowConfig, FlowRun, open_run
from tasks.core.launching.launch import LaunchConfig
from tasks.core.tracking import TrackingConfig
from tests.flows.mapped_stage import STAGE, ShoutConfig, ShoutInputs

pytestmark = pytest.mark.usefixtures("prefect_server")

TEXTS = ["one", "two", "three", "four", "five"]
LOUD = ["ONE", "TWO", "THREE", "FOUR", "FIVE"]


class Mapped:
    """A store, a diary, and flows that map the stage over texts."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.diary = folder, folder / "diary.txt"
        folder.mkdir(exist_ok=True)
        self.diary.touch()
        self.arrived: list[tuple[int, str]] = []
        self.mlflow_run_id = ""

    def run(
        self, texts=TEXTS, *, runner: Any = None, at_once=1, stage=STAGE, each=None, **config
    ) -> list[str]:
        """What the flow returns; `arrived` gets the results in the order in which they came."""
        self.arrived.clear()

        def take(number: int, result: Any) -> None:
            self.arrived.append((number, result.loud))
            if each:
                each()

        @flow(name="mapped", **({"task_runner": runner} if runner else {}))
        def mapped() -> list[str]:
            with open_run("mapped", self.config()) as run:
                self.mlflow_run_id = run.run_id
                return self.loud(run, stage, texts, at_once, take, config)

        return mapped()

    def loud(self, run: FlowRun, stage, texts, at_once, take, config) -> list[str]:
        results = run.stages(
            stage,
            ShoutConfig(diary=str(self.diary), **config),
            [ShoutInputs(text=text) for text in texts],
            labels=[f"shout {text}" for text in texts],
            whole="shout",
            at_once=at_once,
            each=take,
        )
        return [result.loud for result in results]

    def config(self) -> FlowConfig:
        return FlowConfig(
            store=str(self.folder / "store"),
            tracking=TrackingConfig(uri=f"sqlite:///{self.folder}/mlflow.db"),
            launch=LaunchConfig(grace_s=1.0),
        )

    def lines(self) -> list[tuple[str, str]]:
        """The diary: ("begin" or "end", text)."""
        words = (line.split() for line in self.diary.read_text().splitlines())
        return [(word, text) for word, text, _ in words]

    def processes(self) -> set[int]:
        return {int(line.split()[2]) for line in self.diary.read_text().splitlines()}


@pytest.fixture
def mapped(tmp_path) -> Mapped:
    return Mapped(tmp_path)


def most_under_way(lines: list[tuple[str, str]]) -> int:
    now = most = 0
    for word, _ in lines:
        now += 1 if word == "begin" else -1
        most = max(most, now)
    return most


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runner", "at_once", "together"),
    [
        (None, 1, 1),
        (None, 2, 2),
        (None, 8, 5),
        (ThreadPoolTaskRunner(max_workers=2), 2, 2),
        (ThreadPoolTaskRunner(max_workers=1), 2, 1),
        (ProcessPoolTaskRunner(max_workers=2), 2, 2),
    ],
)
def test_the_results_are_the_same_however_many_are_under_way_and_wherever(mapped, runner, at_once, together):
    assert mapped.run(runner=runner, at_once=at_once, together=together) == LOUD
    assert sorted(mapped.arrived) == list(enumerate(LOUD))
    assert most_under_way(mapped.lines()) == together
    if together == 1:
        assert [text for word, text in mapped.lines() if word == "begin"] == TEXTS
        assert [number for number, _ in mapped.arrived] == [0, 1, 2, 3, 4]
    elsewhere = isinstance(runner, ProcessPoolTaskRunner)
    assert (os.getpid() in mapped.processes()) != elsewhere

    before = mapped.lines()
    assert mapped.run(runner=runner, at_once=at_once) == LOUD
    assert mapped.lines() == before  # nothing is computed again


def test_no_input_and_one_input(mapped):
    assert mapped.run([], at_once=2) == []
    assert mapped.run(["alone"], at_once=2) == ["ALONE"]


@pytest.mark.parametrize(
    "runner", [None, pytest.param(ProcessPoolTaskRunner(max_workers=2), marks=pytest.mark.slow)]
)
def test_one_that_fails_ends_the_flow_with_its_own_message_and_the_finished_ones_stay(mapped, runner):
    with pytest.raises(UserError, match="three cannot be said") as caught:
        mapped.run(runner=runner, broken="three")
    assert (caught.value.field, caught.value.mend) == ("shout.text", "say something else")
    begun = [text for word, text in mapped.lines() if word == "begin"]
    assert begun == ["one", "two", "three"]
    assert mapped.run(runner=runner) == LOUD
    assert [text for word, text in mapped.lines()[len(begun) + 2 :] if word == "begin"] == TEXTS[2:]


def test_one_that_fails_ends_those_under_way(mapped):
    begun = time.monotonic()
    with pytest.raises(UserError, match="five cannot be said"):
        mapped.run(["four", "five", "six"], at_once=2, broken="five", together=9)
    assert time.monotonic() - begun < 30  # it would wait for a minute
    assert mapped.lines() == [("begin", "four"), ("begin", "five")] or mapped.lines() == [
        ("begin", "five"),
        ("begin", "four"),
    ]


def test_what_is_raised_on_a_result_ends_the_flow(mapped):
    def refuse() -> None:
        raise UserError("enough of it")

    with pytest.raises(UserError, match="enough of it"):
        mapped.run(at_once=1, each=refuse)
    assert [text for word, text in mapped.lines() if word == "begin"] == ["one"]


@pytest.mark.parametrize(("runner", "begun"), [(None, 2), (ThreadPoolTaskRunner(max_workers=1), 1)])
def test_ctrl_c_ends_the_processes_of_all_that_are_under_way(mapped, runner, begun):
    processes: list[psutil.Process] = []

    def interrupt() -> None:
        while mapped.diary.read_text().count("begin") < begun:
            time.sleep(0.02)
        processes.extend(psutil.Process(process) for process in mapped.processes())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        mapped.run(runner=runner, at_once=2, stage=replace(STAGE, own_process=True), forever=True)
    assert len(processes) == begun
    assert psutil.wait_procs(processes, timeout=5)[1] == []
    assert [word for word, _ in mapped.lines()] == ["begin"] * begun  # and no other was begun


def test_the_time_of_a_stage_is_that_of_all_its_calls(mapped):
    mapped.run(TEXTS[:3])
    client = MlflowClient(tracking_uri=f"sqlite:///{mapped.folder}/mlflow.db")
    history = [entry.value for entry in client.get_metric_history(mapped.mlflow_run_id, "time/shout_s")]
    assert len(history) == 3
    assert history == sorted(history)
    latest = client.get_run(mapped.mlflow_run_id).data.metrics["time/shout_s"]
    assert latest == max(history)
