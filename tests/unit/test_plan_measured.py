"""The planned memory of trainings against what they held: every tensor alive at the fullest moment, counted."""

import os
import weakref
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM

from tasks.core.digests import folder_digest
from tasks.core.examples import make_example, write_rows
from tasks.core.generators.prefix import compute_prefix
from tasks.core.models import load_tokenizer, render
from tasks.core.references import ModelRef
from tasks.plan.known_models import from_config
from tasks.plan.memory import CPU, Memory
from tasks.plan.policy_training import Reward, policy_training
from tasks.plan.trainers import fine_tuning, reward_training
from tasks.ppo import sampling
from tasks.ppo.config import PPOConfig
from tasks.ppo.roles_config import RolesConfig
from tasks.ppo.stage import PolicyTrainingInputs
from tasks.ppo.stage import run as train_policy
from tasks.ppo.training_config import PolicyTrainingConfig
from tasks.problems.base import ProblemConfig
from tasks.problems.load import load_problem
from tasks.reward_model.config import RewardTrainingConfig
from tasks.reward_model.pairs import make_preference
from tasks.reward_model.stage import RewardTrainingInputs
from tasks.reward_model.stage import run as train_reward
from tasks.rewards.config import RewardConfig
from tasks.sft.config import TrainingConfig
from tasks.sft.stage import TrainingInputs
from tasks.sft.stage import run as fine_tune

pytestmark = pytest.mark.slow

WITHIN = 0.15
PROBLEM = ProblemConfig(name="exact_match")
STEPS = 2  # the second one has the optimizer's state


class Live(TorchDispatchMode):
    """Counts the bytes of all tensors that operations have seen and that are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        keywords = keywords or {}
        result = operation(*arguments, **keywords)
        for tensor in tree_leaves((arguments, keywords, result)):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu":
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._alive:
            self._alive[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self._alive.pop(key)


class Enough(Exception):
    """Ends a training before it saves."""


def stop(event) -> None:
    if event.get("step") == STEPS:
        raise Enough


def peak_of(train) -> int:
    """The most bytes that were alive in `train`, which `stop` ends."""
    live = Live()
    with live, pytest.raises(Enough):
        train()
    return live.peak


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_ref) -> ModelRef:
    """Some 900,000 random parameters, so that weights and activations, not small change, are what counts.

    PLAN_MODEL names a folder to measure instead, such as that of a real model.
    """
    folder = Path(os.environ.get("PLAN_MODEL") or tmp_path_factory.mktemp("plan") / "model")
    if not folder.exists():
        config = AutoConfig.from_pretrained(tiny_ref.uri)
        config.update({"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "head_dim": 32})
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        load_tokenizer(tiny_ref).save_pretrained(folder)
    return ModelRef(uri=str(folder), digest=folder_digest(folder))


@pytest.fixture(scope="module")
def shape(model):
    return from_config(AutoConfig.from_pretrained(model.uri), field="model")


def compare(planned: Memory, measured: int) -> None:
    """Prints both, for `pytest -rP`."""
    print(
        f"planned {planned.total / 1e6:.1f} MB, measured {measured / 1e6:.1f} MB: {planned.total / measured:.3f}"
    )
    assert planned.total == pytest.approx(measured, rel=WITHIN), planned


def words(number: int) -> str:
    """Longer than any row may be for even numbers, shorter for odd ones: so that batches are padded."""
    return f"{number} " + "What is the capital of France? " * (40 if number % 2 == 0 else 2)


def measured_fine_tuning(folder: Path, model: ModelRef, config: TrainingConfig) -> int:
    rows = [make_example(words(number), "Paris") for number in range(config.batch_size * STEPS * 2)]
    inputs = TrainingInputs(model=model, train=write_rows(folder / "rows.jsonl", rows), problem=PROBLEM)
    return peak_of(lambda: fine_tune(config, inputs, folder / "out", stop))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method": "full"},
        {"method": "full", "precision": "bfloat16"},
        {"method": "full", "gradient_accumulation": 2},
        {"gradient_checkpointing": True},
        {"adapter": {"modules": "q_proj,v_proj", "rank": 4}},
    ],
    ids=str,
)
def test_fine_tuning_holds_what_is_planned(tmp_path, model, shape, changes):
    settings = {
        "batch_size": 4,
        "max_length": 96,
        "max_steps": STEPS,
        "precision": "float32",
        "batching": "random",
    } | changes
    config = TrainingConfig(**settings)
    planned = fine_tuning(shape, config, CPU)
    measured = measured_fine_tuning(tmp_path, model, config)
    compare(planned, measured)


@pytest.mark.parametrize(
    "changes",
    [{}, {"method": "full"}, {"method": "full", "precision": "bfloat16"}, {"gradient_checkpointing": True}],
    ids=str,
)
def test_a_reward_models_training_holds_what_is_planned(tmp_path, model, shape, changes):
    settings = {
        "batch_size": 2,
        "max_length": 96,
        "max_steps": STEPS,
        "precision": "float32",
        "batching": "random",
    } | changes
    config = RewardTrainingConfig(**settings)
    pairs = [
        make_preference([{"role": "user", "content": words(number)}], "Paris", "Berlin")
        for number in range(config.batch_size * STEPS)
    ]
    inputs = RewardTrainingInputs(model=model, train=write_rows(tmp_path / "pairs.jsonl", pairs))
    measured = peak_of(lambda: train_reward(config, inputs, tmp_path / "out", stop))
    planned = reward_training(shape, config, CPU)
    compare(planned, measured)


@pytest.mark.parametrize(
    ("roles", "ppo"),
    [
        ({}, {}),
        ({"value": "trunk"}, {}),
        ({"value": "model"}, {}),
        ({"value": "model", "precision": "bfloat16"}, {}),
        ({"method": "full"}, {}),
        ({"method": "full", "precision": "bfloat16"}, {}),
        ({"gradient_checkpointing": True}, {}),
        ({}, {"micro_batch_size": 1}),  # generation is what is fullest
    ],
    ids=str,
)
def test_ppo_holds_what_is_planned(tmp_path, model, shape, roles, ppo, monkeypatch):
    cut = lambda sampler, tokens: "length" if len(tokens) == 16 else None  # noqa: E731 - responses of full length
    monkeypatch.setattr(sampling.PolicySampler, "_finish", cut)
    # What prompts begin with in common is read once; the plan does not know of it.
    monkeypatch.setattr(sampling, "compute_prefix", lambda model, prompts: compute_prefix(model, prompts[:1]))
    settings = {"steps": STEPS, "batch_size": 8, "minibatch_size": 8, "micro_batch_size": 4, "epochs": 1}
    config = PolicyTrainingConfig(
        ppo=PPOConfig(max_new_tokens=16, target_kl=0.0, **settings | ppo),
        roles=RolesConfig(**{"precision": "float32"} | roles),
        reward=RewardConfig(by="problem"),
    )
    rows = [make_example(f"{number}" + " word" * (40 + number), "Paris") for number in range(10, 18)]
    tokenizer, problem = load_tokenizer(model), load_problem(PROBLEM)
    prompt = max(len(render(tokenizer, problem.prompt(row))) for row in rows)
    inputs = PolicyTrainingInputs(
        model=model, prompts=write_rows(tmp_path / "prompts.jsonl", rows), problem=PROBLEM
    )
    measured = peak_of(lambda: train_policy(config, inputs, tmp_path / "out", stop))
    planned = policy_training(shape, config.ppo, config.roles, Reward("verifier"), CPU, prompt=prompt)
    compare(planned, measured)
