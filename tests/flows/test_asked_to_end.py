"""A training that is asked to end (SIGTERM, as schedulers do) writes a checkpoint first, and loses no step."""

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

STEPS = 40


class Ended(Exception):
    """What ends the launching side, as a flow does that is asked to end itself."""


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_training_ends_behind_a_checkpoint_and_goes_on_from_it(
    tmp_path: Path, tiny_ref: ModelRef, processes: int
):
    rows = write_rows(tmp_path / "rows.jsonl", [make_example(f"Say {n}.", str(n)) for n in range(8)])
    inputs = TrainingInputs(model=tiny_ref, train=rows, problem=ProblemConfig(name="exact_match"))
    # It would write none by itself.
    config = TrainingConfig(batch_size=2, max_steps=STEPS, checkpoint_steps=1000)
    store, steps = Store(str(tmp_path / "store")), list[int]()
    ends = True

    def hear(event: dict[str, Any]) -> None:
        if "step" in event:
            steps.append(event["step"])
            if ends and event["step"] == 3:
                raise Ended

    settings = LaunchConfig(processes=processes, grace_s=120)
    with pytest.raises(Ended):
        compute(sft.STAGE, config, inputs, store, settings, hear)
    (checkpoint,) = tmp_path.glob("store/work/sft/*/checkpoints/checkpoint-*/whole.json")
    reached = int(checkpoint.parent.name.split("-")[1])
    assert 3 <= reached < STEPS
    steps.clear()
    ends = False
    compute(sft.STAGE, config, inputs, store, settings, hear)
    assert steps == list(range(reached + 1, STEPS + 1))
