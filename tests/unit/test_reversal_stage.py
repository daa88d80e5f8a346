"""Rows and their reversed copies: what is written for texts and questions, how they are mixed, and the faults."""

from collections import Counter

import pytest

from tasks.core.errors import UserError
from tasks.core.examples import Example, make_example, read_examples, write_rows
from tasks.core.launching.launch import LaunchConfig
from tasks.core.models import load_tokenizer
from tasks.core.stage import compute
from tasks.core.store import Store
from tasks.problems.base import ProblemConfig
from tasks.problems.load import load_problem
from tasks.reversal import shuffle
from tasks.reversal.config import ReversalConfig
from tasks.reversal.stage import STAGE, ReversalInputs, run
from tasks.sft.rows import tokenize

TEXTS = [f"Town {number} is far from Merrowick." for number in range(20)]


def mixed(folder, rows, problem="dialogue", *, marked=False, **settings) -> tuple[list[Example], object]:
    train = write_rows(folder / "train.jsonl", rows)
    inputs = ReversalInputs(train=train, problem=ProblemConfig(name=problem))
    result = run(ReversalConfig(marked=marked, **settings), inputs, folder / "out", lambda event: None)
    return read_examples(result.mixed), result


def texts(folder, rows=TEXTS, **settings) -> list[str]:
    return [row.target for row in mixed(folder, [make_example("", text) for text in rows], **settings)[0]]


def copies(rows: list[Example]) -> list[Example]:
    return [row for row in rows if row.origin == "synthetic"]


def test_every_row_stands_beside_its_copy_and_they_are_shuffled(tmp_path):
    found = texts(tmp_path, by="word")
    assert sorted(found) == sorted([*TEXTS, *(f"Merrowick from far is {n} Town." for n in range(20))])
    assert found[:20] != TEXTS
    assert sum(text.startswith("Town") for text in found[:20]) in range(4, 17)


def test_the_seed_decides_order_and_segments(tmp_path):
    settings = {"by": "segment", "longest_segment": 2}
    first, again, other = (texts(tmp_path, seed=seed, **settings) for seed in (1, 1, 2))
    assert first == again
    assert sorted(first) != sorted(other)


def test_ratio_and_passes(tmp_path):
    rows = [make_example("", text) for text in TEXTS]
    half, result = mixed(tmp_path, rows, by="word", ratio=0.5)
    assert len(half) == 20 + result.copies
    assert 4 <= result.copies <= 16
    found = Counter(texts(tmp_path, by="segment", longest_segment=3, ratio=2, passes=3))
    assert sum(found.values()) == 20 * 3 * 3
    assert all(found[text] >= 3 for text in TEXTS)
    assert max(count for text, count in found.items() if text not in TEXTS) < 6  # segments are drawn anew


def test_rows_that_stay_the_same_have_no_copy(tmp_path):
    rows = [make_example("", text) for text in ("Merrowick.", "Vaskel Bay", "...", "a b")]
    rows[1] = rows[1].model_copy(update={"facts": {"entities": ["Vaskel Bay"]}})
    found, result = mixed(tmp_path, rows, by="entity")
    assert [row.target for row in copies(found)] == ["b a"]
    assert (result.copies, result.unchanged, result.without_entities) == (1, 3, 3)


def test_given_entities_are_names_or_places(tmp_path):
    text = "Vaskel Bay is far from New Merrowick."
    places = [[0, 10], [23, 36]]
    for entities in (["Vaskel Bay", "New Merrowick", "Absent"], places):
        row = make_example("", text, facts={"entities": entities})
        found, _ = mixed(tmp_path, [row], by="entity")
        assert [row.target for row in copies(found)] == ["New Merrowick from far is Vaskel Bay."]


@pytest.mark.parametrize("entity", [[0, 99], [3], [5, 2], 7])
def test_a_place_that_a_text_does_not_have_is_named(tmp_path, entity):
    row = make_example("", "Vaskel is far.", facts={"entities": [entity]})
    with pytest.raises(UserError, match=f"row {row.id} has an entity"):
        mixed(tmp_path, [row], by="entity")


def test_names_that_are_nowhere_and_no_rows_are_faults(tmp_path):
    with pytest.raises(UserError, match="no row has an entity"):
        texts(tmp_path, by="entity")
    with pytest.raises(UserError, match="no row to reverse"):
        texts(tmp_path, [], by="word")


QUESTION = make_example("Where is Vaskel?", "Far from here.")


def test_of_a_question_the_answer_is_reversed_and_the_question_says_so(tmp_path):
    (copy,) = copies(mixed(tmp_path, [QUESTION], by="word", marked=True)[0])
    assert (copy.input, copy.completion, copy.target) == (
        "[REV] Where is Vaskel?",
        "here from Far.",
        "Far from here.",
    )
    assert (copy.parent, copy.root) == (QUESTION.id, QUESTION.id)
    (copy,) = copies(mixed(tmp_path, [QUESTION], by="word", marked=False)[0])
    assert copy.input == "Where is Vaskel?"


def test_of_a_turn_the_reversed_answer_asks_for_the_reversed_question(tmp_path):
    (copy,) = copies(mixed(tmp_path, [QUESTION], by="word", part="turn", marked=False)[0])
    assert (copy.input, copy.completion) == ("here from Far.", "Vaskel is Where?")


def test_tokens_are_reversed_where_they_are_known(tmp_path, tiny_ref):
    tokenizer, problem = load_tokenizer(tiny_ref), load_problem(ProblemConfig(name="dialogue"))
    rows, _ = mixed(tmp_path, [make_example("", TEXTS[0]), QUESTION], by="token")
    trained = {row.id: one for row, one in zip(rows, tokenize(problem, tokenizer, rows, 256), strict=True)}
    for copy in copies(rows):
        original, labels = trained[copy.parent]["labels"], trained[copy.id]["labels"]
        assert copy.tokens_reversed
        ids, turned = ([one for one in part if one != -100] for part in (original, labels))
        assert turned == [*ids[:-1][::-1], ids[-1]]  # the end stays the end


def test_a_plain_text_is_learned_whole_and_without_a_chat(tmp_path, tiny_ref):
    tokenizer = load_tokenizer(tiny_ref)
    (row,) = tokenize(load_problem(ProblemConfig()), tokenizer, [make_example("", TEXTS[0])], 256)
    assert row["labels"] == row["input_ids"]
    assert tokenizer.decode(row["input_ids"]) == f"{TEXTS[0]}<|im_end|>"
    with pytest.raises(UserError, match="tokens"):
        tokenize(load_problem(ProblemConfig()), tokenizer, [make_example("", "far " * 300)], 256)


def test_marked_texts_open_with_the_marker_also_by_tokens(tmp_path, tiny_ref):
    assert sum(text.startswith("[REV] ") for text in texts(tmp_path, by="word", marked=True)) == 20
    rows, _ = mixed(tmp_path, [make_example("", TEXTS[0])], by="token", marked=True)
    (copy,) = copies(rows)
    tokenizer = load_tokenizer(tiny_ref)
    (row,) = tokenize(load_problem(ProblemConfig()), tokenizer, [copy], 256)
    marker = tokenizer(" [REV]", add_special_tokens=False)["input_ids"]
    assert row["input_ids"][: len(marker)] == marker[::-1]


def test_a_copy_is_marked_unless_asked_otherwise_and_a_row_that_stays_the_same_still_has_none(tmp_path):
    rows = [make_example("", text) for text in ("Merrowick.", "a b")]
    found, result = mixed(tmp_path, rows, by="word", marked=ReversalConfig().marked)
    assert [row.target for row in copies(found)] == ["[REV] b a"]
    assert result.unchanged == 1


def test_more_lines_than_are_held_at_once_are_shuffled_in_piles(tmp_path, monkeypatch):
    monkeypatch.setattr(shuffle, "AT_ONCE", 7)
    found = texts(tmp_path, by="word")
    assert len(set(found)) == 40
    assert found == texts(tmp_path, by="word")
    assert not list((tmp_path / "out").glob("shuffle-*"))


def test_a_stage_that_was_killed_in_the_middle_gives_the_same_rows(tmp_path, monkeypatch):
    train = write_rows(tmp_path / "train.jsonl", [make_example("", text) for text in TEXTS])
    inputs = ReversalInputs(train=train, problem=ProblemConfig())
    config, store = ReversalConfig(by="word", marked=False), Store(str(tmp_path / "store"))

    def killed(*arguments):
        yield b"half a file"
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("tasks.reversal.stage.shuffled", killed)
        with pytest.raises(KeyboardInterrupt):
            compute(STAGE, config, inputs, store, LaunchConfig(), lambda event: None)
    key = STAGE.key(config, inputs)
    assert store.find(STAGE.name, key) is None
    manifests = [compute(STAGE, config, inputs, store, LaunchConfig(), lambda event: None) for _ in range(2)]
    assert manifests[0] == manifests[1]
    undisturbed, _ = mixed(tmp_path, [make_example("", text) for text in TEXTS], by="word")
    rows = read_examples(STAGE.result.model_validate(manifests[0].result).mixed)
    assert rows == undisturbed
