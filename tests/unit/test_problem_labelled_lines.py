"""Rows as labelled lines: numeric and exact-match teachers, garbage included."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.examples import make_example
from tasks.problems.base import ProblemConfig
from tasks.problems.exact_match import ExactMatch
from tasks.problems.numeric import Numeric

NUMERIC, EXACT = Numeric(ProblemConfig(name="numeric")), ExactMatch(ProblemConfig(name="exact_match"))
WORKED = make_example("How many legs have 2 cats?", "A cat has 4 legs.\n2 * 4 = 8\n#### 8")
BARE = make_example("2 + 2?", "4")


@pytest.mark.parametrize(
    ("problem", "example"),
    [(NUMERIC, WORKED), (NUMERIC, BARE), (EXACT, make_example("Line one\nline two", "word"))],
)
def test_what_is_shown_can_be_read_back(problem, example):
    text = f"{problem.show(example)}\n\n{problem.show(example)}"
    assert [(draft.input, draft.target) for draft in problem.read(text, example)] == [
        (example.input, example.target)
    ] * 2


@pytest.mark.parametrize(
    "text",
    [
        "Here you are:\n\nQuestion: How many?\nAnswer: 3 + 4 = 7\n#### 7\n\nIs there more I can do?",
        "**Question:** How many?\n**Answer:** 3 + 4 = 7\n#### 7",
        "1. Question: How many?\n   Answer: 3 + 4 = 7\n#### 7 \n---",
        "### Question 1: How many?\nANSWER: 3 + 4 = 7\n####7",
    ],
)
def test_talk_numbers_and_bold_type_around_a_row_are_tolerated(text):
    assert [(draft.input, draft.target) for draft in NUMERIC.read(text, WORKED)] == [
        ("How many?", "3 + 4 = 7\n#### 7")
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot help with that.",
        "Question: How many?",
        "Question: How many?\nAnswer:",
        "Question:\nAnswer: #### 7",
        "Question: How many?\nAnswer: 3 + 4 is",
        "Question: How many?\nAnswer: 3 + 4 = 7",
        "Question: How many?\nAnswer: many\n#### many",
        "Question: How many?\nAnswer: 5\n#### 5\nAnswer: 6\n#### 6",
        'Question: {"a": 1}',
    ],
)
def test_an_incomplete_or_contradictory_row_is_left_out_and_its_neighbours_stay(text):
    assert NUMERIC.read(text, WORKED) == []
    whole = "Question: And now?\nAnswer: 1 + 1 = 2\n#### 2"
    assert [draft.input for draft in NUMERIC.read(f"{whole}\n\n{text}", WORKED)] == ["And now?"]
    assert [draft.input for draft in NUMERIC.read(f"{text}\n\n{whole}", WORKED)] == ["And now?"]


def test_an_answer_without_a_question_spoils_the_row_before_it_only():
    rows = "Question: One?\nAnswer: #### 1\n\nQuestion: Two?\nAnswer: #### 2\n\nAnswer: #### 7"
    assert [draft.input for draft in NUMERIC.read(rows, WORKED)] == ["One?"]
    assert NUMERIC.read("Answer: #### 7", WORKED) == []


def test_blank_lines_between_the_steps_of_a_worked_answer_are_kept():
    text = "Question: How many?\nAnswer: First 3.\n\nThen 4.\n\n#### 7\n\nDone."
    assert NUMERIC.read(text, WORKED)[0].target == "First 3.\n\nThen 4.\n\n#### 7"


def test_an_answer_without_steps_ends_at_its_blank_line():
    assert EXACT.read("Question: Who?\nAnswer: Ada\n\nShe was first.", BARE)[0].target == "Ada"
    assert NUMERIC.read("Question: How many?\nAnswer: 7\n\nGood luck in 2024!", BARE)[0].target == "7"


@pytest.mark.parametrize(("problem", "parent"), [(NUMERIC, WORKED), (NUMERIC, BARE), (EXACT, BARE)])
def test_the_worked_exchange_is_well_formed_and_its_copies_are_no_rows(problem, parent):
    example, written = problem.worked(parent)
    for row in (example, *written):
        assert problem.fault(row) is None
        assert ("####" in row.target) == ("####" in parent.target)
        assert problem.read(problem.show(row), parent) == []


def test_a_request_is_system_worked_exchange_and_query_with_parent_mates_and_what_to_avoid():
    messages = NUMERIC.request(WORKED, [make_example("How many eyes?", "#### 2")], 3, ["How many ears?"])
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    query = messages[-1]["content"]
    assert "Write 3 new exercises" in query
    for text in (NUMERIC.show(WORKED), "Question: How many eyes?\nAnswer: #### 2", "How many ears?"):
        assert text in query


@given(st.text())
def test_no_text_makes_a_reader_fail_and_every_row_it_gives_is_usable(text):
    for problem, parent in ((NUMERIC, WORKED), (EXACT, BARE)):
        for draft in problem.read(f"Question: {text}\nAnswer: {text}", parent):
            assert problem.fault(make_example(draft.input, draft.target)) is None


@pytest.mark.parametrize(
    ("target", "completion", "value"),
    [
        ("Ada Lovelace", "ada  lovelace.", 1.0),
        ("Ada Lovelace", '"Ada Lovelace"', 1.0),
        ("Ada Lovelace", "Ada Lovelace was first", 0.0),
        ("Ada Lovelace", "Ada", 0.0),
        ("Ada", "", 0.0),
        ("...", "", 0.0),
        ("ﬁne", "fine", 1.0),
        ("one\ntwo", "One two", 1.0),
    ],
)
def test_exact_match_takes_the_whole_answer_in_normal_form(target, completion, value):
    assert EXACT.score(make_example("Who?", target), completion).value == value


def test_an_empty_answer_is_a_fault():
    assert EXACT.fault(make_example("Who?", " ")) == "the answer is empty"
