"""One shard of Grow on tiny models: which samples it holds, and what becomes of those that cannot be drawn."""

import pytest

from tasks.core.examples import make_sample, read_examples
from tasks.core.generators.base import Sampling
from tasks.core.generators.endpoint import EndpointConfig
from tasks.core.generators.load import EngineConfig, load_local
from tasks.grow.stage import stream
from tasks.problems.load import load_problem
from tests.scripted_server import ScriptedServer
from tests.unit.small_grow import (
    CONTEXT,
    LONG,
    PROBLEM,
    PROMPTS,
    Shards,
    by_prompt,
)


@pytest.fixture
def at(tmp_path, tiny_ref) -> Shards:
    return Shards(tmp_path, tiny_ref)


def test_samples_are_the_policys_answers_drawn_one_by_one(at, tiny_ref):
    result = at.draw()
    generator, problem = load_local(tiny_ref, EngineConfig()), load_problem(PROBLEM)
    sampling = Sampling(temperature=1.0, max_new_tokens=6, seed=5)
    expected = []
    for prompt in PROMPTS:
        for number in range(8):
            (answer,) = generator.generate(
                [problem.prompt(prompt)], sampling, streams=[stream(prompt, number)]
            )
            text = answer.text.rstrip()
            if text and not any((row.parent, row.completion) == (prompt.id, text) for row in expected):
                expected.append(make_sample(prompt, text, cut=answer.finish == "length", step=1))
    assert read_examples(result.samples) == expected
    assert len(expected) > 20
    assert {(row.origin, row.reward, row.step) for row in expected} == {("synthetic", None, 1)}
    assert result.cut == sum(row.cut for row in expected) > 0


def test_a_sample_is_the_same_in_whatever_shard_it_is_drawn(at):
    whole = by_prompt(at.draw().samples)
    parts = [
        at.draw(prompts, first, count).samples
        for prompts in (PROMPTS[3:], PROMPTS[:3])
        for first, count in ((0, 3), (3, 5))
    ]
    assert {prompt: list(dict.fromkeys(answers)) for prompt, answers in by_prompt(*parts).items()} == whole
    batches = at.draw(engine=EngineConfig(batch_size=3))
    assert by_prompt(batches.samples) == whole


def test_the_same_shard_has_the_same_bytes_and_another_seed_other_samples(at):
    first, again, other = at.draw(), at.draw(), at.draw(seed=6)
    assert first.samples.digest == again.samples.digest
    assert by_prompt(first.samples) != by_prompt(other.samples)


def test_every_sample_that_was_asked_for_is_counted_once(at):
    greedy = at.draw(temperature=0.0, count=4)
    assert (greedy.drawn, greedy.samples.rows, greedy.duplicates) == (20, 5, 15)
    drawn = at.draw(max_new_tokens=1, count=40)
    assert drawn.drawn == 200 == drawn.samples.rows + drawn.duplicates + drawn.empty + drawn.failed
    assert drawn.duplicates > 0
    assert drawn.usage.calls == 200
    assert drawn.usage.completion_tokens == 200
    answers = by_prompt(drawn.samples)
    assert all(len(set(texts)) == len(texts) for texts in answers.values())
    assert all(text == text.rstrip() != "" for texts in answers.values() for text in texts)


def test_a_policy_that_answers_only_with_the_end_gives_no_sample(at, silent):
    result = at.draw(model=silent)
    assert (result.drawn, result.empty, result.samples.rows) == (40, 40, 0)
    assert result.usage.completion_tokens == 40
    kept = at.draw(model=silent, count=2, keep_empty=True)  # one of each prompt, and the same once more
    assert (kept.drawn, kept.empty, kept.duplicates, kept.samples.rows) == (10, 10, 5, 5)
    assert by_prompt(kept.samples) == {prompt.id: [""] for prompt in PROMPTS}


def test_prompts_longer_than_the_context_are_counted_and_the_others_drawn(at, short_context):
    result = at.draw([LONG[0], *PROMPTS[:2], LONG[1]], count=3, model=short_context)
    assert (result.drawn, result.failed) == (12, 6)
    assert by_prompt(result.samples).keys() == {prompt.id for prompt in PROMPTS[:2]}
    assert f"context holds {CONTEXT}" in result.reason


def test_no_prompt_and_one_prompt(at):
    nothing = at.draw([])
    assert (nothing.drawn, nothing.samples.rows, nothing.failed) == (0, 0, 0)
    one = at.draw(PROMPTS[:1], count=1)
    assert (one.drawn, one.samples.rows) == (1, 1)


def test_a_server_is_given_a_seed_that_hangs_on_prompt_and_number_alone(at):
    def seeds(prompts, first, count, **changes):
        with ScriptedServer() as server:
            endpoint = EndpointConfig(url=server.url, model="scripted")
            engine = EngineConfig(engine="openai", endpoint=endpoint)
            at.draw(prompts, first, count, engine=engine, **changes)
        return sorted((r.json["messages"][-1]["content"], r.json["seed"]) for r in server.requests)

    whole = seeds(PROMPTS, 0, 4)
    parts = [seeds(PROMPTS[1:], 0, 4), seeds(PROMPTS[:1], 2, 2), seeds(PROMPTS[:1], 0, 2)]
    assert sorted(pair for part in parts for pair in part) == whole
    assert len({seed for _, seed in whole}) == 20
    assert all(0 <= seed < 2**31 for _, seed in whole)
    assert not {seed for _, seed in seeds(PROMPTS, 0, 4, seed=6)} & {seed for _, seed in whole}
