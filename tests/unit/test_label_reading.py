"""Answers to a batch, as models write them."""

import pytest

from tasks.core.examples import make_example
from tasks.label.prompting import batch_prompt, single_prompt
from tasks.label.reading import Ballot, read_batch
from tasks.problems.base import ProblemConfig
from tasks.problems.load import load_problem

PROBLEM = load_problem(ProblemConfig(name="classification", labels=("praise", "complaint")))
ROWS = [make_example(text, "") for text in ("Lovely.", "Cold soup.", "Thanks\nso much!")]
GOOD, BAD = "praise", "complaint"


def read(text, rows=ROWS, problem=PROBLEM):
    found = read_batch(problem, rows, text)
    return {number: (ballot.answer, ballot.confident) for number, ballot in found.ballots.items()}, found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Label for Input 0: [praise] (confident)\nLabel for Input 1: [complaint] (not confident)",
            {0: (GOOD, True), 1: (BAD, False)},
        ),
        (
            "Label for Input 1: complaint (confident)\nLabel for Input 0: praise (confident)",
            {0: (GOOD, True), 1: (BAD, True)},
        ),
        ("**Label for Input 2:** [Praise] (Confident).", {2: (GOOD, True)}),
        ("- Input 2: praise (unconfident)", {2: (GOOD, False)}),
        (
            "0: praise\n1. complaint (NOT confident)\n2) praise (confident)",
            {0: (GOOD, False), 1: (BAD, False), 2: (GOOD, True)},
        ),
        ("Answer for Input 0: [praise]", {0: (GOOD, False)}),
        ("Label for Input 0: [praise], not confident", {0: (GOOD, False)}),
        ("Here are the labels.\nInput 0 is about soup.", {}),
        ("praise\ncomplaint\npraise", {}),  # nobody knows to which input a line belongs
        ("Label for Input 0: it is rather praise (confident)", {}),
        ("Label for Input 0: [praise or complaint] (confident)", {}),
        ("Label for Input 0: Lob (confident)", {}),
        ("", {}),
    ],
)
def test_lines_are_read_by_their_number(text, expected):
    assert read(text)[0] == expected


def test_faults_are_counted_each_by_its_kind():
    ballots, found = read(
        "Label for Input 0: [praise] (confident)\nLabel for Input 0: [praise] (not confident)\n"
        "Label for Input 1: [praise] (confident)\nLabel for Input 1: [complaint] (confident)\n"
        "Label for Input 7: [praise] (confident)"
    )
    assert ballots == {0: (GOOD, False)}  # twice the same, once not sure; of two different answers none
    assert (found.missing, found.malformed, found.repeated, found.out_of_range) == (1, 1, 2, 1)


def test_numbers_are_answers_too():
    problem, rows = (
        load_problem(ProblemConfig(name="numeric")),
        [make_example("2 + 2", ""), make_example("7 - 12", "")],
    )
    assert read("Label for Input 0: [4] (confident)\nLabel for Input 1: [-5] (confident)", rows, problem)[
        0
    ] == {
        0: ("4", True),
        1: ("-5", True),
    }


def test_a_batch_numbers_its_inputs_says_their_number_twice_and_shows_demonstrations_in_the_same_form():
    shown = [make_example("Great!", GOOD), make_example("Late again", BAD)]
    system, question, answer, asked = batch_prompt(PROBLEM, ROWS, shown)
    assert [message["role"] for message in (system, question, answer, asked)] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
    lines = asked["content"].splitlines()
    assert lines[1:4] == [
        "Input 0: Lovely.",
        "Input 1: Cold soup.",
        "Input 2: Thanks so much!",
    ]  # a line each
    assert lines[0].startswith("3 inputs")
    assert "3 inputs" in lines[-1]
    assert "Input 2" in lines[-1]
    assert read_batch(PROBLEM, shown, answer["content"]).ballots == {
        0: Ballot(GOOD, True),
        1: Ballot(BAD, True),
    }
    roles = [message["role"] for message in single_prompt(PROBLEM, ROWS[0], shown)]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
