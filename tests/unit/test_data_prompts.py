"""Prompts: none that is tested on is learned from, answers only where something is rewarded by them."""

import json

import pytest

from tasks.core.errors import UserError
from tasks.core.examples import read_examples
from tasks.core.progress import Progress
from tasks.data import preparing, prompts
from tasks.data.config import DataConfig
from tests.cached_run import CachedRun

TRAIN = [{"input": f"question {n}", "target": "yes" if n % 2 else "no"} for n in range(6)]
TEST = [{"input": "tested", "target": "yes"}]
VALIDATION = [{"input": "validated", "target": "no"}]


@pytest.fixture
def asked(tmp_path):
    """Checks, then prepares, prompts beside data that are written to files; with what the check was given."""

    def ask(rows, *, answered=True, **settings):
        for name, content in (
            ("train", TRAIN),
            ("test", TEST),
            ("validation", VALIDATION),
            ("prompts", rows),
        ):
            lines = "".join(json.dumps(row) + "\n" for row in content)
            (tmp_path / f"{name}.jsonl").write_text(lines)
        places = {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "test", "validation")}
        config, address = DataConfig(**places, **settings), str(tmp_path / "prompts.jsonl")
        prompts.check(config, address, answered=answered)
        data = preparing.prepare(config, tmp_path / "data")
        asking = config.asking(address)
        inputs = prompts.inputs(asking, data, answered=answered)
        found = prompts.STAGE.run(asking, inputs, tmp_path / "out", Progress(""))
        return found, read_examples(found.prompts), inputs

    return ask


def test_questions_of_test_and_validation_rows_are_left_out_whatever_their_answer(asked):
    rows = [
        {"input": "tested", "target": "no"},
        {"input": "validated", "target": "no"},
        {"input": "free", "target": "yes"},
        {"input": "free", "target": "yes"},
        {"input": "question 0", "target": "no"},
    ]
    found, kept, inputs = asked(rows)
    assert {row.input for row in kept} == {"free", "question 0"}
    assert (found.prompts.rows, found.held_out, found.duplicates) == (2, 2, 1)
    assert found.cautions() == ["2 of 4 prompts were left out: test or validation rows ask the same."]
    again, _, same = asked(rows[::-1])
    assert (again.prompts.digest, same) == (found.prompts.digest, inputs)
    none, _, other = asked(rows[2:])
    assert none.cautions() == []
    assert other.rows != inputs.rows


def test_prompts_without_answers_serve_where_nothing_is_rewarded_by_them(asked):
    rows = [{"input": "free"}, {"input": "answered", "target": "yes"}, {"input": "null", "target": None}]
    _, kept, _ = asked(rows, answered=False)
    assert {row.input: row.target for row in kept} == {"free": "", "answered": "yes", "null": ""}
    with pytest.raises(UserError) as refusal:
        asked(rows)
    assert refusal.value.field == "prompts"
    with pytest.raises(UserError, match="no column 'target'"):
        asked([{"input": "free"}])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "is empty"),
        ([{"input": "free", "target": "perhaps"}], "'perhaps' is not one of the 2 known ones"),
        ([{"input": "tested", "target": "yes"}], "every question is that of a test or validation row"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_its_own_field(asked, rows, words):
    with pytest.raises(UserError, match=words) as refusal:
        asked(rows)
    assert refusal.value.field == "prompts"


@pytest.fixture
def asked_of_training_rows(tmp_path):
    """Checks, prepares and asks where no address of prompts is given; with the training rows, and the run."""

    def ask(train, *, problem="exact_match", validation=VALIDATION):
        places = {"train": train, "test": TEST, "validation": validation}
        for name, content in places.items():
            lines = "".join(json.dumps(row) + "\n" for row in content)
            (tmp_path / f"{name}.jsonl").write_text(lines)
        config = DataConfig(**{name: str(tmp_path / f"{name}.jsonl") for name in places}, problem=problem)
        prompts.check(config, "", answered=True)
        run = CachedRun(tmp_path / "store")
        data = run.stage(preparing.STAGE, config, preparing.inputs(config))
        return prompts.ask(run, config, "", data, answered=True), data.train

    return ask


def test_training_rows_that_ask_what_is_held_out_are_no_prompts(asked_of_training_rows):
    other_answers = [{"input": "tested", "target": "no"}, {"input": "validated", "target": "yes"}]
    found, trained = asked_of_training_rows([*TRAIN, *other_answers])
    assert {row.input for row in read_examples(found.prompts)} == {row["input"] for row in TRAIN}
    assert (trained.rows, found.prompts.rows, found.held_out, found.duplicates) == (8, 6, 2, 0)
    assert found.cautions() == ["2 of 8 prompts were left out: test or validation rows ask the same."]
    assert asked_of_training_rows([*TRAIN, *other_answers])[0] == found


def test_training_rows_apart_from_what_is_held_out_are_asked_as_they_are(asked_of_training_rows):
    found, trained = asked_of_training_rows(TRAIN)
    assert found.prompts == trained
    assert (found.held_out, found.cautions()) == (0, [])
    found, trained = asked_of_training_rows([*TRAIN, *TEST], problem="classification")
    assert found.prompts == trained
    assert found.held_out == 0


def test_training_rows_that_are_all_held_out_are_refused_before_anything_is_prepared(
    asked_of_training_rows, tmp_path
):
    with pytest.raises(UserError, match="every question is that of a test or validation row") as refusal:
        asked_of_training_rows([*TEST, *VALIDATION])
    assert refusal.value.field == "prompts"
    assert "give other prompts" in refusal.value.mend
    assert not (tmp_path / "store").exists()


def test_test_rows_that_are_training_rows_are_told_to_the_reader(tmp_path):
    rows = "".join(json.dumps(row) + "\n" for row in TRAIN)
    (tmp_path / "train.jsonl").write_text(rows)
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*TEST, TRAIN[0]]))
    config = DataConfig(train=str(tmp_path / "train.jsonl"), test=str(tmp_path / "test.jsonl"))
    data = preparing.prepare(config, tmp_path / "out")
    assert data.cautions() == ["1 of 2 test rows are training rows too, word for word."]
    assert data.model_copy(update={"test_rows_in_train": 0}).cautions() == []
