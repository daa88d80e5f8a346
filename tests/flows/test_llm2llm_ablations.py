"""The switches of LLM2LLM do what they say; loops end early when there is nothing left to learn from."""

import json
from collections import Counter

import pytest

from flows.__main__ import main
from tasks.core.digests import path_digest
from tasks.core.examples import read_records
from tasks.core.references import DatasetRef
from tests.flows.loops import TRAIN, rows_of, write_jsonl
from tests.flows.teacher import sentence
from tests.scripted_server import ScriptedServer, completion

MEMORISE = {
    "training__method": "full",
    "training__learning_rate": 0.01,
    "training__max_steps": 80,
    "training__batch_size": 8,
}


@pytest.fixture(scope="module")
def shared(new_loop, tmp_path_factory):
    """One store for all: what two runs have in common is computed once."""
    return new_loop(tmp_path_factory.mktemp("ablations"))


@pytest.fixture
def run(capsys):
    """Runs a loop in this process; the result, with the stages it adds to the store."""

    def run_loop(loop, **changes):
        before = loop.manifests()
        code = main(["llm2llm", *loop.flags(**changes)])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        added = Counter(name.split("/")[0] for name in loop.manifests().keys() - before.keys())
        return json.loads(captured.out.splitlines()[-1]), added

    return run_loop


def synthetic(result):
    return [row for row in rows_of(result) if row.origin == "synthetic"]


def test_only_failed_seed_rows_have_children_as_published(run, shared):
    result, _ = run(shared, iterations=3)
    seeds = {row.id for row in rows_of(result) if row.origin == "seed"}
    assert [figures["data/wrong"] for figures in result["iterations"]] == [8, 8, 8]
    assert {row.parent in seeds for row in synthetic(result)} == {True}
    assert [figures["data/train_rows"] for figures in result["iterations"]] == [8, 16, 24]


def test_with_synthetic_sources_their_children_are_written_from_too(run, shared):
    result, _ = run(shared, iterations=3, failures__source="seed_and_synthetic")
    assert [figures["data/wrong"] for figures in result["iterations"]] == [8, 16, 32]
    grandchildren = [row for row in synthetic(result) if row.parent != row.root]
    seeds = {row.id for row in rows_of(result) if row.origin == "seed"}
    assert len(grandchildren) == 8
    assert {row.root in seeds for row in grandchildren} == {True}


def test_continuing_starts_where_the_student_before_ended(run, shared):
    base, _ = run(shared)
    going_on, added = run(shared, start="continue")
    assert (base["iterations"][0], added["sft"]) == (going_on["iterations"][0], 1)
    assert going_on["iterations"][1]["train/loss"] < base["iterations"][1]["train/loss"]


@pytest.mark.parametrize(("start", "steps"), [("base", 3.0), ("continue", 6.0)])
def test_the_fair_baseline_has_as_many_steps_as_the_last_student_had_in_all(run, shared, start, steps):
    result, _ = run(shared, equal_steps=True, start=start)
    (figures,) = result["baselines"].values()
    assert figures["train/steps"] == steps


def test_one_shot_augments_once_with_the_rows_of_all_iterations(run, shared):
    result, _ = run(shared, iterations=4, schedule="one_shot")
    assert [figures["data/train_rows"] for figures in result["iterations"]] == [8, 32]
    assert Counter(row.parent for row in synthetic(result)) == dict.fromkeys(
        (row.id for row in rows_of(result) if row.origin == "seed"), 3
    )


def test_margin_takes_the_share_of_rows_whose_answer_is_least_likely(run, shared):
    result, _ = run(shared, failures__by="margin", failures__share=0.25)
    assert result["iterations"][0]["data/kept"] == 2
    (predictions,) = [
        path
        for path in shared.store.glob("evaluate/*/*/train.jsonl")
        if len(rows := _records(path)) == 8 and "logprob" in rows[0]
    ]
    ranked = sorted(_records(predictions), key=lambda record: record["logprob"])
    assert {row.parent for row in synthetic(result)} == {record["id"] for record in ranked[:2]}


def _records(path):
    return list(read_records(DatasetRef(uri=str(path), digest=path_digest(path), rows=0)))


def test_folds_train_a_student_for_every_part_and_judge_every_seed_row(run, shared):
    result, added = run(shared, failures__by="folds", failures__folds=2)
    assert added["folds"] == 1  # the last iteration augments nothing
    assert added["sft"] == 2
    assert result["iterations"][0]["data/wrong"] == 8


def test_the_untargeted_control_takes_as_many_rows_as_failed(run, loop):
    """Of two rows with one text and two labels one is always wrong, however well the rest is remembered."""
    write_jsonl(loop.folder / "train.jsonl", [*TRAIN, ("hello", "music"), ("hello", "weather")])
    targeted, _ = run(loop, **MEMORISE)
    texts = {row.id: row.input for row in rows_of(targeted)}
    assert targeted["iterations"][0]["data/wrong"] == 1
    assert [texts[row.parent] for row in synthetic(targeted)] == ["hello"]
    parents = set()
    for seed in range(2):
        control, _ = run(loop, failures__target="untargeted", failures__seed=seed, **MEMORISE)
        assert len(synthetic(control)) == 1
        parents.add(texts[synthetic(control)[0].parent])
    assert parents - {"hello"}


def test_a_loop_ends_when_nothing_is_wrong_any_more(run, loop):
    result, added = run(loop, iterations=3, **MEMORISE)
    assert (result["stopped"], len(result["iterations"])) == ("nothing is wrong any more", 1)
    assert result["iterations"][0]["data/wrong"] == 0
    assert "augment" not in added


def test_a_loop_ends_when_the_teacher_brings_nothing_new(run, shared):
    with ScriptedServer(lambda request: completion("Sorry.")) as idle:
        result, added = run(
            shared,
            iterations=3,
            augment__attempts=2,
            augment__seed=5,
            teacher__engine__endpoint__url=idle.url,
        )
    assert (result["stopped"], len(result["iterations"])) == ("the teacher brought nothing new", 1)
    assert (added["augment"], result["iterations"][0]["data/shortfall"]) == (2, 8)


def evolve_and_label(request):
    """A teacher that evolves the text shown by six words, and finds in every text with `e` in its last word weather."""
    asked = request["messages"][-1]["content"]
    if "Rewrite this" in asked or "Write a new" in asked:
        return completion(f"{asked.splitlines()[-1]} {sentence(str(request))}")
    texts = [line.partition(": ")[2] for line in asked.splitlines() if line.startswith("Input ")] or [asked]
    labels = ("weather" if "e" in text.split()[-1] else "music" for text in texts)
    return completion(
        "\n".join(f"Label for Input {place}: [{label}] (confident)" for place, label in enumerate(labels))
    )


@pytest.mark.slow
def test_failed_rows_are_evolved_and_their_labels_checked_by_the_teacher(run, loop):
    with ScriptedServer(evolve_and_label) as evolving:
        result, added = run(
            loop,
            augment__form="evol",
            augment__rows=4,
            judges__labels__on=True,
            judges__labels__labelling__batch_size=4,
            teacher__engine__endpoint__url=evolving.url,
        )
    new = synthetic(result)
    texts = {row.id: row.input for row in rows_of(result)}
    assert new
    assert added["label"] == 1
    assert all(row.input.startswith(texts[row.parent]) for row in new)
    assert all(row.target == ("weather" if "e" in row.input.split()[-1] else "music") for row in new)
    assert {row.facts["operation"].split("/")[0] for row in new} == {"evol"}
    figures = result["iterations"][0]
    assert figures["filter/relabelled"] + figures["data/kept"] <= figures["data/generated"]
    assert figures["filter/relabelled"] > 0
