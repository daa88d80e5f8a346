"""A run whose pod is evicted, as its container sees it: SIGTERM to the command that a worker for Kubernetes starts."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deployments.service.config import ROOT
from deployments.service.deploying import deploy
from tests.asking_again import PREFECT_CLIENT
from tests.flows.loops import wait_until

STEPS = 400
SHOWN = re.compile(rf"(\d+)/{STEPS} loss")
"""How a training's progress reads in the command's output."""


class Pod:
    """A flow run on a server, and the attempts at it; what they print goes to a file each."""

    def __init__(self, api: str, folder: Path, parameters: dict[str, Any]) -> None:
        deploy()
        deployment = PREFECT_CLIENT.get(f"{api}/deployments/name/llm2llm/demo").json()
        config = deployment["parameters"]["config"]
        for name, value in parameters.items():
            config[name] = config[name] | value if isinstance(value, dict) else value
        body = {"parameters": {"config": config}, "state": {"type": "SCHEDULED"}}
        answer = PREFECT_CLIENT.post(f"{api}/deployments/{deployment['id']}/create_flow_run", json=body)
        self.api, self.folder, self.run = api, folder, answer.raise_for_status().json()["id"]

    def attempt(self, number: int) -> "subprocess.Popen[str]":
        """The container's command, with the variable that the worker sets (tests/unit/test_infra_job_template.py)."""
        PREFECT_CLIENT.post(
            f"{self.api}/flow_runs/{self.run}/set_state", json={"state": {"type": "PENDING"}, "force": True}
        ).raise_for_status()
        with self.output(number).open("w") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "prefect", "flow-run", "execute", self.run],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                env=os.environ
                | {
                    "PREFECT_API_URL": self.api,
                    "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR": "reschedule",
                    "LOOPWRIGHT_HOME": str(self.folder / "home"),
                },
            )

    def output(self, number: int) -> Path:
        return self.folder / f"attempt-{number}.txt"

    def steps(self, number: int) -> list[int]:
        """The steps of the training that an attempt has shown."""
        return [int(step) for step in SHOWN.findall(self.output(number).read_text())]

    def state(self) -> tuple[str, str]:
        state = PREFECT_CLIENT.get(f"{self.api}/flow_runs/{self.run}").json()["state"]
        return state["type"], state["name"]


@pytest.mark.timeout(900)
def test_an_evicted_run_goes_back_into_the_queue_and_on_from_the_step_it_was_in(
    loop, prefect_server, tmp_path
):
    engine = {"engine": "openai", "endpoint": {"url": loop.teacher, "backoff_s": 0.01}}
    parameters = {
        "data": {"train": str(loop.folder / "train.jsonl"), "test": str(loop.folder / "test.jsonl")}
        | {"input": "text", "target": "label"},
        "student": {"model": str(loop.model)},
        "teacher": {"engine": engine},
        "evaluation": {"restricted": False, "max_new_tokens": 2},
        # Of itself the training would write no checkpoint.
        "training": {"max_steps": STEPS, "batch_size": 2, "checkpoint_steps": 10_000},
        "iterations": 1,
        "equal_steps": False,
    }
    pod = Pod(prefect_server, tmp_path, parameters)
    evicted = pod.attempt(1)
    wait_until(lambda: pod.steps(1), evicted)
    evicted.send_signal(signal.SIGTERM)
    said = f"what it said is in {pod.output(1)}"
    assert (evicted.wait(120), pod.state()) == (0, ("SCHEDULED", "AwaitingRetry")), said
    (checkpoint,) = tmp_path.glob("home/store/work/sft/*/checkpoints/checkpoint-*/whole.json")
    reached = int(checkpoint.parent.name.split("-")[1])
    assert pod.steps(1)[-1] <= reached < STEPS

    assert pod.attempt(2).wait(600) == 0
    assert pod.state() == ("COMPLETED", "Completed")
    assert reached < pod.steps(2)[0] <= pod.steps(2)[-1] == STEPS
