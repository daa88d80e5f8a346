"""Rollouts: what the sampler draws is what the policy gives the probabilities of, whatever the batch."""

import pytest
import torch

from tasks.core.digests import folder_digest
from tasks.core.errors import UserError
from tasks.core.examples import make_example
from tasks.core.models import load_tokenizer, render
from tasks.core.references import ModelRef
from tasks.ppo import sampling
from tasks.ppo.rollout import make_rollout
from tasks.ppo.sampling import PolicySampler
from tasks.ppo.scores import Failures, as_samples, by_reward_model, by_role, by_verifier
from tasks.problems.base import ProblemConfig
from tasks.problems.load import load_problem
from tasks.reward_model.scoring import load_reward_model
from tasks.rewards.config import RewardConfig
from tests.tiny_model import build_tiny_model
from tests.unit.ppo_roles import naive, roles_on, rollout
from tests.unit.reward_pairs import TEST, train_reward
from tests.unit.tiny_generation import prompts_of_many_lengths

METHODS = ["lora", "full"]


def encoded(ref: ModelRef, count: int = 9) -> list[list[int]]:
    tokenizer = load_tokenizer(ref)
    return [render(tokenizer, messages) for messages in prompts_of_many_lengths(count)]


def sampler(roles, ref, **changes) -> PolicySampler:
    return PolicySampler(roles, load_tokenizer(ref), **{"max_new_tokens": 12, "seed": 3} | changes)


def rows(batch) -> list[tuple[list[int], bool]]:
    return list(zip(batch.response_tokens(), batch.ended.tolist(), strict=True))


@pytest.fixture
def often_ending(tiny_ref):
    """Roles whose policy ends its turn at some point of most responses."""
    roles = roles_on(tiny_ref)
    roles.model.generation_config.eos_token_id = list(range(3, 60))
    return roles


def test_a_rollout_holds_what_it_is_made_of():
    batch = rollout()
    assert batch.prompts.tolist()[1] == [0, 0, 0, 0, 0, 20, 21, 22]
    assert batch.prompt_mask.sum(1).tolist() == [8, 3, 5]
    assert batch.prompt_mask[1].tolist() == [False] * 5 + [True] * 3
    assert batch.responses.tolist() == [[40, 41, 3, 0, 0], [50, 51, 52, 53, 54], [3, 0, 0, 0, 0]]
    assert batch.mask.sum(1).tolist() == [3, 5, 1]
    assert batch.response_tokens() == [[40, 41, 3], [50, 51, 52, 53, 54], [3]]
    assert batch.select(torch.tensor([2, 0])).response_tokens() == [[3], [40, 41, 3]]
    assert batch.select(torch.tensor([2, 0])).ended.tolist() == [True, True]


@pytest.mark.parametrize(
    "parts", [([], [], []), ([[1]], [[]], [True]), ([[]], [[1]], [True]), ([[1]], [], [])]
)
def test_a_rollout_without_tokens_is_refused(parts):
    with pytest.raises(ValueError, match=r"row|responses"):
        make_rollout(*parts, padding=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probabilities_are_those_under_which_the_sampler_drew(tiny_ref, method, temperature, monkeypatch):
    drawn: dict[int, list[float]] = {}
    choose = sampling._choose

    def recording(sampling, draws, logits, rows, written):
        tokens = choose(sampling, draws, logits, rows, written)
        scores = (logits.float() / temperature).log_softmax(-1)
        for place, row in enumerate(rows):
            drawn.setdefault(row, []).append(float(scores[place, tokens[place]]))
        return tokens

    monkeypatch.setattr(sampling, "_choose", recording)
    roles = roles_on(tiny_ref, method=method, temperature=temperature)
    prompts = encoded(tiny_ref)
    batch = sampler(roles, tiny_ref, batch_size=4).sample(prompts, step=0, streams=range(9))
    found = roles.policy(batch)[0].detach()
    for row, expected in drawn.items():
        torch.testing.assert_close(found[row, : len(expected)], torch.tensor(expected), atol=1e-4, rtol=1e-4)
    reference = roles.reference(batch)
    assert (found - reference).abs()[batch.mask].mean() > 0.01  # it was the policy that drew, not the base
    assert [row[mask].tolist() for row, mask in zip(batch.prompts, batch.prompt_mask, strict=True)] == prompts


def test_same_seeds_give_the_same_tokens_in_any_batch(tiny_ref, often_ending):
    prompts = encoded(tiny_ref)
    whole = rows(sampler(often_ending, tiny_ref).sample(prompts, step=2, streams=range(9)))
    assert len({len(tokens) for tokens, _ in whole}) > 2
    assert {ended for _, ended in whole} == {True, False}
    small = sampler(often_ending, tiny_ref, batch_size=2).sample(prompts, step=2, streams=range(9))
    assert rows(small) == whole
    order = [4, 1, 7]
    some = sampler(often_ending, tiny_ref).sample([prompts[i] for i in order], step=2, streams=order)
    assert rows(some) == [whole[i] for i in order]
    one = sampler(often_ending, tiny_ref).sample(prompts[5:6], step=2, streams=[5])
    assert rows(one) == [whole[5]]
    for step, streams in ((3, range(9)), (2, range(1, 10))):
        assert rows(sampler(often_ending, tiny_ref).sample(prompts, step=step, streams=streams)) != whole
    assert rows(sampler(often_ending, tiny_ref, seed=4).sample(prompts, step=2, streams=range(9))) != whole
    twice = sampler(often_ending, tiny_ref).sample([prompts[0]] * 2, step=2, streams=[0, 1])
    assert rows(twice)[0] != rows(twice)[1]


def test_a_pad_token_that_is_the_end_token_as_well_changes_nothing_but_the_padding(tiny_ref, often_ending):
    """Many tokenizers have one for both: what is padding is told by lengths, not by the token."""
    tokenizer = load_tokenizer(tiny_ref)
    separate, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    tokenizer.pad_token = tokenizer.eos_token
    asked = {"step": 0, "streams": range(9)}
    same = PolicySampler(often_ending, tokenizer, max_new_tokens=12, seed=3).sample(
        encoded(tiny_ref), **asked
    )
    apart = sampler(often_ending, tiny_ref).sample(encoded(tiny_ref), **asked)
    assert rows(same) == rows(apart)
    assert (same.mask == apart.mask).all()
    assert (same.prompt_mask == apart.prompt_mask).all()
    assert set(apart.responses[~apart.mask].tolist()) == {separate} != {end}
    assert set(same.responses[~same.mask].tolist()) == set(same.prompts[~same.prompt_mask].tolist()) == {end}


def test_a_response_ends_with_the_first_end_token_or_at_the_limit(tiny_ref, often_ending):
    batch = sampler(often_ending, tiny_ref).sample(encoded(tiny_ref), step=0, streams=range(9))
    for tokens, ended in rows(batch):
        ends = [3 <= token < 60 for token in tokens]
        assert not any(ends[:-1])
        assert ends[-1] == ended
        assert ended or len(tokens) == 12


def test_a_policy_that_ends_at_once_gives_one_token_each(tiny_ref):
    roles = roles_on(tiny_ref)
    roles.model.generation_config.eos_token_id = list(range(500))
    batch = sampler(roles, tiny_ref).sample(encoded(tiny_ref), step=0, streams=range(9))
    assert batch.responses.shape == (9, 1)
    assert batch.ended.all()
    assert roles.values(batch).shape == (9, 1)


def test_sampling_trains_nothing_and_leaves_the_roles_as_they_were(tiny_ref):
    roles = roles_on(tiny_ref, gradient_checkpointing=True)
    before = {name: part.detach().clone() for name, part in roles.trainable.items()}
    batch = sampler(roles, tiny_ref).sample(encoded(tiny_ref, 3), step=0, streams=range(3))
    assert all((part == before[name]).all() for name, part in roles.trainable.items())
    roles.policy(batch)[0].sum().backward()
    assert all(part.grad.any() for part in roles.policy_parameters())
    torch.testing.assert_close(
        roles.reference(batch), naive(roles.model, batch)[0], atol=1e-5, rtol=1e-5
    )  # outside of a role, the model is the base


def test_prompts_without_room_or_tokens_are_the_users_mistake(tmp_path):
    folder = build_tiny_model(tmp_path / "short", context=64)
    short = ModelRef(uri=str(folder), digest=folder_digest(folder))
    roles = roles_on(short)
    drawing = sampler(roles, short)
    assert (drawing.fits(52), drawing.fits(53)) == (True, False)
    assert len(drawing.sample([[7] * 52], step=0, streams=[0])) == 1
    with pytest.raises(UserError, match="context holds 64") as caught:
        drawing.sample([[7], [7] * 53], step=0, streams=[0, 1])
    assert caught.value.field == "ppo.max_new_tokens"
    with pytest.raises(UserError, match="no tokens"):
        drawing.sample([[7], []], step=0, streams=[0, 1])
    with pytest.raises(ValueError, match="2 prompts have 1 streams"):
        drawing.sample([[7], [8]], step=0, streams=[0])


def test_a_problem_scores_the_texts(tiny_ref):
    tokenizer = load_tokenizer(tiny_ref)
    problem = load_problem(ProblemConfig(name="classification", labels=("music", "weather")))
    examples = [
        make_example("a song", "music"),
        make_example("rain", "weather"),
        make_example("jazz", "music"),
    ]
    answers = ["music", "music", "music"]
    tokens = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in answers]
    tokens = [[*tokens[0], 3], [*tokens[1], 3], tokens[2]]
    batch = rollout([render(tokenizer, problem.prompt(row)) for row in examples], tokens, [True, True, False])
    score = by_verifier(RewardConfig(), problem, tokenizer)
    assert score(batch, examples).tolist() == [1.0, 0.0, 1.0]
    samples = as_samples(batch, examples, tokenizer, step=4)
    assert [(row.completion, row.cut, row.step, row.parent) for row in samples] == [
        ("music", False, 4, examples[0].id),
        ("music", False, 4, examples[1].id),
        ("music", True, 4, examples[2].id),
    ]


def test_a_batch_that_a_problem_cannot_read_is_worth_nothing_and_ends_a_broken_one(tiny_ref):
    tokenizer = load_tokenizer(tiny_ref)
    examples = [make_example("What is 1 and 1?", "2")]
    tokens = [[*tokenizer("two", add_special_tokens=False)["input_ids"], 3]]
    for name, broken in (("Touchy", False), ("Faulty", True)):
        problem = load_problem(ProblemConfig(name=f"tests.unit.test_rewards:{name}"))
        batch = rollout([render(tokenizer, problem.prompt(examples[0]))], tokens, [True])
        failures = Failures()
        score = by_verifier(RewardConfig(), problem, tokenizer, failures)
        if broken:
            with pytest.raises(UserError, match="failed on all of 1 answers"):
                score(batch, examples)
        else:
            assert score(batch, examples).tolist() == [0.0]
        assert failures.count == 1


def test_rewards_by_role_and_by_a_model_of_its_own_agree(tmp_path, tiny_ref):
    reward = train_reward(tmp_path, tiny_ref, test=TEST, max_steps=8).model
    tokenizer, problem = load_tokenizer(tiny_ref), load_problem(ProblemConfig(name="exact_match"))
    examples = [make_example(f"What is in {place}?", "x") for place in ("Berlin", "Paris", "France")]
    answers = ["here is what you need", "go away now", "it will be sunny"]
    tokens = [[*tokenizer(text, add_special_tokens=False)["input_ids"], 3] for text in answers]
    prompts = [problem.prompt(row) for row in examples]
    batch = rollout([render(tokenizer, prompt) for prompt in prompts], tokens, [True] * 3)
    by_its_role = by_role(roles_on(tiny_ref, reward))(batch, examples)
    by_text = by_reward_model(load_reward_model(reward), problem, tokenizer)(batch, examples)
    torch.testing.assert_close(by_its_role, by_text, atol=1e-5, rtol=0)
