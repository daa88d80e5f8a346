"""Preference pairs: every form gives the same pairs, every fault is named, no prompt is both learnt from and tested."""

import json
import os
import random
from pathlib import Path

import pytest

from tasks.core.errors import UserError
from tasks.core.stage import compute
from tasks.core.store import Store
from tasks.reward_model.config import PreferenceConfig
from tasks.reward_model.learned import check_needed
from tasks.reward_model.pairs import make_preference, read_preferences
from tasks.reward_model.preferences import STAGE, check, inputs, prepare
from tasks.rewards.config import RewardConfig

SHARED = Path(os.environ.get("LOOPWRIGHT_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def row(prompt="Is it far?", chosen="No.", rejected="Yes."):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


ROWS = [row(f"Question {n}", f"good {n}", f"bad {n}") for n in range(20)]


@pytest.fixture
def config(tmp_path):
    """Makes a configuration over rows written to files."""

    def make(train=ROWS, test=None, **settings):
        for name, rows in (("train", train), ("test", test)):
            if rows is not None:
                (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
                settings[name] = str(tmp_path / f"{name}.jsonl")
        return PreferenceConfig(**{"test_fraction": 0.0} | settings)

    return make


@pytest.fixture
def read(config, tmp_path):
    """The training pairs of rows."""

    def pairs(rows, **settings):
        return read_preferences(prepare(config(rows, **settings), tmp_path / "out").train)

    return pairs


def refused(config):
    with pytest.raises(UserError) as caught:
        check(config)
    assert caught.value.mend
    return caught.value


DIALOGUE = [user("Is it far?"), assistant("Where to?"), user("To the sea.")]
SPOKEN = "\n\nHuman: Is it far?\n\nAssistant: Where to?\n\nHuman: To the sea."


@pytest.mark.parametrize(
    "cells",
    [
        row(DIALOGUE),
        row(SPOKEN),
        row(f"{SPOKEN}\n\nAssistant:"),
        row(DIALOGUE, [assistant("No.")], [assistant("Yes.")]),
        row(DIALOGUE, [*DIALOGUE, assistant("No.")], [*DIALOGUE, assistant("Yes.")]),
        {"chosen": f"{SPOKEN}\n\nAssistant: No.", "rejected": f"{SPOKEN}\n\nAssistant: Yes."},
        {"chosen": [*DIALOGUE, assistant("No.")], "rejected": [*DIALOGUE, assistant("Yes.")]},
    ],
)
def test_every_form_of_a_pair_is_read_as_the_same_one(read, cells):
    assert read([cells]) == [make_preference(DIALOGUE, "No.", "Yes.")]


def test_a_plain_prompt_is_one_turn_and_answers_stay_as_they_stand(read):
    (pair,) = read([row("Is it far?", " No. ", 7)])
    assert (pair.prompt, pair.chosen, pair.rejected) == ([user("Is it far?")], " No. ", "7")


def test_columns_can_have_other_names(read):
    cells = {"question": "Is it far?", "better": "No.", "worse": "Yes.", "prompt": "ignored"}
    names = {"prompt": "question", "chosen": "better", "rejected": "worse"}
    assert read([cells], **names) == [make_preference([user("Is it far?")], "No.", "Yes.")]


def test_pairs_with_a_prompt_that_is_too_long_are_left_out_and_counted(config, tmp_path):
    longest = sum(len(turn["content"]) for turn in DIALOGUE)
    pairs = [row(DIALOGUE), row([*DIALOGUE[:2], user("To the sea!!")])]
    whole = config(pairs, test_fraction=0.0)
    data = prepare(whole.model_copy(update={"longest_prompt": longest}), tmp_path / "short")
    assert read_preferences(data.train) == [make_preference(DIALOGUE, "No.", "Yes.")]
    assert data.cautions() == ["Preference rows that were left out: 1 with a prompt that is too long."]
    assert prepare(whole, tmp_path / "all").train.rows == 2
    error = refused(whole.model_copy(update={"longest_prompt": longest - 1}))
    assert (error.field, "preferences.longest_prompt" in error.mend) == ("preferences.train", True)


def scored(*answers, input="Is it far?"):
    return [{"input": input, "completion": answer, "score": score} for answer, score in answers]


def sides(pairs):
    return sorted((pair.chosen, pair.rejected) for pair in pairs)


def test_scored_answers_become_pairs_of_higher_over_lower(read):
    rows = scored(("a", 3), ("b", "1"), ("c", 1), ("d", -2.5)) + scored(("e", 9), input="alone")
    assert sides(read(rows)) == [("a", "b"), ("a", "c"), ("a", "d"), ("b", "d"), ("c", "d")]


def test_an_answer_that_is_scored_twice_counts_with_the_mean(read):
    assert sides(read(scored(("a", 1), ("a", 4), ("b", 2)))) == [("a", "b")]
    assert sides(read(scored(("a", 0), ("a", 3), ("b", 2)))) == [("b", "a")]


def test_a_prompt_gives_no_more_pairs_than_asked_for(read):
    rows = scored(*((letter, n) for n, letter in enumerate("abcdef")))
    assert len(read(rows)) == 15
    kept = read(rows, pairs_per_prompt=4)
    assert len(kept) == 4
    assert kept == read(rows[::-1], pairs_per_prompt=4)


def test_scores_that_are_all_equal_leave_nothing_to_learn(config):
    error = refused(config(scored(("a", 1), ("b", 1)) + scored(("c", 2), input="other")))
    assert error.field == "preferences.train"
    assert "no pair is left" in error.fault


SPEAKS = {"chosen": f"{SPOKEN}\n\nAssistant: No.", "rejected": f"{SPOKEN}\n\nAssistant: Yes."}


@pytest.mark.parametrize(
    ("good", "bad", "fault"),
    [
        (row(), row(rejected="No. "), "the two sides are equal"),
        (row(), row(chosen=""), "column 'chosen' is empty"),
        (row(), row(rejected=None), "column 'rejected' is empty"),
        (row(), {"prompt": "Is it far?", "chosen": "No."}, "column 'rejected' is empty"),
        (row(), row(prompt=" "), "column 'prompt' is empty"),
        (row(), row(prompt=[]), "column 'prompt' is empty"),
        (row(), row(prompt=[user("Hello"), assistant("Hi")]), "does not end with words of the user"),
        (row(), row(prompt=[{"role": "robot", "content": "x"}]), "no list of messages"),
        (row(), row(chosen={"text": "No."}), "column 'chosen' is no text"),
        (row(), row(chosen="\ud800"), "half a character"),
        (row(), row(chosen=[user("What?"), assistant("No.")]), "holds another dialogue than the prompt"),
        (SPEAKS, SPEAKS | {"rejected": SPEAKS["chosen"]}, "the two sides are equal"),
        (SPEAKS, SPEAKS | {"rejected": SPOKEN}, "ends with a turn of the user"),
        (SPEAKS, SPEAKS | {"chosen": f"{SPOKEN}\n\nAssistant:"}, "the answer in column 'chosen' is empty"),
        (SPEAKS, SPEAKS | {"chosen": "\n\nHuman: Hm?\n\nAssistant: No."}, "differ before their last turn"),
        (SPEAKS, SPEAKS | {"chosen": "No."}, "no transcript"),
        (SPEAKS, SPEAKS | {"chosen": [assistant("No.")]}, "has no turn of the user"),
        (scored(("a", 1))[0], scored(("b", "high"))[0], "column 'score' is no finite number"),
        (scored(("a", 1))[0], scored(("b", float("nan")))[0], "column 'score' is no finite number"),
        (scored(("a", 1))[0], scored(("", 2))[0], "column 'completion' is empty"),
    ],
)
def test_a_row_that_is_no_pair_is_named_with_its_place_or_left_out(config, tmp_path, good, bad, fault):
    more = scored(("c", 2), ("d", 3)) if "score" in good else []
    error = refused(config([good, bad, *more]))
    assert error.field == "preferences.train"
    assert error.fault.startswith(f"{tmp_path}/train.jsonl, line 2: ")
    assert fault in error.fault
    assert "faulty=drop" in error.mend
    kept = prepare(config([good, bad, *more], faulty="drop"), tmp_path / "kept")
    without = prepare(config([good, *more]), tmp_path / "without")
    assert (kept.faulty, without.faulty) == (1, 0)
    assert kept.train.digest == without.train.digest


def test_five_faults_are_shown_and_the_others_counted(config):
    error = refused(config([row(chosen="")] * 9))
    assert error.fault.count("line ") == 5
    assert error.fault.endswith("and 4 more")


def test_duplicates_are_dropped_and_so_are_both_of_a_contradictory_pair(read, config, tmp_path):
    swapped = row("Question 3", "bad 3", "good 3")
    rows = [*ROWS, ROWS[0], ROWS[0], swapped]
    data = prepare(config(rows), tmp_path / "out")
    assert (data.duplicates, data.contradictory, data.train.rows) == (2, 2, 19)
    assert "Question 3" not in {pair.prompt[0]["content"] for pair in read_preferences(data.train)}


def test_the_other_answers_of_a_contradictory_prompt_stay(read):
    rows = [row("q", "a", "b"), row("q", "b", "a"), row("q", "a", "c")]
    assert sides(read(rows)) == [("a", "c")]


@pytest.mark.parametrize("seed", range(4))
def test_a_held_out_prompt_is_never_learnt_from(config, tmp_path, seed):
    rows = [row(f"Question {n % 7}", f"good {n}", f"bad {n}") for n in range(40)]
    data = prepare(config(rows, test_fraction=0.25, seed=seed), tmp_path / "out")
    train, test = read_preferences(data.train), read_preferences(data.test)
    assert len(train) + len(test) == 40
    assert 10 <= len(test) < 10 + 6  # the last prompt taken may have up to six pairs
    assert not {str(pair.prompt) for pair in train} & {str(pair.prompt) for pair in test}


def test_a_seed_decides_which_prompts_are_held_out(config, tmp_path):
    digests = [
        prepare(config(test_fraction=0.2, seed=seed), tmp_path / str(n)).test.digest
        for n, seed in enumerate((1, 1, 2))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_training_pairs_with_the_prompt_of_a_test_pair_are_left_out(config, tmp_path):
    test = [row("Question 4", "one", "two"), row("elsewhere")]
    data = prepare(config(test=test, test_fraction=0.5), tmp_path / "out")
    assert (data.shared, data.train.rows, data.test.rows) == (1, 19, 2)


def test_limits_take_pairs_that_the_seed_decides(config, tmp_path):
    data = prepare(config(test_fraction=0.5, rows=4, test_rows=3), tmp_path / "out")
    whole = prepare(config(test_fraction=0.5), tmp_path / "whole")
    assert read_preferences(data.train) == read_preferences(whole.train)[:4]
    assert read_preferences(data.test) == read_preferences(whole.test)[:3]
    assert prepare(config(rows=900), tmp_path / "all").train.rows == 20


@pytest.mark.parametrize(
    ("rows", "fraction"),
    [
        (ROWS + ROWS[:2], 0.2),
        (scored(*((letter, value) for letter in "abc" for value in (0.1, 0.2, 0.7)), ("d", 5)), 0.0),
    ],
)
def test_the_order_of_the_rows_changes_nothing(config, tmp_path, rows, fraction):
    orders = (rows, rows[::-1], random.Random(1).sample(rows, len(rows)))
    data = [
        prepare(config(order, test_fraction=fraction), tmp_path / str(n)) for n, order in enumerate(orders)
    ]
    assert len({each.train.digest for each in data}) == 1
    assert len({each.test and each.test.digest for each in data}) == 1
    assert len({each.duplicates for each in data}) == 1


@pytest.mark.parametrize(
    ("settings", "field", "fault"),
    [
        ({"prompt": "promt"}, "preferences.prompt", "no column 'promt'"),
        ({"chosen": "better"}, "preferences.train", "neither the columns"),
        ({"train": "nowhere.jsonl"}, "preferences.train", "does not exist"),
        ({"train": ""}, "preferences.train", "no pairs are named"),
        ({"test_fraction": 0.01}, "preferences.test_fraction", "without pairs"),
    ],
)
def test_mistakes_are_refused_with_their_field(config, settings, field, fault):
    error = refused(config().model_copy(update=settings))
    assert error.field == field
    assert fault in error.fault


def test_an_empty_file_is_refused(config):
    assert refused(config([])).field == "preferences.train"


def test_test_pairs_that_cancel_out_are_refused(config):
    error = refused(config(test=[row("q", "a", "b"), row("q", "b", "a")]))
    assert (error.field, error.fault) == ("preferences.test", "no pair is left to test on")


def test_training_pairs_that_are_all_tested_on_are_refused(config):
    assert refused(config(ROWS[:2], test=ROWS[:2])).field == "preferences.train"


def test_one_pair_is_enough_when_none_is_held_out(config, tmp_path):
    data = prepare(config(ROWS[:1]), tmp_path / "out")
    assert (data.train.rows, data.test) == (1, None)
    assert refused(config(ROWS[:1], test_fraction=0.1)).field == "preferences.test_fraction"


def test_the_cache_key_hangs_on_the_content_and_not_on_the_place(config, tmp_path):
    here = config()
    key = STAGE.key(here, inputs(here))
    moved = tmp_path / "moved.jsonl"
    moved.write_text("".join(json.dumps(row) + "\n" for row in ROWS[::-1]))
    there = here.model_copy(update={"train": str(moved)})
    assert STAGE.key(there, inputs(there)) == key
    moved.write_text(moved.read_text() + json.dumps(row("one more")) + "\n")
    assert STAGE.key(there, inputs(there)) != key


def test_the_stage_is_computed_once(config, tmp_path):
    from tasks.core.launching.launch import LaunchConfig

    store, settings = Store(str(tmp_path / "store")), config(test_fraction=0.2)
    events: list[dict] = []
    runs = [
        compute(STAGE, settings, inputs(settings), store, LaunchConfig(), events.append) for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert len([event for event in events if "seconds" in event]) == 1


@pytest.mark.skipif(not (SHARED / "hh").is_dir(), reason="the shared data are not there")
def test_real_transcripts_are_read_but_for_four_with_an_empty_answer(tmp_path):
    config = PreferenceConfig(train=str(SHARED / "hh" / "pairs.jsonl"), test_fraction=0.1)
    assert "line 87: the answer in column 'chosen' is empty" in refused(config).fault
    data = prepare(config.model_copy(update={"faulty": "drop"}), tmp_path)
    assert (data.faulty, data.contradictory, data.train.rows + data.test.rows) == (4, 0, 1996)
    for pair in read_preferences(data.train):
        assert [message["role"] for message in pair.prompt[::2]] == ["user"] * (len(pair.prompt) // 2 + 1)
        assert "\n\nHuman:" not in pair.chosen + pair.rejected


def test_pairs_that_nothing_learns_from_are_refused():
    pairs = PreferenceConfig(train="pairs.jsonl")
    for reward, judge in (
        (RewardConfig(), True),
        (RewardConfig(by="function", function="own:f"), True),
        (RewardConfig(by="model", model="folder"), False),
    ):
        with pytest.raises(UserError, match=r"pairs\.jsonl is named") as refusal:
            check_needed(pairs, reward, judge=judge)
        assert refusal.value.field == "preferences.train"
        check_needed(PreferenceConfig(), reward, judge=judge)
    check_needed(pairs, RewardConfig(by="model"))
    check_needed(pairs, RewardConfig(by="model", model="folder"), judge=True)
