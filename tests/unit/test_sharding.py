"""Data sets cut into shards; an evaluation that is cut, and put together, byte for byte the whole one."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks import evaluate
from tasks.augment import stage as augment
from tasks.augment.config import AugmentConfig
from tasks.augment.requests import AugmentInputs
from tasks.augment.teacher import Teacher
from tasks.core import sharding
from tasks.core.config import identity
from tasks.core.examples import make_example, read_lines, write_rows
from tasks.core.fan_out import FanOutConfig
from tasks.core.flow_run import FlowConfig
from tasks.core.generators.load import EngineConfig
from tasks.core.references import DatasetRef
from tasks.core.sharding import ShardsConfig, ShardsInputs
from tasks.evaluate import EvaluationConfig, EvaluationInputs
from tasks.problems.base import ProblemConfig

PROBLEM = ProblemConfig(name="classification", labels=("music", "weather"))
SETTINGS = EvaluationConfig(max_new_tokens=6, restricted=False, resamples=100)


def ignore(event: object) -> None:
    pass


@dataclass
class Cutter:
    folder: Path
    rows: int

    def __call__(self, ref: DatasetRef) -> list[DatasetRef]:
        out = self.folder / ref.digest[:8]
        return sharding.run(ShardsConfig(rows=self.rows), ShardsInputs(rows=ref), out, ignore).shards


@pytest.fixture
def splits(tmp_path) -> dict[str, DatasetRef]:
    rows = [
        make_example(f"{'play' if number % 3 else 'rain'} {'la ' * (number % 7)}{number % 9}", label)
        for number in range(10)
        for label in ("music", "weather")
    ]
    # A row that comes twice stays two rows.
    return {
        "test": write_rows(tmp_path / "test.jsonl", rows),
        "train": write_rows(tmp_path / "train.jsonl", rows[:5]),
    }


@pytest.mark.parametrize(
    ("rows", "sizes"), [(7, [7, 7, 6]), (10, [10, 10]), (19, [19, 1]), (20, [20]), (99, [20])]
)
def test_shards_hold_every_row_as_it_stands(splits, tmp_path, rows, sizes):
    shards = Cutter(tmp_path, rows)(splits["test"])
    assert [shard.rows for shard in shards] == sizes
    assert [line for shard in shards for line in read_lines(shard)] == list(read_lines(splits["test"]))


@pytest.mark.parametrize("likelihood", [False, True])
def test_an_evaluation_in_shards_is_that_of_the_whole(splits, tiny_ref, tmp_path, likelihood):
    config = SETTINGS.model_copy(update={"likelihood": likelihood})
    inputs = EvaluationInputs(model=tiny_ref, splits=splits, problem=PROBLEM)
    whole = evaluate.run(config, inputs, tmp_path / "whole", ignore)
    parts = evaluate.cut(config, inputs, Cutter(tmp_path, 8))
    assert [(name, ref.rows) for part in parts for name, ref in part.splits.items()] == [
        ("test", 8),
        ("test", 8),
        ("test", 4),
        ("train", 5),
    ]
    results = [
        evaluate.run(config, part, tmp_path / f"part-{number}", ignore) for number, part in enumerate(parts)
    ]
    joined = evaluate.join(config, inputs, results, tmp_path / "joined")
    assert list(joined.splits) == list(whole.splits) == ["test", "train"]
    assert (
        len({row.answer for row in _predictions(whole)} | {row.completion for row in _predictions(whole)}) > 4
    )
    for ours, theirs in zip(_predictions(joined), _predictions(whole), strict=True):
        # The likelihood is a sum of rounded figures, whose last digits hang on the batch.
        assert (ours.logprob or 0.0) == pytest.approx(theirs.logprob or 0.0, rel=1e-5)
        assert (ours.logprob is not None) == likelihood
        assert ours.model_copy(update={"logprob": None}) == theirs.model_copy(update={"logprob": None})
    for name in splits:
        ours, theirs = joined.splits[name], whole.splits[name]
        assert ours.metrics() == theirs.metrics()
        assert (ours.classes, ours.wrong, ours.rows) == (theirs.classes, theirs.wrong, theirs.rows)
        assert likelihood or ours.predictions.digest == theirs.predictions.digest


def _predictions(result):
    return [
        evaluate.Prediction.model_validate_json(line)
        for split in result.splits.values()
        for line in read_lines(split.predictions)
    ]


@pytest.mark.parametrize(
    "config",
    [
        SETTINGS.model_copy(update={"temperature": 0.7}),  # a sample hangs on its row's place
        SETTINGS.model_copy(update={"engine": EngineConfig(engine="openai")}),
    ],
)
def test_sampled_answers_and_a_servers_stay_whole(splits, tiny_ref, tmp_path, config):
    inputs = EvaluationInputs(model=tiny_ref, splits=splits, problem=PROBLEM)
    assert evaluate.cut(config, inputs, Cutter(tmp_path, 8)) == []


def test_an_augmentation_in_shards_is_that_of_the_whole(splits, tiny_ref, tmp_path):
    config = AugmentConfig(rows=2, form="turns", shown=1, contrast=1, max_new_tokens=6)
    inputs = AugmentInputs(
        teacher=Teacher(engine=EngineConfig(), weights=tiny_ref),
        problem=PROBLEM,
        parents=splits["train"],
        pool=splits["test"],
        step=1,
        attempt=1,
    )
    whole = augment.run(config, inputs, tmp_path / "whole", ignore)
    parts = augment.cut(config, inputs, Cutter(tmp_path, 6))
    assert [(part.first, part.count) for part in parts] == [(0, 6), (6, 6), (12, 3)]
    results = [
        augment.run(config, part, tmp_path / f"part-{number}", ignore) for number, part in enumerate(parts)
    ]
    joined = augment.join(config, inputs, results, tmp_path / "joined")
    exchanges = [json.loads(line) for line in read_lines(whole.exchanges)]
    assert len({exchange["text"] for exchange in exchanges}) > 5  # sampled, each by a stream of its own
    assert (joined.exchanges.digest, joined.candidates.digest) == (
        whole.exchanges.digest,
        whole.candidates.digest,
    )
    without = {"exchanges", "candidates"}
    assert joined.model_dump(exclude=without) == whole.model_dump(exclude=without)
    served = inputs.model_copy(update={"teacher": Teacher(engine=EngineConfig(engine="openai"))})
    assert augment.cut(config, served, Cutter(tmp_path, 6)) == []


def test_where_shards_are_worked_on_is_no_part_of_an_identity():
    assert identity(FlowConfig(fan_out=FanOutConfig(runner="ray", rows_per_shard=3))) == identity(
        FlowConfig()
    )
    engine = EngineConfig(engine="vllm")
    assert identity(engine.model_copy(update={"tensor_parallel": 4})) == identity(engine)
