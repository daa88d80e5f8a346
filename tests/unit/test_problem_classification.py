"""Classification: what counts as naming a label, and how a teacher's list is read."""

import pytest

from tasks.core.errors import UserError
from tasks.core.examples import make_example
from tasks.problems.base import ProblemConfig
from tasks.problems.classification import Classification, chosen

WEATHER = make_example("Will it rain?", "weather")
PROBLEM = Classification(ProblemConfig(labels=("weather", "weather forecast", "music", "not spam", "spam")))


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("weather", "weather"),
        (" Weather.\n", "weather"),
        ('"WEATHER"', "weather"),
        ("**weather**", "weather"),
        ("weather\nmusic", "weather"),
        ("weather forecast", "weather forecast"),
        ("Weather Forecast!", "weather forecast"),
        ("weather, of course", "weather"),
        ("weather. weather.", "weather"),
        ("spam", "spam"),
        ("not spam", "not spam"),
        ("not weather", None),
        ("it is not music", None),
        ("weather or music", None),
        ("weather, not music", None),
        ("weatherman", None),
        ("unweather", None),
        ("the label is unclear", None),
        ("", None),
        ("\n\n", None),
        ("...", None),
    ],
)
def test_a_completion_names_the_label_it_opens_with_unless_it_is_ambiguous(completion, answer):
    score = PROBLEM.score(WEATHER, completion)
    assert score.answer == answer
    assert score.value == float(answer == "weather")


def test_labels_of_signs_are_told_apart():
    labels = ["C", "C++", "C#", "+", "-", ":)"]
    assert [chosen(label, labels) for label in labels] == labels


def test_every_label_is_its_own_answer_whatever_the_case_or_quotes():
    labels = ["AddToPlaylist", "rate_book", "Straße", "天気", "5 stars", "(other)"]
    for label in labels:
        for said in (label, label.upper(), f"'{label}'", f"{label}."):
            assert chosen(said, labels) == label, said


def test_without_known_labels_only_the_target_itself_is_right():
    problem = Classification(ProblemConfig())
    assert problem.score(WEATHER, "Weather.").value == 1.0
    assert problem.score(WEATHER, "weather today").value == 0.0
    assert problem.score(WEATHER, "music").answer is None


def test_labels_that_differ_only_in_case_are_refused_by_name():
    with pytest.raises(UserError, match=r"'Yes' and 'yes\.'"):
        Classification(ProblemConfig(labels=("Yes", "no", "yes.")))


@pytest.mark.parametrize(
    ("text", "label", "fault"),
    [
        ("Hi", "weather", None),
        ("  ", "weather", "the input is empty"),
        ("Hi", " ", "the label is empty"),
        ("Hi", "sports", "'sports' is not one of"),
    ],
)
def test_a_row_with_an_empty_or_unknown_label_has_a_fault(text, label, fault):
    found = PROBLEM.fault(make_example(text, label))
    assert found is None if fault is None else fault in found


def test_the_instruction_names_up_to_twenty_labels_and_the_users_own_comes_first():
    assert PROBLEM.prompt(WEATHER)[0]["content"].endswith("weather, weather forecast, music, not spam, spam.")
    many = Classification(ProblemConfig(labels=tuple(f"label {n}" for n in range(21))))
    assert "label 3" not in many.prompt(WEATHER)[0]["content"]
    own = Classification(ProblemConfig(labels=("weather", "music"), instruction="Intent?"))
    assert own.prompt(WEATHER) == [
        {"role": "system", "content": "Intent?"},
        {"role": "user", "content": "Will it rain?"},
    ]


def test_the_longest_label_fits_into_the_answer():
    assert PROBLEM.max_new_tokens >= len("weather forecast")
    assert PROBLEM.max_new_tokens <= 2 * len("weather forecast")


@pytest.mark.parametrize(
    ("answer", "texts"),
    [
        ("1. Is it windy?\n2. How hot is Oslo?", ["Is it windy?", "How hot is Oslo?"]),
        (
            "Sure, here are two texts:\n\n1) “Is it windy?”\n2) 'How hot is Oslo?'\n\nEnjoy!",
            ["Is it windy?", "How hot is Oslo?"],
        ),
        (
            "- Is it windy?\n* **How hot is Oslo?**\n• 20 degrees in May?",
            ["Is it windy?", "How hot is Oslo?", "20 degrees in May?"],
        ),
        ("Is it windy?\nHow hot is Oslo?", ["Is it windy?", "How hot is Oslo?"]),
        ('1. He said "rain" and "snow"', ['He said "rain" and "snow"']),
        ('1. "Rain" he said', ['"Rain" he said']),
        ("1. ...\n2.\n3. --", []),
        ("I am sorry, I cannot help with that.", []),
        ("The sun rises over Miami.\n\nThe night is golden.", []),
        ("1. Why has my refund of 40 euros still not been paid?", []),
        ("", []),
    ],
)
def test_only_lines_of_a_list_become_rows_and_all_have_the_parents_label(answer, texts):
    drafts = PROBLEM.read(answer, WEATHER)
    assert [draft.input for draft in drafts] == texts
    assert {draft.target for draft in drafts} <= {"weather"}


def test_what_is_shown_to_the_teacher_can_be_read_back():
    example = make_example("Will it\nrain?", "weather")
    assert [draft.input for draft in PROBLEM.read(PROBLEM.show(example), example)] == ["Will it rain?"]


@pytest.mark.parametrize("mates", [0, 1, 2, 5])
@pytest.mark.parametrize("avoid", [[], ["Is it foggy?"]])
def test_a_request_ends_with_the_parent_and_contains_mates_label_and_what_to_avoid(mates, avoid):
    shown = [make_example(f"Weather in town {n}?", "weather") for n in range(mates)]
    messages = PROBLEM.request(WEATHER, shown, 4, avoid)
    roles = [message["role"] for message in messages]
    assert roles == ["system", *["user", "assistant"] * ((len(roles) - 2) // 2), "user"]
    last, everything = messages[-1]["content"], "\n".join(message["content"] for message in messages)
    assert "Write 4 texts" in last
    assert "Will it rain?" in last
    assert '"weather"' in last
    for text in [*avoid, *(example.input for example in shown)]:
        assert everything.count(text) == 1
    assert ("parcel" in everything) == (mates < 2), (
        "the label's own texts, where there are enough, replace ours"
    )
