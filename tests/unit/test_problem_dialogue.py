"""Dialogues: transcripts as messages, rows split into dialogue and reply, replies scored as rouge-score does."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from tasks.core.examples import content_id, make_example
from tasks.problems.base import ProblemConfig
from tasks.problems.dialogue import Dialogue, is_transcript, read_turns, write_turns

SHARED = Path(os.environ.get("LOOPWRIGHT_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
PROBLEM = Dialogue(ProblemConfig(name="dialogue"))
ASKED = "\n\nHuman: Is it far?\n\nAssistant: Where to?\n\nHuman: To the sea."
NEAR, FAR = f"{ASKED}\n\nAssistant: No, an hour.", f"{ASKED}\n\nAssistant: Very far."


def turns(*contents):
    return [{"role": ("user", "assistant")[n % 2], "content": content} for n, content in enumerate(contents)]


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (NEAR, turns("Is it far?", "Where to?", "To the sea.", "No, an hour.")),
        (NEAR.lstrip(), turns("Is it far?", "Where to?", "To the sea.", "No, an hour.")),
        (f"{ASKED}\n\nAssistant:", turns("Is it far?", "Where to?", "To the sea.", "")),
        ("\n\nHuman: one\n\ntwo", turns("one\n\ntwo")),
        ("\n\nHuman: one\n\nHuman: two\n\nAssistant: a\n\nAssistant:  b ", turns("one\n\ntwo", "a\n\nb")),
        ("\n\nHuman: Say\nAssistant: inside a line", turns("Say\nAssistant: inside a line")),
        ("Is it far?", turns("Is it far?")),
        ("Human: nature, an essay", turns("Human: nature, an essay")),
        (" two\n\nAssistant: paragraphs", turns(" two\n\nAssistant: paragraphs")),
    ],
)
def test_a_transcript_becomes_messages_and_other_text_one_turn(text, messages):
    assert read_turns(text) == messages


@given(st.lists(st.text("ab \n", min_size=1).map(str.strip).filter(bool), min_size=1, max_size=5))
def test_what_is_written_is_read(contents):
    assert read_turns(write_turns(turns(*contents))) == turns(*contents)


@pytest.mark.parametrize(
    ("input", "target", "read_input", "read_target"),
    [
        (NEAR, NEAR, ASKED, "No, an hour."),
        (NEAR, FAR, ASKED, "No, an hour."),
        (ASKED, FAR, ASKED, "Very far."),
        (f"{ASKED}\n\nAssistant:", "Very far.", ASKED, "Very far."),
        (f"{ASKED}\n\nAssistant:", NEAR, ASKED, "No, an hour."),
        ("Is it far?", "\n\nHuman: Is it far?\n\nAssistant: No.", "Is it far?", "No."),
        ("Is it far?", "No.", "Is it far?", "No."),
    ],
)
def test_a_row_is_split_into_dialogue_and_reply(input, target, read_input, read_target):
    row = PROBLEM.adapt(make_example(input, target, step=3))
    assert (row.input, row.target, row.step) == (read_input, read_target, 3)
    assert row.id == content_id(read_input, read_target)
    assert PROBLEM.fault(row) is None
    assert PROBLEM.adapt(row) == row
    assert PROBLEM.prompt(row)[-1]["role"] == "user"


@pytest.mark.parametrize(
    ("input", "target", "fault"),
    [
        (NEAR, "Another reply", "does not end with words of the user"),
        (f"{ASKED}\n\nAssistant:", f"{ASKED}\n\nAssistant:", "the reply is empty"),
        (ASKED, ASKED, "the reply is empty"),
        ("\n\nHuman: ", "Yes?", "does not end with words of the user"),
        ("Is it far?", " ", "the reply is empty"),
        (" ", "No.", "the input is empty"),
    ],
)
def test_rows_that_are_no_dialogue_have_a_fault(input, target, fault):
    assert fault in PROBLEM.fault(PROBLEM.adapt(make_example(input, target)))


def test_the_instruction_stands_before_the_turns():
    told = Dialogue(ProblemConfig(name="dialogue", instruction="Be brief."))
    row = make_example(ASKED, "Very far.")
    assert told.prompt(row) == [{"role": "system", "content": "Be brief."}, *PROBLEM.prompt(row)]
    assert PROBLEM.prompt(row) == turns("Is it far?", "Where to?", "To the sea.")


@given(st.text("ab c.é", max_size=12), st.text("ab c.é", min_size=1, max_size=12).filter(str.strip))
def test_a_reply_is_scored_as_rouge_score_does(completion, target):
    ours = PROBLEM.score(make_example("Say", target), completion).value
    reference = RougeScorer(["rougeL"]).score(target, completion)["rougeL"].fmeasure
    has_tokens = any(char in "abc" for char in target) and any(char in "abc" for char in completion)
    equal = bool(completion.strip()) and completion.strip() == target.strip()
    assert ours == pytest.approx(reference if has_tokens else float(equal))


@pytest.mark.parametrize(
    ("completion", "value"),
    [
        ("No, an hour.", 1.0),
        ("no AN hour", 1.0),
        ("an hour", 0.8),  # precision 1, recall 2/3
        ("", 0.0),
        ("!", 0.0),
        ("yes", 0.0),
    ],
)
def test_the_value_of_a_reply(completion, value):
    assert PROBLEM.score(make_example("Is it far?", "No, an hour."), completion).value == pytest.approx(value)


def test_replies_in_another_script_are_compared_by_its_letters_or_words():
    row = make_example("远吗?", "不远, 3 公里")
    found = [PROBLEM.score(row, text).value for text in ("不远,  3 公里!", "很远", "不, 3 点", "")]
    assert found == pytest.approx([1.0, 2 * 0.2 * 0.5 / 0.7, 2 * 0.4 * (2 / 3) / (0.4 + 2 / 3), 0.0])
    shaken = make_example("Yes?", "🙂")  # no letter at all: only the same is right
    assert [PROBLEM.score(shaken, text).value for text in ("🙂", "🙂🙂")] == [1.0, 0.0]


@pytest.mark.parametrize("parent", [make_example(ASKED, "Very far."), make_example("Is it far?", "No.")])
def test_what_a_teacher_is_shown_it_can_write(parent):
    (draft,) = PROBLEM.read(PROBLEM.show(parent), parent)
    assert read_turns(draft.input) == read_turns(parent.input)
    assert draft.target == parent.target
    assert is_transcript(draft.input) == is_transcript(parent.input)
    request = PROBLEM.request(parent, [], 3, [])
    assert PROBLEM.show(parent) in request[-1]["content"]
    assert PROBLEM.read(request[2]["content"], parent) == []  # copies of the worked exchange are no rows


@pytest.mark.skipif(not (SHARED / "hh").is_dir(), reason="the shared data are not there")
def test_real_transcripts_split_into_dialogue_and_reply():
    with (SHARED / "hh" / "pairs.jsonl").open() as file:
        texts = [json.loads(line)["chosen"] for line in file]
    rows = [PROBLEM.adapt(make_example(text, text)) for text in texts]
    sound = [(text, row) for text, row in zip(texts, rows, strict=True) if PROBLEM.fault(row) is None]
    assert len(sound) == 1996  # four of the 2,000 have an empty reply
    for text, row in sound:
        question, _, reply = text.rpartition("\n\nHuman:")[2].partition("\n\nAssistant:")
        assert row.target.split() == reply.replace("\n\nAssistant:", " ").split()
        assert PROBLEM.prompt(row)[-1] == {"role": "user", "content": question.strip()}
