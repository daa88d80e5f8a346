"""A policy's training as a stage: what it learns from, and that a kill in the middle changes nothing."""

import math
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tasks.core.errors import UserError
from tasks.core.examples import make_example, read_records, write_rows
from tasks.core.launching.termination import EndedEarly
from tasks.core.references import ModelRef
from tasks.core.store import fetch
from tasks.ppo.config import PPOConfig
from tasks.ppo.roles_config import RolesConfig
from tasks.ppo.sampling import PolicySampler, SamplingEnded
from tasks.ppo.stage import STAGE, PolicyTrainingInputs, PolicyTrainingResult
from tasks.ppo.training import batch_of
from tasks.ppo.training_config import PolicyTrainingConfig
from tasks.problems.base import ProblemConfig
from tasks.rewards.config import RewardConfig
from tests.unit.reward_pairs import train_reward
from tests.unit.small_grow import silent_model

QUICK = {
    "steps": 5,
    "batch_size": 6,
    "minibatch_size": 3,
    "micro_batch_size": 2,
    "epochs": 2,
    "max_new_tokens": 5,
    "policy_learning_rate": 1e-2,
    "value_learning_rate": 1e-2,
    "target_kl": 0.0,
}
ROWS = [make_example(f"What is number {number} in Berlin?", "you are very welcome") for number in range(8)]


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory, tiny_ref: ModelRef) -> ModelRef:
    return train_reward(tmp_path_factory.mktemp("reward"), tiny_ref).model


def train(
    folder: Path, model: ModelRef, reward: ModelRef | None, *, rows=ROWS, report=lambda event: None, **changes
) -> PolicyTrainingResult:
    config = PolicyTrainingConfig(
        ppo=PPOConfig(**QUICK | changes.pop("ppo", {})),
        roles=RolesConfig(**changes.pop("roles", {})),
        reward=RewardConfig(by=changes.pop("by", "model")),
        checkpoint_steps=2,
    )
    inputs = PolicyTrainingInputs(
        model=model,
        prompts=write_rows(folder / "prompts.jsonl", rows),
        problem=ProblemConfig(name="exact_match"),
        reward_model=reward,
    )
    out = folder / "job" / "out"
    out.mkdir(parents=True, exist_ok=True)
    return STAGE.run(config, inputs, out, report)


def test_a_killed_training_goes_on_as_if_nothing_had_been(tmp_path, tiny_ref, reward_model):
    ppo = {"kl_controller": "adaptive", "normalise_scores": "standardise"}  # both have a state
    whole = train(tmp_path / "whole", tiny_ref, reward_model, ppo=ppo)

    def killed(event):
        if event.get("step") == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", tiny_ref, reward_model, ppo=ppo, report=killed)
    (tmp_path / "killed" / "job" / "checkpoints" / "torn-4").mkdir()  # killed while it was saving
    steps: list[int] = []
    resumed = train(
        tmp_path / "killed",
        tiny_ref,
        reward_model,
        ppo=ppo,
        report=lambda event: steps.append(event["step"]) if "step" in event else None,
    )
    assert steps == [3, 4, 5]
    assert resumed.model.digest == whole.model.digest
    assert list(read_records(resumed.history)) == list(read_records(whole.history))
    assert len({step["objective/kl_coefficient"] for step in read_records(whole.history)}) > 1


def ending_at(number, seen):
    """A reporter that has the process asked to end (SIGTERM) in step `number`, and notes the steps in `seen`."""

    def report(event):
        if "step" in event:
            seen.append(event["step"])
            if event["step"] == number:
                os.kill(os.getpid(), signal.SIGTERM)

    return report


def test_asked_to_end_it_ends_behind_a_checkpoint_and_in_the_last_step_as_ever(tmp_path, tiny_ref):
    ppo = {"max_new_tokens": 2}  # all responses are cut, which the warnings say of every step
    whole = train(tmp_path / "whole", tiny_ref, None, by="problem", ppo=ppo)
    assert any("at 5 of 5 steps, last at step 5" in warning for warning in whole.warnings)
    steps: list[int] = []
    with pytest.raises(EndedEarly, match="step 3"):
        train(tmp_path / "ended", tiny_ref, None, by="problem", ppo=ppo, report=ending_at(3, steps))
    assert [path.name for path in (tmp_path / "ended" / "job" / "checkpoints").iterdir()] == ["step-3"]
    last = train(tmp_path / "ended", tiny_ref, None, by="problem", ppo=ppo, report=ending_at(5, steps))
    assert steps == [1, 2, 3, 4, 5]
    assert last.step_s > 0
    assert (last.warnings, last.model.digest) == (whole.warnings, whole.model.digest)


@pytest.mark.parametrize("at", [2, 3])  # there is a checkpoint of step 2 by then, and none of step 3
def test_what_samples_beside_it_may_end_first_and_nothing_of_its_batch_is_learned(
    tmp_path, tiny_ref, monkeypatch, at
):
    whole, sample = train(tmp_path / "whole", tiny_ref, None, by="problem"), PolicySampler.sample
    ask = True

    def ending(self, prompts, *, step, streams):
        if step == at:
            if ask:
                os.kill(os.getpid(), signal.SIGTERM)
            raise SamplingEnded("it heard of it first")
        return sample(self, prompts, step=step, streams=streams)

    with monkeypatch.context() as patch:
        patch.setattr(PolicySampler, "sample", ending)
        with pytest.raises(EndedEarly, match=f"step {at}"):
            train(tmp_path / "ended", tiny_ref, None, by="problem")
        ask = False
        with pytest.raises(SamplingEnded):
            train(tmp_path / "broken", tiny_ref, None, by="problem")
    assert [path.name for path in (tmp_path / "ended" / "job" / "checkpoints").iterdir()] == [f"step-{at}"]
    last = train(tmp_path / "ended", tiny_ref, None, by="problem")
    assert last.model.digest == whole.model.digest


@pytest.mark.parametrize("value", ["adapter", "trunk"])
def test_only_the_policys_adapter_is_kept_and_it_moved(tmp_path, tiny_ref, reward_model, value):
    before = {path.name: path.read_bytes() for path in fetch(tiny_ref).iterdir() if path.is_file()}
    result = train(tmp_path, tiny_ref, reward_model, roles={"value": value})
    assert result.model.base == tiny_ref
    weights = load_file(fetch(result.model) / "adapter_model.safetensors")
    assert all("lora_" in name for name in weights)
    assert any(part.abs().max() > 0 for name, part in weights.items() if "lora_B" in name)
    assert before == {path.name: path.read_bytes() for path in fetch(tiny_ref).iterdir() if path.is_file()}
    assert result.figures["objective/kl"] != 0
    assert [step["val/episodes"] for step in read_records(result.history)] == [6.0] * 5


def test_the_full_twin_trains_all_weights(tmp_path, tiny_ref, reward_model):
    result = train(tmp_path, tiny_ref, reward_model, roles={"method": "full"})
    assert result.model.base is None
    start, end = (load_file(fetch(ref) / "model.safetensors") for ref in (tiny_ref, result.model))
    moved = [name for name in start if not torch.equal(start[name], end[name])]
    assert len(moved) > len(start) / 2


def test_reinforce_takes_one_optimizer_step_a_batch(tmp_path, tiny_ref, reward_model):
    result = train(tmp_path, tiny_ref, reward_model, ppo={"algorithm": "reinforce", "steps": 2})
    assert [step["policy/optimizer_steps"] for step in read_records(result.history)] == [1.0, 1.0]


def test_a_batch_of_one_is_learned_from(tmp_path, tiny_ref, reward_model):
    ppo = {"batch_size": 1, "minibatch_size": 1, "steps": 3}
    result = train(tmp_path, tiny_ref, reward_model, ppo=ppo)
    history = list(read_records(result.history))
    assert [step["val/episodes"] for step in history] == [1.0] * 3
    assert [step["policy/optimizer_steps"] for step in history] == [2.0] * 3  # one in each epoch
    assert all(math.isfinite(figure) for step in history for figure in step.values())
    assert all(step["reward/std"] == 0.0 for step in history)
    assert (result.steps, result.stopped) == (3, "")
    weights = load_file(fetch(result.model) / "adapter_model.safetensors")
    assert all(part.abs().max() > 0 for name, part in weights.items() if "lora_B" in name)
    assert history[-1]["objective/kl"] != 0


def test_single_silent_responses_end_a_training_once_there_are_sixteen_resumed_or_not(tmp_path, tiny_model):
    silent = silent_model(tmp_path / "silent", tiny_model)
    ppo = {"batch_size": 1, "minibatch_size": 1, "steps": 20}
    whole = train(tmp_path / "whole", silent, None, by="problem", ppo=ppo)
    assert whole.steps == 16
    assert "collapsed: 100% of the last 16 responses" in whole.stopped
    with pytest.raises(EndedEarly, match="step 9"):
        train(tmp_path / "ended", silent, None, by="problem", ppo=ppo, report=ending_at(9, []))
    resumed = train(tmp_path / "ended", silent, None, by="problem", ppo=ppo)
    assert (resumed.steps, resumed.stopped, resumed.model.digest) == (
        whole.steps,
        whole.stopped,
        whole.model.digest,
    )


def test_one_prompt_is_asked_again_and_again(tmp_path, tiny_ref, reward_model):
    result = train(tmp_path, tiny_ref, reward_model, rows=ROWS[:1], ppo={"steps": 1})
    assert (result.prompts, result.steps) == (1, 1)


def test_prompts_that_leave_no_room_are_left_out_and_counted(tmp_path, tiny_ref, reward_model):
    long = make_example("number " * 3000, "x")
    result = train(tmp_path / "some", tiny_ref, reward_model, rows=[*ROWS, long], ppo={"steps": 1})
    assert (result.prompts, result.too_long) == (8, 1)
    with pytest.raises(UserError, match="none of 1 prompts fits"):
        train(tmp_path / "none", tiny_ref, reward_model, rows=[long])


def test_what_cannot_be_rewarded_is_not_begun(tmp_path, tiny_ref, reward_model):
    with pytest.raises(UserError, match="no reward model"):
        train(tmp_path, tiny_ref, None)
    with pytest.raises(UserError, match="none of 0 prompts"):
        train(tmp_path, tiny_ref, reward_model, rows=[])


def test_every_lap_asks_every_prompt_once_in_another_order():
    places = [place for step in range(6) for place in batch_of(step, 4, 8, seed=1)]
    laps = [places[:8], places[8:16], places[16:]]
    assert all(sorted(lap) == list(range(8)) for lap in laps)
    assert laps[0] != laps[1] != laps[2]
    assert batch_of(1, 4, 8, seed=1) == places[4:8]
    assert batch_of(0, 5, 2, seed=0)[:2] != []
