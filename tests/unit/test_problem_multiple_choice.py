"""Multiple choice: letters and texts of choices, and nothing that only looks like them."""

import pytest

from tasks.core.examples import make_example
from tasks.problems.base import ProblemConfig
from tasks.problems.multiple_choice import MultipleChoice, read_choice

PROBLEM = MultipleChoice(ProblemConfig(name="multiple_choice"))
CITIES = ["Paris", "London", "New York", "York"]


@pytest.mark.parametrize(
    ("completion", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("b) London", "B"),
        ("**B**", "B"),
        ("B. London is right", "B"),
        ("B because it is large", "B"),
        ("A", "A"),
        ("A is right", "A"),
        ("The answer is B", "B"),
        ("The answer is (b).", "B"),
        ("Answer: B", "B"),
        ("Option B", "B"),
        ("Let us think.\nIt is large, so the answer is B.", "B"),
        ("London", "B"),
        ("london.", "B"),
        ("The answer is London.", "B"),
        ("New York", "C"),
        ("York", "D"),
        ("The answer is B. The answer is B.", "B"),
        ("B or C", None),
        ("B and C", None),
        ("A, B", None),
        ("The answer is B. No, the answer is C.", None),
        ("B. Paris", None),
        ("Paris or London", None),
        ("not B", None),
        ("A good question", None),
        ("I think so", None),
        ("E", None),
        ("Berlin", None),
        ("", None),
    ],
)
def test_an_answer_names_one_choice_or_none(completion, letter):
    index = read_choice(completion, CITIES)
    assert (None if index is None else "ABCD"[index]) == letter
    score = PROBLEM.score(make_example("Which city?", "B", CITIES), completion)
    assert (score.value, score.answer) == (float(letter == "B"), letter)


@pytest.mark.parametrize("target", ["B", "b", "London", "london"])
def test_a_target_is_a_letter_or_a_text_and_is_trained_as_a_letter(target):
    example = make_example("Which city?", target, CITIES)
    assert PROBLEM.fault(example) is None
    assert PROBLEM.target(example) == "B"
    assert PROBLEM.question(example) == "Which city?\nA. Paris\nB. London\nC. New York\nD. York"


@pytest.mark.parametrize(
    ("target", "choices", "fault"),
    [
        ("A", [], "0 choices"),
        ("A", ["one"], "1 choices"),
        ("A", [str(n) for n in range(27)], "27 choices"),
        ("A", ["one", " "], "a choice is empty"),
        ("A", ["one", "One."], "two choices are the same"),
        ("C", ["one", "two"], "'C' is neither"),
        ("three", ["one", "two"], "'three' is neither"),
        ("A", ["B", "A"], "text of one choice and the letter of another"),
    ],
)
def test_choices_and_targets_that_do_not_fit_are_faults(target, choices, fault):
    assert fault in (PROBLEM.fault(make_example("Which?", target, choices)) or "")


def test_twenty_six_choices_are_lettered_a_to_z():
    example = make_example("Which?", "Z", [f"choice {n}" for n in range(26)])
    assert PROBLEM.fault(example) is None
    assert PROBLEM.score(example, "Z").value == 1.0
    assert PROBLEM.score(example, "choice 25").value == 1.0


@pytest.mark.parametrize("target", ["B", "London"])
def test_what_is_shown_can_be_read_back_and_keeps_the_targets_form(target):
    example = make_example("Which city?", target, CITIES)
    (draft,) = PROBLEM.read(PROBLEM.show(example), example)
    assert (draft.input, draft.target, draft.choices) == ("Which city?", target, CITIES)


@pytest.mark.parametrize(
    "row",
    [
        "Question: Which?\nChoices:\nA. one\nB. two\nC. three\nD. four",
        "Question: Which?\nAnswer: A",
        "Question: Which?\nChoices:\nA. one\nB. two\nAnswer: A",
        "Question: Which?\nChoices:\nA. one\nB. two\nC. three\nD. four\nAnswer: E",
        "Question: Which?\nChoices:\nA. one\nB. two\nC. three\nD. four\nAnswer: A or B",
        "Question: Which?\nChoices:\nA. one\nC. two\nB. three\nD. four\nAnswer: A",
        "Question: Which?\nChoices:\none\ntwo\nthree\nfour\nAnswer: A",
        "Question: Which?\nChoices:\nA. one\nB. two\nor so\nC. three\nD. four\nAnswer: A",
    ],
)
def test_a_row_with_missing_or_misplaced_parts_is_left_out(row):
    example = make_example("Which city?", "B", CITIES)
    whole = "Question: Which one?\nChoices:\nA. one\nB. two\nC. three\nD. four\nAnswer: D"
    drafts = PROBLEM.read(f"{row}\n\n{whole}\n\n{row}", example)
    assert [(draft.input, draft.target) for draft in drafts] == [("Which one?", "D")]
