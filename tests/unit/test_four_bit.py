"""Adapters on 4-bit weights (QLoRA): a student, a reward model and a policy train them."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tasks.core.digests import folder_digest
from tasks.core.errors import UserError
from tasks.core.examples import make_example, write_rows
from tasks.core.models import check_four_bit
from tasks.core.references import ModelRef
from tasks.core.store import fetch
from tasks.ppo.config import PPOConfig
from tasks.ppo.roles_config import RolesConfig, check
from tasks.ppo.stage import STAGE, PolicyTrainingInputs
from tasks.ppo.training_config import PolicyTrainingConfig
from tasks.problems.base import ProblemConfig
from tasks.reward_model.config import RewardTrainingConfig
from tasks.rewards.config import RewardConfig
from tasks.sft import stage as sft
from tasks.sft.config import TrainingConfig, check_processes
from tasks.sft.trainer_arguments import trainer_arguments
from tests.tiny_model import build_tiny_model
from tests.unit.ppo_roles import roles_on, rollout
from tests.unit.reward_pairs import TEST, train_reward

needs_bitsandbytes = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed (the extra `bitsandbytes`)"
)
ROWS = [make_example(f"What is number {number} in Berlin?", "you are very welcome") for number in range(8)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    """A tiny model of the width of a block of 4-bit weights."""
    folder = build_tiny_model(tmp_path_factory.mktemp("base") / "tiny", width=64)
    return ModelRef(uri=str(folder), digest=folder_digest(folder))


def adapter_of(model: ModelRef) -> dict[str, Any]:
    return dict(load_file(fetch(model) / "adapter_model.safetensors"))


def moved(model: ModelRef) -> float:
    """B begins at zero."""
    return max(float(part.abs().max()) for name, part in adapter_of(model).items() if "lora_B" in name)


@needs_bitsandbytes
def test_the_base_is_in_four_bits_and_the_reference_stays_near_the_whole_one(base: ModelRef):
    import bitsandbytes

    roles, whole = roles_on(base, method="qlora"), roles_on(base, method="lora")
    layers = [part for part in roles.model.modules() if isinstance(part, bitsandbytes.nn.Linear4bit)]
    assert len(layers) == 2 * 7  # all matrices of both layers, and not the output layer
    assert all(part.weight.dtype == torch.uint8 and not part.weight.requires_grad for part in layers)
    batch = rollout()
    found, expected = roles.reference(batch)[batch.mask], whole.reference(batch)[batch.mask]
    assert 0 < (found - expected).abs().max() < 0.5
    assert all(part.dtype == torch.float32 for part in roles.trainable.values())


@needs_bitsandbytes
def test_a_policy_and_its_reward_model_are_trained_on_one_four_bit_base(tmp_path: Path, base: ModelRef):
    reward = train_reward(tmp_path / "reward", base, test=TEST, max_steps=8, method="qlora")
    assert reward.model.base == base
    assert moved(reward.model) > 1e-4
    config = PolicyTrainingConfig(
        ppo=PPOConfig(
            steps=3,
            batch_size=6,
            minibatch_size=3,
            max_new_tokens=5,
            policy_learning_rate=1e-2,
            target_kl=0.0,
        ),
        roles=RolesConfig(method="qlora"),
        reward=RewardConfig(by="model"),
    )
    inputs = PolicyTrainingInputs(
        model=base,
        prompts=write_rows(tmp_path / "prompts.jsonl", ROWS),
        problem=ProblemConfig(name="exact_match"),
        reward_model=reward.model,
    )
    results = []
    for name in ("one", "again"):
        out = tmp_path / name / "out"
        out.mkdir(parents=True)
        results.append(STAGE.run(config, inputs, out, lambda event: None))
    assert results[0].model.base == base
    assert moved(results[0].model) > 1e-3
    first, second = (adapter_of(result.model) for result in results)
    assert all(torch.equal(part, second[name]) for name, part in first.items())


@needs_bitsandbytes
@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_trls_trainers_take_a_four_bit_base_too(tmp_path: Path, base: ModelRef, algorithm: Any):
    config = PolicyTrainingConfig(
        ppo=PPOConfig(
            algorithm=algorithm, steps=2, batch_size=8, max_new_tokens=5, policy_learning_rate=1e-2
        ),
        roles=RolesConfig(method="qlora"),
        reward=RewardConfig(by="problem"),
    )
    inputs = PolicyTrainingInputs(
        model=base,
        prompts=write_rows(tmp_path / "prompts.jsonl", ROWS),
        problem=ProblemConfig(name="exact_match"),
    )
    out = tmp_path / "out"
    out.mkdir()
    assert STAGE.run(config, inputs, out, lambda event: None).model.base == base


@needs_bitsandbytes
def test_a_student_is_fine_tuned_on_four_bit_weights(tmp_path: Path, base: ModelRef):
    config = TrainingConfig(method="qlora", max_steps=3, learning_rate=1e-2, batch_size=4)
    inputs = sft.TrainingInputs(
        model=base,
        train=write_rows(tmp_path / "rows.jsonl", ROWS),
        problem=ProblemConfig(name="exact_match"),
    )
    out = tmp_path / "out"
    out.mkdir()
    assert moved(sft.STAGE.run(config, inputs, out, lambda event: None).model) > 1e-3


@pytest.mark.parametrize("config", [TrainingConfig, RewardTrainingConfig])
def test_on_a_gpu_the_moments_are_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Any):
    """As QLoRA's are; all else, and machines without a GPU, keep torch's optimizer."""
    from transformers.training_args import OptimizerNames

    def optimizer(method: str, gpu: bool) -> str | None:
        with monkeypatch.context() as patch:
            patch.setattr(torch.cuda, "is_available", lambda: gpu)
            keywords = trainer_arguments(config(method=method, precision="float32"), tmp_path)
        return keywords.get("optim")

    assert OptimizerNames(optimizer("qlora", gpu=True)) is OptimizerNames.PAGED_ADAMW
    assert [optimizer(method, gpu) for method, gpu in (("qlora", False), ("lora", True), ("full", True))] == [
        None
    ] * 3


def test_without_bitsandbytes_each_is_refused_by_its_field(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for call, field in (
        (
            lambda: check_processes(TrainingConfig(method="qlora"), 1, field="reward_model"),
            "reward_model.method",
        ),
        (lambda: check(RolesConfig(method="qlora")), "roles.method"),
        (lambda: check_four_bit(field="training.method"), "training.method"),
    ):
        with pytest.raises(UserError, match="bitsandbytes") as error:
            call()
        assert error.value.field == field
