"""Policies trained by two processes, through the real launch: what one process learns, two learn together."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tasks.core.errors import UserError
from tasks.core.examples import read_records
from tasks.core.references import ModelRef
from tasks.core.store import Store, fetch
from tasks.ppo.roles_config import RolesConfig
from tasks.ppo.stage import PolicyTrainingInputs, PolicyTrainingResult
from tests.flows.test_perl_killed import CONFIG, finish, inputs_of, kill_at


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tiny_ref: ModelRef) -> PolicyTrainingInputs:
    return inputs_of(tmp_path_factory.mktemp("inputs"), tiny_ref)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, inputs: PolicyTrainingInputs) -> PolicyTrainingResult:
    return finish(CONFIG, inputs, Store(str(tmp_path_factory.mktemp("alone"))))[0]


def same_up_to_rounding(one: PolicyTrainingResult, other: PolicyTrainingResult) -> None:
    first, second = (load_file(fetch(result.model) / "adapter_model.safetensors") for result in (one, other))
    assert first.keys() == second.keys()
    for name, weights in first.items():
        assert torch.allclose(weights, second[name], atol=1e-4), name
    for here, there in zip(read_records(one.history), read_records(other.history), strict=True):
        assert here == pytest.approx(there, rel=1e-3, abs=1e-4)


def test_two_processes_learn_what_one_learns_and_one_of_them_reports(alone, inputs, tmp_path):
    together, steps = finish(CONFIG, inputs, Store(str(tmp_path)), processes=2)
    assert steps == [1, 2, 3, 4, 5]
    same_up_to_rounding(together, alone)
    moved = load_file(fetch(together.model) / "adapter_model.safetensors")
    assert max(float(part.abs().max()) for name, part in moved.items() if "lora_B" in name) > 1e-2


@pytest.mark.slow
def test_a_training_of_two_of_which_one_is_killed_is_finished_by_one(alone, inputs, tmp_path):
    store = Store(str(tmp_path))
    work = kill_at("update", CONFIG, inputs, store, processes=2)
    assert [path.name for path in (work / "checkpoints").iterdir()] == ["step-2"]
    result, steps = finish(CONFIG, inputs, store)
    assert steps == [3, 4, 5]
    same_up_to_rounding(result, alone)


SHARDED = CONFIG.model_copy(
    update={
        "ppo": CONFIG.ppo.model_copy(update={"target_kl": 0.02, "epochs": 4}),
        "roles": RolesConfig(gradient_checkpointing=True),
    }
)


@pytest.fixture(scope="module")
def unsharded(tmp_path_factory: pytest.TempPathFactory, inputs: PolicyTrainingInputs) -> PolicyTrainingResult:
    result = finish(SHARDED, inputs, Store(str(tmp_path_factory.mktemp("unsharded"))))[0]
    stopped = [step["policy/stopped_early"] for step in read_records(result.history)]
    assert (
        1.0 in stopped
    )  # so that the case in which a minibatch is looked at and not learnt from is among them
    return result


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_shards_a_training_and_a_kill_changes_nothing(stage, unsharded, inputs, tmp_path):
    zero = {"stage": stage} | ({"stage3_param_persistence_threshold": 0} if stage == 3 else {})
    file = tmp_path / "zero.json"
    file.write_text(json.dumps({"zero_optimization": zero}))
    config = SHARDED.model_copy(
        update={"ppo": SHARDED.ppo.model_copy(update={"deepspeed": str(file)}), "checkpoint_steps": 2}
    )
    store = Store(str(tmp_path / "store"))
    work = kill_at("rollout", config, inputs, store, processes=2)
    (kept,) = (work / "checkpoints").iterdir()
    parts = {path.name for path in kept.glob("optimizer*")}
    assert parts == {"optimizer-0-of-2.safetensors", "optimizer-1-of-2.safetensors"}
    result, steps = finish(config, inputs, store, processes=2)
    assert steps == [3, 4, 5]
    same_up_to_rounding(result, unsharded)


def test_a_batch_that_two_cannot_share_is_refused(inputs, tmp_path: Path):
    odd = CONFIG.model_copy(update={"ppo": CONFIG.ppo.model_copy(update={"minibatch_size": 3})})
    with pytest.raises(UserError, match="2 processes cannot share 3 responses") as error:
        finish(odd, inputs, Store(str(tmp_path)), processes=2)
    assert error.value.field == "ppo.minibatch_size"
