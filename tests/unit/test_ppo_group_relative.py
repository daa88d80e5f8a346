"""RLOO and GRPO: advantages by hand, what they learn, and when they stop."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tasks.core.errors import UserError
from tasks.core.examples import Example, make_example, read_records, write_rows
from tasks.core.models import load_model, load_tokenizer, render
from tasks.core.references import ModelRef
from tasks.core.store import fetch
from tasks.ppo.config import PPOConfig
from tasks.ppo.group_config import GroupConfig, check_group
from tasks.ppo.group_progress import following, group_warning_signs
from tasks.ppo.group_relative import load_group_policy, make_group_trainer, train_group_relative
from tasks.ppo.roles_config import RolesConfig
from tasks.ppo.scores import Failures
from tasks.ppo.stage import STAGE, PolicyTrainingInputs, PolicyTrainingResult
from tasks.ppo.training import Prompt, batch_of
from tasks.ppo.training_config import PolicyTrainingConfig
from tasks.problems.base import ProblemConfig, Score
from tasks.problems.exact_match import ExactMatch
from tasks.problems.load import load_problem
from tasks.rewards.config import RewardConfig
from tests.unit.ppo_roles import naive, rollout
from tests.unit.reward_pairs import train_reward
from tests.unit.small_grow import silent_model

QUICK = {
    "steps": 4,
    "batch_size": 8,
    "micro_batch_size": 4,
    "max_new_tokens": 5,
    "policy_learning_rate": 1e-2,
    "kl_coefficient": 0.05,
}
PROBLEM = ProblemConfig(name=f"{__name__}:Vowels")
ROWS = [make_example(f"What is number {number} in Berlin?", "you are very welcome") for number in range(5)]


class Vowels(ExactMatch):
    """A problem whose score most answers differ in: the share of vowels."""

    def score(self, example: Example, completion: str) -> Score:
        vowels = sum(letter in "aeiou" for letter in completion)
        return Score(value=vowels / max(1, len(completion)), answer=completion)


def config_of(algorithm: str, **changes: Any) -> PPOConfig:
    return PPOConfig(**QUICK | {"algorithm": algorithm} | changes)


def prompts_of(model: ModelRef) -> list[Prompt]:
    tokenizer, problem = load_tokenizer(model), load_problem(PROBLEM)
    return [Prompt(row, render(tokenizer, problem.prompt(row))) for row in ROWS]


class Half:
    """Rewards the share of a response's tokens that lie on one side of the output layer: a policy that guesses gets
    about a half, and to get more it has but to turn its hidden states that way."""

    def __init__(self, model: ModelRef) -> None:
        head = load_model(model).lm_head.weight.detach()
        self.good = (head @ head[7]) > 0

    def __call__(self, batch: Any, examples: Any) -> torch.Tensor:
        return (self.good[batch.responses] & batch.mask).sum(1) / batch.mask.sum(1)


def trainer_of(folder: Path, model: ModelRef, algorithm: str, *, score: Any = None, **changes: Any) -> Any:
    """TRL's trainer after two steps, so that the policy has left its reference."""
    group = GroupConfig(responses=4, **changes.pop("group", {}))
    config, roles = config_of(algorithm, **{"steps": 2} | changes), RolesConfig()
    policy = load_group_policy(config, group, roles, model)
    score = score or Half(model)
    parts = (config, group, roles, policy, load_tokenizer(model), score, prompts_of(model))
    trainer = make_group_trainer(*parts, folder / "checkpoints")
    trainer.train()
    return trainer


def kl_of(trainer: Any, batch: Any) -> torch.Tensor:
    """KL in nats per response, the long way: by plain forwards with the adapter and without it."""
    trainer.model.eval()
    policy, _ = naive(trainer.model, batch)
    with trainer.model.disable_adapter():
        reference, _ = naive(trainer.model, batch)
    trainer.model.train()
    return (policy - reference).sum(1)


ASKED = [{"prompt": place} for place in "11112222"]


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_rloo_takes_the_mean_of_the_other_rewards_off(tmp_path, tiny_ref, beta):
    trainer = trainer_of(tmp_path, tiny_ref, "rloo", kl_coefficient=beta)
    found = trainer._generate_and_score_completions(ASKED)["advantages"].tolist()
    batch = trainer.reward_funcs[0].__self__.rollout
    rewards = (Half(tiny_ref)(batch, None) - beta * kl_of(trainer, batch)).tolist()
    for at, reward in enumerate(rewards):
        group = at // 4 * 4
        others = [rewards[other] for other in range(group, group + 4) if other != at]
        assert found[at] == pytest.approx(reward - sum(others) / 3, abs=1e-4)
    assert len(set(rewards)) > 2


@pytest.mark.parametrize("scale", ["auto", "batch", "none"])
def test_grpo_measures_rewards_by_the_spread_of_their_group(tmp_path, tiny_ref, scale):
    trainer = trainer_of(tmp_path, tiny_ref, "grpo", group={"scale_rewards": scale})
    found = trainer._generate_and_score_completions(ASKED)["advantages"]
    scores = Half(tiny_ref)(trainer.reward_funcs[0].__self__.rollout, None)
    groups = scores.view(2, 4)
    spread = {"auto": groups.std(1, keepdim=True) + 1e-4, "batch": scores.std() + 1e-4, "none": 1.0}
    expected = (groups - groups.mean(1, keepdim=True)) / spread[scale]
    torch.testing.assert_close(found, expected.view(-1), rtol=1e-4, atol=1e-5)
    assert float(groups.std(1).min()) > 0


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_the_kl_is_that_of_plain_forwards_and_prompts_are_asked_as_they_are(tmp_path, tiny_ref, algorithm):
    trainer = trainer_of(tmp_path, tiny_ref, algorithm)
    batch = trainer._generate_and_score_completions(ASKED)
    trainer._metrics["train"].clear()
    trainer.current_gradient_accumulation_steps = 1
    trainer._compute_loss(trainer.model, batch)
    sampled = trainer.reward_funcs[0].__self__.rollout
    kl = kl_of(trainer, sampled)
    assert trainer._metrics["train"]["objective/kl"] == [pytest.approx(float(kl.mean()), abs=1e-4)]
    assert float(kl.abs().max()) > 0.01
    asked = [
        row[keep.bool()].tolist() for row, keep in zip(batch["prompt_ids"], batch["prompt_mask"], strict=True)
    ]
    prompts = prompts_of(tiny_ref)
    assert asked == [prompts[int(row["prompt"])].tokens for row in ASKED]


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_the_reward_rises_within_twelve_steps_and_the_base_stays(tmp_path, tiny_ref, algorithm):
    before = {path.name: path.read_bytes() for path in fetch(tiny_ref).iterdir() if path.is_file()}
    config = config_of(
        algorithm, steps=12, batch_size=64, micro_batch_size=64, kl_coefficient=0.001, schedule="constant"
    )
    group, roles = GroupConfig(), RolesConfig()
    policy = load_group_policy(config, group, roles, tiny_ref)
    parts = (config, group, roles, policy, load_tokenizer(tiny_ref), Half(tiny_ref), prompts_of(tiny_ref))
    events: list[dict[str, Any]] = []
    trained, model = train_group_relative(
        *parts, tmp_path / "checkpoints", 100, events.append, tmp_path / "model"
    )
    rewards = [step["reward/mean"] for step in trained.figures]
    assert rewards[0] == pytest.approx(0.5, abs=0.05)
    assert sum(rewards[-3:]) / 3 > rewards[0] + 0.15
    assert [event["step"] for event in events if "step" in event] == list(range(1, 13))
    assert events[-1]["progress"] == [12, 12]
    assert trained.figures[0]["objective/kl"] == pytest.approx(0.0, abs=1e-5)
    assert trained.figures[-1]["objective/kl"] > 1
    assert model.base == tiny_ref
    assert before == {path.name: path.read_bytes() for path in fetch(tiny_ref).iterdir() if path.is_file()}
    moved = load_file(Path(model.uri) / "adapter_model.safetensors")
    assert all(part.abs().max() > 0 for name, part in moved.items() if "lora_B" in name)
    # What was saved is what was trained, and not what training began with.
    saved, _ = naive(load_model(model), rollout())
    there, _ = naive(policy.model, rollout())
    start, _ = naive(load_model(tiny_ref), rollout())
    torch.testing.assert_close(saved, there, rtol=1e-3, atol=1e-4)
    assert float((saved - start).abs().max()) > 0.1


def train(folder: Path, model: ModelRef, algorithm: str = "grpo", **changes: Any) -> PolicyTrainingResult:
    """The stage's result, its job in `folder`; rewards are the problem's own scores."""
    config = PolicyTrainingConfig(
        ppo=config_of(algorithm, **changes.pop("ppo", {})),
        group=GroupConfig(**{"responses": 4} | changes.pop("group", {})),
        roles=RolesConfig(**changes.pop("roles", {})),
        reward=RewardConfig(by=changes.pop("by", "problem")),
        checkpoint_steps=changes.pop("checkpoint_steps", 2),
    )
    inputs = PolicyTrainingInputs(
        model=model,
        prompts=write_rows(folder / "prompts.jsonl", changes.pop("rows", ROWS)),
        problem=PROBLEM,
        reward_model=changes.pop("reward_model", None),
    )
    out = folder / "job" / "out"
    out.mkdir(parents=True, exist_ok=True)
    return STAGE.run(config, inputs, out, changes.pop("report", lambda event: None))


def test_a_seed_decides_the_weights(tmp_path, tiny_ref):
    digests = [
        train(tmp_path / str(at), tiny_ref, ppo={"steps": 2, "seed": seed}).model.digest
        for at, seed in enumerate((7, 7, 8))
    ]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    "group", [{}, {"loss": "dapo"}, {"loss": "cispo", "clip_high": 5.0}, {"ratio": "sequence"}]
)
def test_micro_batches_leave_the_result(tmp_path, tiny_ref, group):
    weights = [
        load_file(
            fetch(
                train(
                    tmp_path / str(size), tiny_ref, group=group, ppo={"micro_batch_size": size, "steps": 2}
                ).model
            )
            / "adapter_model.safetensors"
        )
        for size in (3, 8)  # 2 and 8, which divide a batch of 8
    ]
    for name, part in weights[0].items():
        torch.testing.assert_close(part, weights[1][name], rtol=1e-2, atol=1e-4)


def test_full_fine_tuning_moves_all_weights_and_measures_from_the_start(tmp_path, tiny_ref):
    result = train(tmp_path, tiny_ref, "rloo", roles={"method": "full"})
    assert result.model.base is None
    start, end = (load_file(fetch(ref) / "model.safetensors") for ref in (tiny_ref, result.model))
    assert start.keys() == end.keys()
    assert all(not torch.equal(start[name], end[name]) for name in start if "embed" not in name)
    history = list(read_records(result.history))
    assert history[0]["objective/kl"] == pytest.approx(0.0, abs=1e-5)
    assert history[-1]["objective/kl_k3"] > 1e-3


def test_small_steps_move_full_weights_in_16_bits(tmp_path, tiny_ref):
    """Held in 16 bits, weights would be rounded by more than all steps together; the reference is as they began."""
    roles = {"method": "full", "precision": "bfloat16"}
    result = train(tmp_path, tiny_ref, "rloo", roles=roles, ppo={"policy_learning_rate": 1e-6})
    start, end = (load_file(fetch(ref) / "model.safetensors") for ref in (tiny_ref, result.model))
    ways = [(end[name] - start[name]).abs() for name in start if "embed" not in name]
    assert max(way.max() for way in ways) < 5e-6
    assert sum((way > 0).sum() for way in ways) > 0.5 * sum(way.numel() for way in ways)
    assert next(iter(read_records(result.history)))["objective/kl"] == pytest.approx(0.0, abs=1e-5)


def test_figures_are_those_of_the_whole_batch(tmp_path, tiny_ref):
    ppo = {"steps": 2, "missing_eos_penalty": 0.5}
    history = list(read_records(train(tmp_path, tiny_ref, "rloo", ppo=ppo, group={"iterations": 3}).history))
    for step in history:
        ended = step["val/num_eos_tokens"] / step["val/episodes"]
        assert step["val/episodes"] == 8.0
        assert step["policy/optimizer_steps"] == 3.0
        assert step["objective/scores"] == pytest.approx(step["reward/mean"] - 0.5 * (1 - ended), abs=1e-5)
        assert step["objective/rlhf_reward"] == pytest.approx(
            step["objective/scores"] - 0.05 * step["objective/kl"], abs=1e-6
        )
    # The second optimizer step on a batch is not on its own policy any more.
    assert history[0]["policy/clipfrac_avg"] > 0
    assert len({tuple(step) for step in history}) == 1


def test_without_a_kl_coefficient_there_is_no_kl(tmp_path, tiny_ref):
    result = train(tmp_path, tiny_ref, "rloo", ppo={"kl_coefficient": 0.0, "steps": 1})
    assert not any("kl" in name for name in result.figures if name != "objective/kl_coefficient")
    assert result.figures["reward/std"] > 0


def test_a_policy_that_leaves_its_reference_is_stopped_and_stays_stopped(tmp_path, tiny_ref):
    ppo = {"kl_alarm": 0.05, "policy_learning_rate": 0.05}
    result = train(tmp_path, tiny_ref, ppo=ppo, checkpoint_steps=1)
    assert "the KL has exploded" in result.stopped
    assert 1 < result.steps < 4
    assert result.warnings[0] == result.stopped
    again = train(tmp_path, tiny_ref, ppo=ppo, checkpoint_steps=1)  # killed before its result was kept
    assert (again.steps, again.stopped, again.model.digest) == (
        result.steps,
        result.stopped,
        result.model.digest,
    )


@pytest.mark.parametrize("iterations", [1, 2])
def test_silence_ends_a_training_of_small_batches_once_there_are_sixteen_responses(
    tmp_path, tiny_model, iterations
):
    silent = silent_model(tmp_path / "silent", tiny_model)
    changes: dict[str, Any] = {"group": {"responses": 2, "iterations": iterations}}
    changes["ppo"] = {"batch_size": 2, "steps": 12}

    def killed(event: dict[str, Any]) -> None:
        if event.get("step") == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, silent, "rloo", report=killed, **changes)
    result = train(tmp_path, silent, "rloo", **changes)
    assert result.steps == 8
    assert "collapsed: 100% of the last 16 responses" in result.stopped
    assert result.stopped.endswith("(at 1 of 8 steps, last at step 8)")


def test_groups_without_spread_are_named():
    figures = {
        "reward/frac_zero_std": 1.0,
        "reward/std": 0.3,
        "reward/mean": 0.5,
        "val/one_token_share": 0.0,
        "val/episodes": 8.0,
        "val/num_eos_tokens": 4.0,
    }
    (found,) = group_warning_signs(figures, config_of("grpo")).values()
    assert "the responses to each prompt all have the same reward" in found
    assert group_warning_signs(figures | {"reward/frac_zero_std": 0.5}, config_of("grpo")) == {}
    rounding = group_warning_signs(figures | {"reward/std": 3e-8}, config_of("grpo"))
    assert set(rounding) == {"constant"}  # of all responses, which says more


def test_equal_rewards_are_counted_group_by_group(tmp_path, tiny_ref):
    def first_prompt(batch: Any, examples: Any) -> torch.Tensor:
        return torch.tensor([float(example == ROWS[1]) for example in examples])

    trainer = trainer_of(tmp_path, tiny_ref, "grpo", score=first_prompt)
    trainer._metrics["train"].clear()
    trainer._generate_and_score_completions(ASKED)
    assert trainer._metrics["train"]["reward/frac_zero_std"] == [1.0]
    assert trainer._metrics["train"]["reward/mean"] == [0.5]


def test_a_reward_that_is_no_number_ends_the_training(tmp_path, tiny_ref):
    with pytest.raises(UserError, match="8 of the batch's rewards are not finite"):
        trainer_of(tmp_path, tiny_ref, "rloo", score=lambda batch, examples: torch.full((8,), float("nan")))


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
def test_an_update_that_is_no_number_says_what_can_be_done(name):
    callback = following(config_of("grpo"), GroupConfig(), lambda event: None, Failures())
    logs = {"loss": 0.1, "grad_norm": 0.2} | {name: float("nan")}
    with pytest.raises(UserError, match=f"not finite any more: {name}") as caught:
        callback.on_log(SimpleNamespace(fp16=False), None, None, logs)
    assert caught.value.field == "ppo.policy_learning_rate"
    assert "run again: the training starts anew" in caught.value.mend


def test_one_prompt_is_asked_again_and_again(tmp_path, tiny_ref):
    result = train(tmp_path, tiny_ref, rows=ROWS[:1], ppo={"steps": 2})
    assert (result.prompts, result.steps) == (1, 2)


def test_no_prompt_is_a_mistake(tmp_path, tiny_ref):
    with pytest.raises(UserError, match="none of 0 prompts"):
        train(tmp_path, tiny_ref, rows=[])


def test_a_reward_model_on_the_same_base_reads_the_texts(tmp_path, tiny_ref):
    reward_model = train_reward(tmp_path / "reward", tiny_ref).model
    result = train(tmp_path, tiny_ref, by="model", reward_model=reward_model, ppo={"steps": 1})
    assert 0 < result.figures["reward/mean"] < 1
    assert result.figures["reward/std"] > 0


def test_every_lap_asks_every_prompt_once(tmp_path, tiny_ref):
    trainer = trainer_of(tmp_path, tiny_ref, "grpo", steps=5)
    places = [int(place) for place in trainer.train_dataset["prompt"]]
    assert places == batch_of(0, 10, 5, seed=0)
    assert sorted(places[:5]) == sorted(places[5:]) == list(range(5))


@pytest.mark.parametrize(
    ("algorithm", "ppo", "group", "field"),
    [
        ("rloo", {"batch_size": 10}, {}, "group.responses"),
        ("grpo", {"batch_size": 2}, {}, "group.responses"),
        ("grpo", {"kl_controller": "adaptive"}, {}, "ppo.kl_controller"),
        ("rloo", {"normalise_scores": "scale"}, {}, "ppo.normalise_scores"),
        ("rloo", {"gamma": 0.9}, {}, "ppo.gamma"),
        ("grpo", {"deepspeed": "zero3.json"}, {}, "ppo.deepspeed"),
        ("rloo", {"entropy_coefficient": 0.1}, {}, "ppo.entropy_coefficient"),
        ("rloo", {}, {"loss": "dapo"}, "group.loss"),
        ("rloo", {}, {"ratio": "sequence"}, "group.ratio"),
        ("rloo", {}, {"scale_rewards": "group"}, "group.scale_rewards"),
        ("grpo", {}, {"loss": "cispo"}, "group.clip_high"),
    ],
)
def test_settings_without_meaning_are_refused(algorithm, ppo, group, field):
    config, groups = config_of(algorithm, **ppo), GroupConfig(**{"responses": 4} | group)
    with pytest.raises(UserError) as caught:
        check_group(config, groups)
    assert caught.value.field == field
    check_group(config.model_copy(update={"algorithm": "ppo"}), groups)


def test_an_adapter_on_an_adapter_is_refused(tmp_path, tiny_ref):
    adapter = ModelRef(uri=str(tmp_path), digest="0" * 64, base=tiny_ref)
    with pytest.raises(UserError, match="is an adapter"):
        train(tmp_path, adapter)
