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
from tasks.ppo.training_config import PolicyTrainingConfig
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


def placed(stage: int, folder: Path) -> tuple[PolicyTrainingConfig, int]:
    """SHARDED by that stage of ZeRO, and the processes that it takes; by one process for stage 0."""
    config = SHARDED.model_copy(update={"checkpoint_steps": 2})
    if not stage:
        return config, 1
    zero = {"stage": stage} | ({"stage3_param_persistence_threshold": 0} if stage == 3 else {})
    file = folder / f"zero-{stage}.json"
    file.write_text(json.dumps({"zero_optimization": zero}))
    return config.model_copy(update={"ppo": config.ppo.model_copy(update={"deepspeed": str(file)})}), 2


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 2), (3, 3), (2, 0), (0, 3), (3, 2)])
def test_deepspeed_shards_a_training_and_after_a_kill_any_sharding_goes_on(
    before, after, unsharded, inputs, tmp_path
):
    store = Store(str(tmp_path / "store"))
    config, processes = placed(before, tmp_path)
    work = kill_at("rollout", config, inputs, store, processes=processes)
    (kept,) = (work / "checkpoints").iterdir()
    assert len(list(kept.glob("optimizer*"))) == 1
    config, processes = placed(after, tmp_path)
    result, steps = finish(config, inputs, store, processes=processes)
    assert steps == [3, 4, 5]
    same_up_to_rounding(result, unsharded)


def test_a_batch_that_two_cannot_share_is_refused(inputs, tmp_path: Path):
    odd = CONFIG.model_copy(update={"ppo": CONFIG.ppo.model_copy(update={"minibatch_size": 3})})
    with pytest.raises(UserError, match="2 processes cannot share 3 responses") as error:
        finish(odd, inputs, Store(str(tmp_path)), processes=2)
    assert error.value.field == "ppo.minibatch_size"
