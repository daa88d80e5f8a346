"""How Grow's samples are cut into shards, what a shard is cached by, and how the shards are joined."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tasks.core.examples import Example, make_sample, read_examples, write_rows
from tasks.core.generators.load import EngineConfig
from tasks.core.references import DatasetRef
from tasks.grow import gather, shards, stage
from tasks.grow.config import GrowConfig, planned
from tasks.grow.plan import plan_shards
from tasks.grow.stage import GrowInputs
from tests.unit.small_grow import PROBLEM, PROMPTS


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


Plan = list[tuple[int, int]]


def plan(samples: int, most: int, there: Sequence[tuple[int, int]]) -> Plan:
    """The shards, when those of `there` exist."""
    return plan_shards(samples, most, lambda first, count: (first, count) in there)


@pytest.mark.parametrize(
    ("numbers", "drawn"),
    [
        ([8], [[(0, 8)]]),
        ([12, 16], [[(0, 8), (8, 4)], [(12, 4)]]),
        ([16, 12, 16], [[(0, 8), (8, 8)], [(8, 4)], []]),
        ([3, 5, 8], [[(0, 3)], [(3, 2)], [(5, 3)]]),
        ([3, 5, 8, 5, 3, 4, 17], [[(0, 3)], [(3, 2)], [(5, 3)], [], [], [(3, 1)], [(8, 8), (16, 1)]]),
        ([5, 3, 8], [[(0, 5)], [(0, 3)], [(5, 3)]]),
        ([1, 2], [[(0, 1)], [(1, 1)]]),
    ],
)
def test_a_larger_number_draws_only_what_is_missing(numbers, drawn):
    there: Plan = []
    for samples, new in zip(numbers, drawn, strict=True):
        shards_of = plan(samples, 8, there)
        held = [number for first, count in shards_of for number in range(first, first + count)]
        assert held == list(range(samples))
        assert all(first // 8 == (first + count - 1) // 8 for first, count in shards_of)
        assert [shard for shard in shards_of if shard not in there] == new
        there += new
        assert plan(samples, 8, there) == shards_of


def test_shards_of_another_size_are_taken_where_they_fit():
    there = [(0, 4), (4, 4), (8, 8)]
    assert plan(16, 8, there) == there
    assert plan(16, 4, there) == [(0, 4), (4, 4), (8, 4), (12, 4)]
    assert plan(4, 3, there) == [(0, 3), (3, 1)]


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
        {"at_once": 3},
    ]
    assert {key(**changes) for changes in same} == {key()}
    other = [{"seed": 1}, {"temperature": 0.7}, {"top_k": 40}, {"top_p": 0.9}, {"max_new_tokens": 9}]
    assert len({key(), *(key(**changes) for changes in other)}) == 6


def test_gathered_samples_follow_the_data_and_come_once(tmp_path):
    one, two, three = PROMPTS[:3]

    def scored(name: str, *samples: tuple[Example, str, float]) -> DatasetRef:
        rows = [make_sample(prompt, text, reward=reward, cut=text == "z") for prompt, text, reward in samples]
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
    assert (result.duplicates, result.cut, result.lowest, result.highest) == (1, 1, 0.25, 0.75)
    assert result.best == pytest.approx((0.5 + 0.75 + 0.0) / 3)
