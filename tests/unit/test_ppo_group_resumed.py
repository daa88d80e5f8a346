"""RLOO and GRPO killed in the middle, or asked to end there: what goes on from it is as if nothing had been."""

import os
import signal
from typing import Any

import pytest

from tasks.core.examples import Example, read_records
from tasks.core.launching.termination import EndedEarly
from tasks.problems.base import Score
from tests.unit.test_ppo_group_relative import Vowels, train


@pytest.mark.parametrize(
    ("algorithm", "changes"),
    [
        ("rloo", {}),
        ("rloo", {"group": {"iterations": 2, "mask_cut": True}}),
        ("grpo", {"group": {"iterations": 2, "loss": "dapo", "clip_high": 0.28}}),
        ("grpo", {"roles": {"method": "full"}}),
    ],
)
def test_a_killed_training_goes_on_as_if_nothing_had_been(tmp_path, tiny_ref, algorithm, changes):
    whole = train(tmp_path / "whole", tiny_ref, algorithm, **changes)

    def killed(event):
        if event.get("step") == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", tiny_ref, algorithm, report=killed, **changes)
    steps: list[int] = []
    resumed = train(
        tmp_path / "killed",
        tiny_ref,
        algorithm,
        report=lambda event: steps.append(event["step"]) if "step" in event else None,
        **changes,
    )
    assert steps == [3, 4]
    assert resumed.model.digest == whole.model.digest
    assert list(read_records(resumed.history)) == list(read_records(whole.history))
    again = train(tmp_path / "killed", tiny_ref, algorithm, **changes)  # killed after its last checkpoint
    assert (again.model.digest, again.figures, again.warnings) == (
        whole.model.digest,
        whole.figures,
        whole.warnings,
    )


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_asked_to_end_within_a_batch_it_learns_from_all_of_it_first(
    tmp_path, tiny_ref, monkeypatch, algorithm
):
    """A resume within a batch would sample it again, with a policy that has learned from it already."""
    settings: dict[str, Any] = {"group": {"iterations": 3}, "ppo": {"steps": 3}}
    whole = train(tmp_path / "whole", tiny_ref, algorithm, **settings)
    first_done: list[bool] = []

    def reporting(event: dict[str, Any]) -> None:
        if event.get("step") == 1:
            first_done.append(True)

    def scored(self: Any, example: Example, completion: str, score: Any = Vowels.score) -> Score:
        if first_done:  # the second batch has just been sampled
            first_done.clear()
            os.kill(os.getpid(), signal.SIGTERM)
        return score(self, example, completion)

    with monkeypatch.context() as patch:
        patch.setattr(Vowels, "score", scored)
        with pytest.raises(EndedEarly, match="step 6"):
            train(tmp_path / "ended", tiny_ref, algorithm, report=reporting, **settings)
    resumed = train(tmp_path / "ended", tiny_ref, algorithm, **settings)
    assert resumed.model.digest == whole.model.digest
    assert list(read_records(resumed.history)) == list(read_records(whole.history))
