"""Grow on tiny models, shard by shard: what a larger N and a kill leave alone, and how a hopeless one ends."""

import pytest

from tasks.core.compression.config import CompressorConfig
from tasks.core.errors import UserError
from tasks.core.examples import read_examples
from tasks.core.generators.load import EngineConfig
from tasks.grow.config import GrowConfig, check
from tasks.rewards.config import RewardConfig
from tasks.sft.config import TrainingConfig
from tests.tiny_encoder import build_tiny_encoder
from tests.unit.small_grow import (
    CONTEXT,
    LONG,
    PROBLEM,
    PROMPTS,
    Grower,
    Killed,
    by_prompt,
)
from tests.unit.test_rewards import reward_model


@pytest.fixture
def grower(tmp_path, tiny_ref) -> Grower:
    return Grower(tmp_path, tiny_ref)


def test_all_samples_lie_in_one_file_with_their_rewards_in_the_order_of_the_data(grower):
    grown = grower.grow()
    rows = read_examples(grown.samples)
    ids = [row.parent for row in rows]
    assert list(dict.fromkeys(ids)) == [prompt.id for prompt in PROMPTS]
    assert ids == sorted(ids, key=[prompt.id for prompt in PROMPTS].index)
    assert all(row.reward == pytest.approx(1 / (1 + len(row.completion or ""))) for row in rows)
    figures = grown.metrics()
    assert figures["data/generated"] == 20 == len(rows) + figures["grow/duplicates"] + figures["grow/empty"]
    best = [max(row.reward or 0 for row in rows if row.parent == prompt.id) for prompt in PROMPTS]
    assert grown.best == pytest.approx(sum(best) / 5)
    assert grower.drawn() == ["grow (shard 1 of 2)", "grow (shard 2 of 2)"]
    again = grower.grow()
    assert (again, grower.run.computed) == (grown, {})


@pytest.mark.parametrize(
    ("numbers", "drawn"),
    [
        ([4, 6, 8], [[(0, 4)], [(4, 2)], [(6, 2)]]),
        ([1, 3, 4], [[(0, 1)], [(1, 2)], [(3, 1)]]),
        ([8, 6, 8], [[(0, 4), (4, 4)], [(4, 2)], []]),
    ],
)
def test_a_larger_number_draws_what_is_missing_and_gives_what_a_new_store_gives(
    grower, tmp_path, tiny_ref, numbers, drawn
):
    fewer: dict[str, list[str]] = {}
    for samples, new in zip(numbers, drawn, strict=True):
        grown = grower.grow(samples=samples)
        assert grower.ranges() == new
        assert len(grower.drawn()) == 2 * len(new)  # of two blocks of prompts
        more = by_prompt(grown.samples)
        assert all(
            more[prompt][: len(texts)] == texts[: len(more[prompt])] for prompt, texts in fewer.items()
        )
        fewer = more
        fresh = Grower(tmp_path / f"fresh {samples}", tiny_ref).grow(samples=samples)
        assert grown.samples.digest == fresh.samples.digest
        assert grown.metrics() == fresh.metrics()


def test_every_iteration_draws_by_random_numbers_of_its_own(grower):
    """A policy that is trained on its samples would give many of them again."""
    first, second = (by_prompt(grower.grow(samples=8, iteration=number).samples) for number in (1, 2))
    said = [set(first[prompt]) & set(second[prompt]) for prompt in first]
    assert sum(map(len, said)) < sum(map(len, second.values())) / 4
    grown = grower.grow(samples=12, iteration=2)
    assert grower.ranges() == [(8, 4)]
    assert {row.step for row in read_examples(grown.samples)} == {2}


def test_neither_shards_nor_the_order_of_the_data_change_what_is_drawn(grower, tmp_path, tiny_ref):
    grown = by_prompt(grower.grow(samples=8).samples)
    other = by_prompt(grower.grow(PROMPTS[::-1], samples=8).samples)
    assert grower.drawn() == []  # the same blocks
    assert other == grown
    assert list(other) == list(grown)[::-1]
    elsewhere = Grower(tmp_path / "elsewhere", tiny_ref)
    assert by_prompt(elsewhere.grow(samples=8, shard_samples=3, shard_prompts=2).samples) == grown
    assert len(elsewhere.drawn()) == 9


def test_a_compressor_decides_the_samples_by_its_files(grower, tmp_path):
    def engine(name: str, seed: int = 0) -> EngineConfig:
        folder = build_tiny_encoder(tmp_path / name, seed=seed)
        return EngineConfig(compressor=CompressorConfig(model=str(folder), last=True, shortest=1, rate=0.3))

    whole = by_prompt(grower.grow().samples)
    shorter = by_prompt(grower.grow(engine=engine("one")).samples)
    assert len(grower.drawn()) == 2  # the store has samples of whole prompts alone
    assert shorter != whole
    grower.grow(engine=engine("the same"))
    assert grower.drawn() == []
    grower.grow(engine=engine("another", seed=1))
    assert len(grower.drawn()) == 2


def test_a_kill_loses_one_shard(grower, tmp_path, tiny_ref):
    undisturbed = Grower(tmp_path / "undisturbed", tiny_ref).grow(samples=8)
    grower.run.killed_at = "grow (shard 3 of 4)"
    with pytest.raises(Killed):
        grower.grow(samples=8)
    assert grower.drawn() == ["grow (shard 1 of 4)", "grow (shard 2 of 4)"]
    grower.run.killed_at = "nowhere"
    grown = grower.grow(samples=8)
    assert grower.drawn() == ["grow (shard 3 of 4)", "grow (shard 4 of 4)"]
    assert grown.samples.digest == undisturbed.samples.digest


def test_a_shard_of_prompts_that_are_too_long_costs_only_their_samples(grower, short_context):
    grown = grower.grow([*LONG, *PROMPTS], shard_prompts=1, model=short_context)
    assert by_prompt(grown.samples).keys() == {prompt.id for prompt in PROMPTS}
    assert grown.metrics()["grow/failed"] == 8


def test_prompts_all_of_which_are_too_long_are_a_mistake_that_names_the_limit(grower, short_context):
    with pytest.raises(UserError, match=f"not one of 8 samples.*context holds {CONTEXT}") as caught:
        grower.grow(LONG, shard_prompts=1, model=short_context)
    assert caught.value.field == "grow.max_new_tokens"
    assert caught.value.mend
    with pytest.raises(UserError, match="not one of 600 samples"):  # and the second shard is not tried
        grower.grow(LONG, shard_prompts=1, samples=600, shard_samples=600, model=short_context)


def test_a_silent_policy_gives_an_empty_set_and_says_so(grower, silent):
    grown = grower.grow(model=silent)
    assert (grown.samples.rows, grown.best) == (0, 0.0)
    assert (grown.metrics()["grow/empty"], grown.metrics()["data/generated"]) == (20, 20)


def test_a_reward_model_that_tells_no_samples_apart_is_named_by_the_setting_it_came_from(
    grower, tmp_path, tiny_ref
):
    flat = reward_model(tmp_path / "flat", tiny_ref, change=lambda head: head.zero_())
    for model, field in (("", "reward_model"), ("models/ready", "reward.model")):
        grown = grower.grow(reward=RewardConfig(by="model", model=model), reward_model=flat)
        assert grown.useless == f"the reward model gives every sample the same reward, {grown.alike:g}"
        with pytest.raises(UserError, match="every sample the same reward") as caught:
            grown.check()
        assert (caught.value.field, model in str(caught.value)) == (field, True)
    able = reward_model(tmp_path / "able", tiny_ref)
    grown = grower.grow(reward=RewardConfig(by="model"), reward_model=able)
    assert grown.useless == ""
    grown.check()


@pytest.mark.parametrize(
    ("settings", "training", "keep_cut", "refused"),
    [
        ({"max_new_tokens": 63}, {}, False, False),
        ({"max_new_tokens": 64}, {}, False, True),
        ({"max_new_tokens": 63}, {}, True, True),  # a cut answer gets an end of its own
        ({"max_new_tokens": 64}, {"too_long": "drop"}, False, False),
        ({}, {}, False, True),  # the problem's own 64
        ({}, {"max_length": 65}, False, False),
    ],
)
def test_samples_that_may_be_too_long_to_train_on_are_refused_where_none_is_left_out(
    settings, training, keep_cut, refused
):
    asked = GrowConfig(**settings), TrainingConfig(**{"max_length": 64} | training), PROBLEM.name
    if not refused:
        check(*asked, keep_cut=keep_cut)
        return
    with pytest.raises(UserError, match=r"training\.max_length=64 has no room") as caught:
        check(*asked, keep_cut=keep_cut)
    assert caught.value.field == "grow.max_new_tokens"


def test_no_prompt_gives_an_empty_set(grower):
    assert grower.grow([]).samples.rows == 0
