"""Which rows count as failed, by hand-made predictions; and that no row is judged by a student that saw it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import append, failures
from tasks.append import AppendInputs
from tasks.core.config import Config
from tasks.core.examples import Example, read_examples, write_rows
from tasks.failures import FailuresConfig, FailuresInputs, FoldsInputs, least_likely, split_folds


def row(name: str, target="a", **lineage) -> Example:
    return Example(id=name, input=f"text {name}", target=target, **lineage)


def written(name: str, parent: str, root: str, target="a") -> Example:
    return row(name, target, origin="synthetic", parent=parent, root=root, step=1)


ROWS = [row("s1"), row("s2"), written("w1", "s1", "s1"), row("s3"), written("w2", "w1", "s1"), row("s4")]
VALUES = {"s1": 0.0, "s2": 1.0, "w1": 0.5, "s3": 0.0, "w2": 1.0, "s4": 1.0}
LOGPROBS = {"s1": -1.0, "s2": -9.0, "w1": -8.0, "s3": -3.0, "w2": -2.0, "s4": -5.0}


def chosen(folder, *, rows=ROWS, predicted=tuple(VALUES), step=1, **config) -> tuple[list[str], int]:
    predictions = [{"id": name, "value": VALUES[name], "logprob": LOGPROBS[name]} for name in predicted]
    half = len(predictions) // 2
    parts = [
        write_rows(folder / f"{number}.jsonl", part)
        for number, part in enumerate((predictions[half:], predictions[:half]))
    ]
    inputs = FailuresInputs(train=write_rows(folder / "train.jsonl", rows), predictions=parts, step=step)
    result = failures.run(FailuresConfig(**config), inputs, folder, print)
    return [example.id for example in read_examples(result.failures)], result.wrong


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, (["s1", "s3"], 2)),
        ({"source": "seed_and_synthetic"}, (["s1", "w1", "s3"], 3)),
        ({"by": "margin", "share": 0.5}, (["s2", "s4"], 2)),
        ({"by": "margin", "share": 0.01}, (["s2"], 2)),
        ({"by": "margin", "share": 0.5, "source": "seed_and_synthetic"}, (["s2", "w1", "s4"], 3)),
        ({"by": "margin", "share": 1.0}, (["s1", "s2", "s3", "s4"], 2)),
    ],
)
def test_the_failed_rows_are_chosen_in_the_order_of_the_training_data(tmp_path, config, expected):
    assert chosen(tmp_path, **config) == expected


def test_a_row_that_nobody_judged_is_not_failed(tmp_path):
    assert chosen(tmp_path, predicted=("s2", "s3", "s4")) == (["s3"], 1)
    assert chosen(tmp_path, predicted=()) == ([], 0)


def test_no_row_gives_no_failure(tmp_path):
    assert chosen(tmp_path, rows=[]) == ([], 0)
    assert chosen(tmp_path, rows=[], by="margin") == ([], 0)


def test_the_untargeted_control_takes_as_many_seed_rows_at_random(tmp_path):
    picks = [chosen(tmp_path, target="untargeted", step=step)[0] for step in range(1, 40)]
    assert {len(pick) for pick in picks} == {2}
    assert {name for pick in picks for name in pick} == {"s1", "s2", "s3", "s4"}
    assert all(pick == sorted(pick) for pick in picks)
    assert chosen(tmp_path, target="untargeted", step=3)[0] == picks[2]
    others = [chosen(tmp_path, target="untargeted", seed=1, step=step)[0] for step in range(1, 40)]
    assert others != picks


def test_the_untargeted_control_never_takes_a_synthetic_row(tmp_path):
    for step in range(20):
        names, wrong = chosen(tmp_path, target="untargeted", source="seed_and_synthetic", step=step)
        assert (len(names), wrong, [name for name in names if name[0] == "w"]) == (3, 3, [])


def test_equal_log_probabilities_are_told_apart_by_the_row_and_not_by_its_place():
    rows = [row("b"), row("a"), row("c")]
    logprobs = dict.fromkeys("abc", -1.0)
    assert [r.id for r in least_likely(rows, logprobs, 0.4)] == ["a"]
    assert [r.id for r in least_likely(rows[::-1], logprobs, 0.4)] == ["a"]
    without = logprobs | {"a": None}  # longer than the student's context
    assert "a" not in [r.id for r in least_likely(rows, without, 1.0)]


def test_every_fold_holds_out_its_rows_and_all_that_was_written_from_them():
    rows = [row(f"s{n}", "ab"[n % 2]) for n in range(6)]
    rows += [written("w1", "s1", "s1", "b"), written("w2", "w1", "s1", "b"), written("w3", "s4", "s4")]
    folds = split_folds(rows, 3, seed=5)
    assert sorted(held.id for _, part in folds for held in part) == [f"s{n}" for n in range(6)]
    for train, held_out in folds:
        assert sorted(held.target for held in held_out) == ["a", "b"]
        held_ids = {held.id for held in held_out}
        assert [r.id for r in train if r.id in held_ids or r.root in held_ids] == []
        assert [r.id for r in train] == [
            r.id for r in rows if r.id not in held_ids and r.root not in held_ids
        ]


@given(
    seeds=st.integers(0, 12),
    children=st.lists(st.tuples(st.integers(0, 11), st.booleans()), max_size=15),
    folds=st.integers(2, 5),
    seed=st.integers(0, 3),
)
def test_no_student_judges_a_row_it_saw_or_whose_descendants_it_saw(seeds, children, folds, seed):
    rows = [row(f"s{n}", "abc"[n % 3]) for n in range(seeds)]
    for number, (index, deep) in enumerate(children):
        if index < seeds:
            rows.append(written(f"w{number}", f"w{number - 1}" if deep else f"s{index}", f"s{index}"))
    result = split_folds(rows, folds, seed)
    judged = [held.id for _, held_out in result for held in held_out]
    assert sorted(judged) == sorted(set(judged))
    assert len(judged) == (seeds if seeds > 1 else 0)
    for train, held_out in result:
        held_ids = {held.id for held in held_out}
        assert train
        assert all(r.id not in held_ids and r.root not in held_ids for r in train)


def test_the_folds_stage_writes_what_was_split(tmp_path):
    inputs = FoldsInputs(train=write_rows(tmp_path / "train.jsonl", ROWS))
    result = failures.run_folds(FailuresConfig(folds=2), inputs, tmp_path / "out", print)
    stored = [(read_examples(fold.train), read_examples(fold.held_out)) for fold in result.folds]
    assert stored == split_folds(ROWS, 2, 0)


def test_joined_data_sets_keep_every_row_in_order(tmp_path):
    parts = [write_rows(tmp_path / f"{n}.jsonl", part) for n, part in enumerate((ROWS[:4], [], ROWS[4:]))]
    joined = append.run(Config(), AppendInputs(parts=parts), tmp_path / "out", print).joined
    assert (read_examples(joined), joined.rows) == (ROWS, 6)
    assert append.run(Config(), AppendInputs(parts=[]), tmp_path / "none", print).joined.rows == 0
