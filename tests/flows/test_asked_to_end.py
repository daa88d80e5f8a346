"""A training that is asked to end (SIGTERM, as schedulers do) writes a checkpoint first, and loses no step."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.core.examples import make_example, write_rows
from tasks.core.launching.launch import LaunchConfig
from tasks.core.references import ModelRef
from tasks.core.stage import compute
from tasks.core.store import Store
from tasks.problems.base import ProblemConfig
from tasks.sft import stage as sft
from tasks.sft.config import TrainingConfig
from tasks.sft.stage import TrainingInputs
from tests.s3_server import s3_server

STEPS = 40


class Ended(Exception):
    """What ends the launching side, as a flow does that is asked to end itself."""


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_training_ends_behind_a_checkpoint_and_goes_on_from_it(
    tmp_path: Path, tiny_ref: ModelRef, processes: int
):
    store = Store(str(tmp_path / "store"))
    training = Training(tmp_path, tiny_ref, store, processes)
    training.asked_to_end()
    (checkpoint,) = tmp_path.glob("store/work/sft/*/checkpoints/checkpoint-*/whole.json")
    reached = int(checkpoint.parent.name.split("-")[1])
    assert 3 <= reached < STEPS
    assert training.steps_to_the_end() == list(range(reached + 1, STEPS + 1))


def test_with_a_remote_store_it_goes_on_from_that_step_on_another_machine(
    tmp_path: Path, tiny_ref: ModelRef, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LOOPWRIGHT_HOME", str(tmp_path / "home"))
    with s3_server("ended"):
        training = Training(tmp_path, tiny_ref, Store("s3://ended/store"), processes=1)
        training.asked_to_end()
        (checkpoint,) = tmp_path.glob("home/**/checkpoints/checkpoint-*/whole.json")
        reached = int(checkpoint.parent.name.split("-")[1])
        shutil.rmtree(tmp_path / "home")
        monkeypatch.setenv("LOOPWRIGHT_HOME", str(tmp_path / "another-home"))
        assert training.steps_to_the_end() == list(range(reached + 1, STEPS + 1))


class Training:
    """A training that would write no checkpoint by itself, and the steps that are heard of it."""

    def __init__(self, folder: Path, model: ModelRef, store: Store, processes: int) -> None:
        rows = write_rows(folder / "rows.jsonl", [make_example(f"Say {n}.", str(n)) for n in range(8)])
        self.inputs = TrainingInputs(model=model, train=rows, problem=ProblemConfig(name="exact_match"))
        self.config = TrainingConfig(batch_size=2, max_steps=STEPS, checkpoint_steps=1000)
        self.store, self.settings = store, LaunchConfig(processes=processes, grace_s=120)

    def asked_to_end(self) -> None:
        """Begin it, and end it in its third step or soon after."""

        def hear(event: dict[str, Any]) -> None:
            if event.get("step") == 3:
                raise Ended

        with pytest.raises(Ended):
            compute(sft.STAGE, self.config, self.inputs, self.store, self.settings, hear)

    def steps_to_the_end(self) -> list[int]:
        """Begin it again; the steps that it makes."""
        steps = list[int]()

        def hear(event: dict[str, Any]) -> None:
            if "step" in event:
                steps.append(event["step"])

        compute(sft.STAGE, self.config, self.inputs, self.store, self.settings, hear)
        return steps
