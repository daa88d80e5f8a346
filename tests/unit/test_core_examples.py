"""Rows: their ids, what a file of them holds, and samples, which are a model's answers to them."""

import json

from tasks.core.examples import Example, make_example, make_sample, read_examples, write_rows


def test_a_sample_keeps_question_and_target_and_knows_where_it_comes_from():
    row = make_example("2 + 2", "4", facts={"seed": 3})
    sample = make_sample(row, "It is 4.", step=2, cut=True)
    assert (sample.input, sample.target, sample.completion, sample.facts) == (
        "2 + 2",
        "4",
        "It is 4.",
        {"seed": 3},
    )
    assert (sample.parent, sample.root, sample.origin, sample.step, sample.cut) == (
        row.id,
        row.id,
        "synthetic",
        2,
        True,
    )
    assert sample.reward is None


def test_the_id_of_a_sample_hangs_on_question_target_and_answer():
    row, other = make_example("2 + 2", "4"), make_example("2 + 3", "5")
    ids = {make_sample(row, "4").id, make_sample(row, "four").id, make_sample(other, "4").id, row.id}
    assert len(ids) == 4
    assert make_sample(row, "4", step=1).id == make_sample(row, "4", step=2).id


def test_a_scored_sample_answered_anew_has_no_reward():
    scored = make_sample(make_example("a", "b"), "c").model_copy(update={"reward": 0.5})
    assert make_sample(scored, "d").reward is None


def test_rows_without_samples_are_written_as_before(tmp_path):
    ref = write_rows(tmp_path / "rows.jsonl", [make_example("a", "b")])
    assert set(json.loads((tmp_path / "rows.jsonl").read_text())) == {"id", "input", "target"}
    assert read_examples(ref) == [make_example("a", "b")]


def test_all_fields_of_a_sample_survive_a_file(tmp_path):
    sample = make_sample(make_example("a", "b", facts={"n": [1]}), "", step=1, cut=True)
    sample = Example.model_validate(sample.model_dump() | {"reward": 0.0})
    assert read_examples(write_rows(tmp_path / "rows.jsonl", [sample])) == [sample]
