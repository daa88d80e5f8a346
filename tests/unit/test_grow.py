"""Grow on tiny models: which samples a shard holds, what a larger N and a kill leave alone, what cannot be drawn."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tasks.core.digests import folder_digest
from tasks.core.errors import UserError
from tasks.core.examples import Example, make_example, make_sample, read_examples, write_rows
from tasks.core.generators.base import Sampling
from tasks.core.generators.endpoint import EndpointConfig
from tasks.core.generators.load import EngineConfig, load_local
from tasks.core.launching.launch import LaunchConfig
from tasks.core.models import end_of_turn, load_tokenizer, render
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.stage import compute
from tasks.core.store import Store
from tasks.grow import gather, shards, stage
from tasks.grow.config import DrawConfig, GrowConfig, planned
from tasks.grow.growing import Grown, Growth
from tasks.grow.stage import GrowInputs, stream
from tasks.problems.base import ProblemConfig, Score
from tasks.problems.exact_match import ExactMatch
from tasks.problems.load import load_problem
from tasks.rewards.config import RewardConfig
from tasks.rewards.scoring import Scoring
from tests.scripted_server import ScriptedServer
from tests.tiny_model import build_tiny_model


class Brevity(ExactMatch):
    """The shorter an answer, the better."""

    def score(self, example: Example, completion: str) -> Score:
        return Score(value=1 / (1 + len(completion)), answer=completion)


PROBLEM = ProblemConfig(name=f"{__name__}:Brevity")
PROMPTS = [make_example(f"Which number comes after {n}?", str(n + 1)) for n in (1, 7, 12, 30, 41)]
LONG = [make_example(f"{n} " * 200, "?") for n in (3, 4)]
DRAW = DrawConfig(temperature=1.0, max_new_tokens=6, seed=5)
CONTEXT = 128


def reference(folder: Path) -> ModelRef:
    return ModelRef(uri=str(folder), digest=folder_digest(folder))


@pytest.fixture(scope="module")
def short_context(tmp_path_factory) -> ModelRef:
    return reference(build_tiny_model(tmp_path_factory.mktemp("grow") / "short", context=CONTEXT))


@pytest.fixture(scope="module")
def silent(tmp_path_factory, tiny_model) -> ModelRef:
    """A policy that answers everything with the end-of-sequence token.

    Its layers add nothing, so that the last token's embedding alone, the same after every prompt, decides.
    """
    import torch

    folder = tmp_path_factory.mktemp("grow") / "silent"
    shutil.copytree(tiny_model, folder)
    weights = load_file(folder / "model.safetensors")
    for name, value in weights.items():
        if "o_proj" in name or "down_proj" in name:
            value.zero_()
    tokenizer = load_tokenizer(reference(tiny_model))
    prompt = render(tokenizer, load_problem(PROBLEM).prompt(PROMPTS[0]))
    last = weights["model.embed_tokens.weight"][prompt[-1]]
    head = torch.zeros_like(weights["lm_head.weight"])
    head[end_of_turn(tokenizer)] = last * 1e4
    save_file(weights | {"lm_head.weight": head}, folder / "model.safetensors", metadata={"format": "pt"})
    return reference(folder)


class Shards:
    """Draws shards in a folder, without a store."""

    def __init__(self, folder: Path, model: ModelRef) -> None:
        self.folder, self.model, self.count = folder, model, 0

    def draw(
        self, prompts: Sequence[Example] = PROMPTS, first=0, count=8, model=None, config=DRAW, **changes
    ):
        self.count += 1
        folder = self.folder / str(self.count)
        inputs = GrowInputs(
            model=model or self.model,
            prompts=write_rows(folder / "prompts.jsonl", prompts),
            problem=PROBLEM,
            first=first,
            count=count,
        )
        config = config.model_copy(update=changes)
        return stage.run(config, inputs, folder / "out", lambda event: None)


@pytest.fixture
def at(tmp_path, tiny_ref) -> Shards:
    return Shards(tmp_path, tiny_ref)


def by_prompt(*references: DatasetRef) -> dict[str, list[str]]:
    """The completions of each prompt, by its id, in their order."""
    answers: dict[str, list[str]] = {}
    for row in (row for ref in references for row in read_examples(ref)):
        answers.setdefault(row.parent or "", []).append(row.completion or "")
    return answers


# One shard


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
                expected.append(make_sample(prompt, text, cut=answer.finish == "length"))
    assert read_examples(result.samples) == expected
    assert len(expected) > 20
    assert {(row.origin, row.reward, row.step) for row in expected} == {("synthetic", None, 0)}
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


# Blocks


def blocks_of(folder: Path, rows: Sequence[Example], size: int) -> list[list[str]]:
    ref = write_rows(folder / "rows.jsonl", rows)
    cut = shards.run(
        shards.ShardConfig(prompts=size), shards.ShardInputs(rows=ref), folder / "out", lambda event: None
    )
    assert cut.prompts == sum(block.rows for block in cut.blocks)
    return [[row.id for row in read_examples(block)] for block in cut.blocks]


def test_blocks_hold_every_prompt_once_whatever_the_order_of_the_data(tmp_path):
    blocks = blocks_of(tmp_path / "a", PROMPTS, 2)
    assert [len(block) for block in blocks] == [2, 2, 1]
    assert sorted(row_id for block in blocks for row_id in block) == sorted(row.id for row in PROMPTS)
    assert blocks_of(tmp_path / "b", [*PROMPTS[::-1], PROMPTS[2]], 2) == blocks
    assert blocks_of(tmp_path / "c", [], 2) == []
    assert blocks_of(tmp_path / "d", PROMPTS[:1], 2) == [[PROMPTS[0].id]]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (8, [(0, 8)]),
        (12, [(0, 8), (8, 4)]),
        (16, [(0, 8), (8, 8)]),
        (3, [(0, 3)]),
        (17, [(0, 8), (8, 8), (16, 1)]),
    ],
)
def test_samples_are_drawn_in_aligned_blocks(samples, expected):
    assert GrowConfig(samples=samples, shard_samples=8).blocks() == expected


def test_samples_are_cached_by_what_decides_them(tiny_ref, tmp_path):
    inputs = GrowInputs(
        model=tiny_ref, prompts=write_rows(tmp_path / "p", PROMPTS), problem=PROBLEM, first=0, count=8
    )

    def key(**changes) -> str:
        return stage.STAGE.key(planned(GrowConfig(**changes), "rest").drawing(), inputs)

    same = [
        {"samples": 64},
        {"shard_prompts": 7},
        {"engine": EngineConfig(batch_size=3)},
        {"temperature": 0.8},
    ]
    assert {key(**changes) for changes in same} == {key()}
    other = [{"seed": 1}, {"temperature": 0.7}, {"top_k": 40}, {"top_p": 0.9}, {"max_new_tokens": 9}]
    assert len({key(), *(key(**changes) for changes in other)}) == 6


def test_gathered_samples_follow_the_data_and_come_once(tmp_path):
    one, two, three = PROMPTS[:3]

    def scored(name: str, *samples: tuple[Example, str, float]) -> DatasetRef:
        rows = [make_sample(prompt, text, reward=reward) for prompt, text, reward in samples]
        return write_rows(tmp_path / name, rows)

    inputs = gather.GatherInputs(
        prompts=write_rows(tmp_path / "prompts", [two, one, three]),
        shards=[
            scored("a", (one, "x", 0.5), (one, "y", 0.25)),
            scored("b", (one, "z", 0.75), (one, "x", 0.5)),
            scored("c", (two, "x", 0.5)),
        ],
    )
    result = gather.run(gather.Config(), inputs, tmp_path / "out", lambda event: None)
    rows = read_examples(result.samples)
    assert [(row.parent, row.completion, row.reward) for row in rows] == [
        (two.id, "x", 0.5),
        (one.id, "x", 0.5),
        (one.id, "y", 0.25),
        (one.id, "z", 0.75),
    ]
    assert result.duplicates == 1
    assert result.best == pytest.approx((0.5 + 0.75 + 0.0) / 3)


# All shards of a policy


class Killed(BaseException):
    """As Ctrl-C in the middle of a shard."""


class StoreRun:
    """Runs stages in this process with a store; `computed` names those that were not found there."""

    iteration = 1

    def __init__(self, folder: Path) -> None:
        self.store, self.computed, self.killed_at = Store(str(folder / "store")), [], "nowhere"

    def stage(self, stage, config, inputs, *, label="", training=False):
        def report(event: dict) -> None:
            if label == self.killed_at:
                raise Killed
            if "seconds" in event:
                self.computed.append(label or stage.name)

        here = replace(stage, own_process=False)
        manifest = compute(here, config, inputs, self.store, LaunchConfig(), report)
        return stage.result.model_validate(manifest.result)


class Grower:
    """A policy that is sampled with a store."""

    def __init__(self, folder: Path, model: ModelRef) -> None:
        self.run, self.model, self.folder = StoreRun(folder), model, folder

    def grow(self, prompts: Sequence[Example] = PROMPTS, model=None, **changes) -> Grown:
        settings = {
            "samples": 4,
            "shard_samples": 4,
            "shard_prompts": 3,
            "temperature": 1.0,
            "max_new_tokens": 6,
        }
        self.run.computed.clear()
        rows = write_rows(self.folder / "prompts.jsonl", prompts)
        config = GrowConfig(**settings | changes)
        scoring = Scoring(self.run, RewardConfig(), PROBLEM)
        return Growth(self.run, config, PROBLEM, rows, scoring).grow(model or self.model)

    def drawn(self) -> list[str]:
        """The shards that were drawn, not found."""
        return [label for label in self.run.computed if label.startswith("grow")]


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
    assert (again, grower.run.computed) == (grown, [])


def test_a_larger_number_draws_what_is_missing_and_keeps_the_samples_that_exist(grower):
    four = by_prompt(grower.grow().samples)
    six = by_prompt(grower.grow(samples=6).samples)
    assert grower.drawn() == ["grow (shard 2 of 4)", "grow (shard 4 of 4)"]
    eight = by_prompt(grower.grow(samples=8).samples)
    assert grower.drawn() == [
        "grow (shard 2 of 4)",
        "grow (shard 4 of 4)",
    ]  # the halves of a block are drawn again
    for fewer, more in ((four, six), (six, eight)):
        assert {prompt: more[prompt][: len(texts)] for prompt, texts in fewer.items()} == fewer
        assert more != fewer
    assert by_prompt(grower.grow(samples=4).samples) == four
    assert grower.drawn() == []


def test_neither_shards_nor_the_order_of_the_data_change_what_is_drawn(grower, tmp_path, tiny_ref):
    grown = by_prompt(grower.grow(samples=8).samples)
    other = by_prompt(grower.grow(PROMPTS[::-1], samples=8).samples)
    assert grower.drawn() == []  # the same blocks
    assert other == grown
    assert list(other) == list(grown)[::-1]
    elsewhere = Grower(tmp_path / "elsewhere", tiny_ref)
    assert by_prompt(elsewhere.grow(samples=8, shard_samples=3, shard_prompts=2).samples) == grown
    assert len(elsewhere.drawn()) == 9


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


def test_no_prompt_gives_an_empty_set(grower):
    assert grower.grow([]).samples.rows == 0
