"""Rewards that read a policy's texts: a merged reward model of another architecture and other tokens, and a service."""

import threading
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tasks.core.digests import folder_digest
from tasks.core.errors import UserError
from tasks.core.examples import make_example, read_records, write_rows
from tasks.core.models import load_tokenizer, render
from tasks.core.references import ModelRef
from tasks.core.stage import Report
from tasks.core.store import fetch
from tasks.ppo.config import PPOConfig
from tasks.ppo.full_models import load_roles
from tasks.ppo.group_config import GroupConfig
from tasks.ppo.roles_config import RolesConfig
from tasks.ppo.sampling import PolicySampler
from tasks.ppo.scores import by_verifier, texts
from tasks.ppo.stage import STAGE, PolicyTrainingInputs, PolicyTrainingResult
from tasks.ppo.training import batch_of
from tasks.ppo.training_config import PolicyTrainingConfig
from tasks.problems.base import ProblemConfig
from tasks.problems.load import load_problem
from tasks.reward_model.normalisation import read_normalisation
from tasks.rewards.config import RewardConfig
from tasks.rewards.endpoint_config import RewardEndpointConfig
from tests.scripted_server import Reply, ScriptedServer
from tests.tiny_model import build_tiny_model
from tests.unit.ppo_roles import rollout
from tests.unit.reward_pairs import TEST, raw_reward, sequence, train_reward

PPO = PPOConfig(
    steps=2, batch_size=4, minibatch_size=2, epochs=1, max_new_tokens=6,
    policy_learning_rate=1e-2, value_learning_rate=1e-2,
)  # fmt: skip
PROBLEM = ProblemConfig(name="exact_match")
ROWS = [make_example(f"What is number {number} in Berlin?", "you are very welcome") for number in range(6)]
OTHER_TEXTS = ("Où est la gare ? Elle est à gauche.", "Merci beaucoup, à demain !", "zwölf Boxkämpfer jagen")


def build_other_model(folder: Path) -> ModelRef:
    """A GPT-2 beside the Llama of the policy: learned positions, another width, tokens and end of turn of its own."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    build_tiny_model(folder, seed=5, vocab_texts=OTHER_TEXTS)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=24, n_layer=2, n_head=2, n_positions=512, initializer_range=0.1,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        GPT2LMHeadModel(config).save_pretrained(folder)
    return ModelRef(uri=str(folder), digest=folder_digest(folder))


@pytest.fixture(scope="module")
def other_reward(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    """A reward model of full weights; only its folder, digest and texts tie it to the policy."""
    folder = tmp_path_factory.mktemp("other")
    return train_reward(folder, build_other_model(folder / "gpt2"), test=TEST, method="full").model


def train(
    folder: Path,
    model: ModelRef,
    reward: RewardConfig,
    reward_model: ModelRef | None = None,
    *,
    ppo: PPOConfig = PPO,
    report: Report = lambda event: None,
    **roles: Any,
) -> PolicyTrainingResult:
    out = folder / "job" / "out"
    out.mkdir(parents=True, exist_ok=True)
    config = PolicyTrainingConfig(
        ppo=ppo,
        group=GroupConfig(responses=2),
        roles=RolesConfig(**roles),
        reward=reward,
        checkpoint_steps=1,
    )
    inputs = PolicyTrainingInputs(
        model=model,
        prompts=write_rows(folder / "prompts.jsonl", ROWS),
        problem=PROBLEM,
        reward_model=reward_model,
    )
    return STAGE.run(config, inputs, out, report)


def first_responses(
    model: ModelRef, *, batch: int = PPO.batch_size, **roles: Any
) -> list[tuple[list[Any], str]]:
    """Prompt and text of the first step's responses, sampled as the training samples them."""
    tokenizer, problem = load_tokenizer(model), load_problem(PROBLEM)
    loaded = load_roles(RolesConfig(**roles), model, None, temperature=PPO.temperature)
    sampler = PolicySampler(loaded, tokenizer, max_new_tokens=PPO.max_new_tokens, seed=PPO.seed)
    asked = [problem.prompt(ROWS[place]) for place in batch_of(0, batch, len(ROWS), PPO.seed)]
    drawn = sampler.sample([render(tokenizer, prompt) for prompt in asked], step=0, streams=range(len(asked)))
    return list(zip(asked, texts(drawn, tokenizer), strict=True))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_reward_model_of_another_architecture_reads_the_texts(
    tmp_path: Path, tiny_ref: ModelRef, other_reward: ModelRef, method: str
) -> None:
    """The rewards of the first step are those that transformers gives, one text at a time, in the tokens of the reward
    model, which are not those of the policy."""
    from transformers import AutoModelForSequenceClassification

    before = folder_digest(Path(other_reward.uri))
    result = train(tmp_path, tiny_ref, RewardConfig(by="model"), other_reward, method=method)
    network = AutoModelForSequenceClassification.from_pretrained(other_reward.uri)
    assert network.config.model_type == "gpt2"
    normalisation = read_normalisation(Path(other_reward.uri))
    answered = first_responses(tiny_ref, method=method)
    theirs = [raw_reward(network, sequence(other_reward, prompt, text)) for prompt, text in answered]
    span = normalisation.high - normalisation.low
    expected = [min(1.0, max(0.0, (raw - normalisation.low) / span)) for raw in theirs]
    history = list(read_records(result.history))
    assert history[0]["reward/mean"] == pytest.approx(fmean(expected), abs=1e-4)
    assert len(set(expected)) > 1
    assert all(sequence(other_reward, *one) != sequence(tiny_ref, *one) for one in answered)
    assert folder_digest(Path(other_reward.uri)) == before
    name = "adapter_model.safetensors" if method == "lora" else "model.safetensors"
    weights = load_file(fetch(result.model) / name)
    if method == "lora":
        assert result.model.base == tiny_ref
        assert any(part.abs().max() > 0 for key, part in weights.items() if "lora_B" in key)
    else:
        start = load_file(Path(tiny_ref.uri) / name)
        assert any(not torch.equal(start[key], weights[key]) for key in start)


def test_a_reward_adapter_of_another_base_is_refused_with_both_names(
    tmp_path: Path, tiny_ref: ModelRef
) -> None:
    """Merged into its own base it is welcome, and so it is where nothing is shared: there it reads the texts."""
    folder = build_tiny_model(tmp_path / "other", seed=1)
    other = ModelRef(uri=str(folder), digest=folder_digest(folder), facts={"name": "other-base"})
    adapter = train_reward(tmp_path / "reward", other, test=TEST).model
    reward = RewardConfig(by="model")
    with pytest.raises(UserError, match="other-base") as caught:
        train(tmp_path / "adapter", tiny_ref, reward, adapter)
    assert tiny_ref.digest[:12] in caught.value.fault
    assert caught.value.field == "reward_model"
    assert "merge" in caught.value.mend
    rloo = PPO.model_copy(update={"algorithm": "rloo", "steps": 1})
    assert train(tmp_path / "rloo", tiny_ref, reward, adapter, ppo=rloo).steps == 1


def test_the_same_reward_model_gives_the_same_policy_again(
    tmp_path: Path, tiny_ref: ModelRef, other_reward: ModelRef
) -> None:
    first, again = (
        train(tmp_path / name, tiny_ref, RewardConfig(by="model"), other_reward)
        for name in ("first", "again")
    )
    assert first.model.digest == again.model.digest


def test_an_endpoint_rewards_the_policys_responses(tmp_path: Path, tiny_ref: ModelRef) -> None:
    """A service that counts letters: the first step's mean reward is the one of the texts that were sampled."""

    def letters(text: str) -> float:
        return min(1.0, sum(map(str.isalpha, text)) / 40)

    def count_letters(request: dict[str, Any]) -> Reply:
        return Reply(body={"scores": [letters(one["completion"]) for one in request["inputs"]]})

    with ScriptedServer(count_letters) as server:
        endpoint = RewardEndpointConfig(url=f"{server.url}/chat/completions", batch_size=3)
        result = train(tmp_path, tiny_ref, RewardConfig(by="endpoint", endpoint=endpoint))
    answered = first_responses(tiny_ref)
    expected = [letters(text) for _, text in answered]
    first = next(iter(read_records(result.history)))
    assert first["reward/mean"] == pytest.approx(fmean(expected), abs=1e-6)
    asked = {
        one["completion"]: one["prompt"] for request in server.requests[:2] for one in request.json["inputs"]
    }
    assert asked == {text: prompt for prompt, text in answered}
    assert len(server.requests) == 2 * PPO.steps  # four responses a step, in requests of three and one


def test_a_service_that_fails_in_the_middle_ends_the_training_with_its_name(
    tmp_path: Path, tiny_ref: ModelRef
) -> None:
    def once(request: dict[str, Any]) -> Reply:
        good = len(server.requests) == 1
        return Reply(body={"scores": [0.5 if good else 7] * len(request["inputs"])})

    with ScriptedServer(once) as server:
        url = f"{server.url}/chat/completions"
        reward = RewardConfig(by="endpoint", endpoint=RewardEndpointConfig(url=url))
        with pytest.raises(UserError, match=r"7.0, not a number from 0 to 1") as caught:
            train(tmp_path, tiny_ref, reward)
    assert url in caught.value.fault


def test_a_service_that_is_away_between_two_batches_is_waited_for(tiny_ref: ModelRef) -> None:
    """It restarts: nobody listens at its address when the second batch comes, and then it is there again."""

    def half(request: dict[str, Any]) -> Reply:
        return Reply(body={"scores": [0.5] * len(request["inputs"])})

    tokenizer, problem = load_tokenizer(tiny_ref), load_problem(PROBLEM)
    with ScriptedServer(half) as first:
        endpoint = RewardEndpointConfig(url=f"{first.url}/chat/completions", backoff_s=0.4)
        score = by_verifier(RewardConfig(by="endpoint", endpoint=endpoint), problem, tokenizer)
        assert score(rollout(), ROWS[:3]).tolist() == [0.5] * 3
        port = first.port
    again = ScriptedServer(half, port=port, listening=False)
    coming = threading.Timer(0.6, again.__enter__)
    coming.start()
    try:
        assert score(rollout(), ROWS[:3]).tolist() == [0.5] * 3
        assert len(again.requests) == 1
    finally:
        coming.join()
        again.__exit__(None, None, None)


@pytest.mark.parametrize("algorithm", ["ppo", "rloo"])
def test_responses_on_which_the_verifier_fails_are_counted_and_the_reason_is_said(
    tmp_path: Path, tiny_ref: ModelRef, algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reward = RewardConfig(by="function", function="tests.unit.verifiers:doubtful")
    ppo = PPO.model_copy(update={"algorithm": algorithm, "batch_size": 12})

    monkeypatch.delenv("SURE", raising=False)

    def mended(event: Any) -> None:
        if event.get("step") == 1:
            monkeypatch.setenv("SURE", "yes")

    def killed(event: Any) -> None:
        mended(event)
        if event.get("step") == PPO.steps:
            raise KeyboardInterrupt

    whole = train(tmp_path / "whole", tiny_ref, reward, ppo=ppo, report=mended)
    monkeypatch.delenv("SURE")
    history = list(read_records(whole.history))
    failed, none = (step["reward/failed"] for step in history)
    assert 0 < failed < 12
    assert none == 0
    if algorithm == "ppo":
        answered = [text for _, text in first_responses(tiny_ref, batch=12)]
        assert failed == sum(sum(text.encode()) % 3 == 0 for text in answered)
    (said,) = [warning for warning in whole.warnings if "the verifier failed" in warning]
    assert f"{failed:.0f} of 12 responses" in said
    assert "it returned nan" in said
    assert "at 1 of 2 steps, last at step 1" in said
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", tiny_ref, reward, ppo=ppo, report=killed)
    resumed = train(tmp_path / "killed", tiny_ref, reward, ppo=ppo)
    assert resumed.warnings == whole.warnings
    assert list(read_records(resumed.history)) == history


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_a_verifier_that_fails_on_a_whole_batch_ends_the_training(
    tmp_path: Path, tiny_ref: ModelRef, algorithm: str
) -> None:
    reward = RewardConfig(by="function", function="tests.unit.verifiers:nothing")
    with pytest.raises(
        UserError, match="failed on all of 4 answers, at last because it returned nan"
    ) as caught:
        train(tmp_path, tiny_ref, reward, ppo=PPO.model_copy(update={"algorithm": algorithm}))
    assert caught.value.field == "reward.function"
