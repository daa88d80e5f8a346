"""What a teacher writes, read and checked: every strategy on answers written by hand."""

import random

import pytest

from tasks.core.examples import make_example
from tasks.core.generators.base import Completion
from tasks.instruct.backtranslation import backtranslate, read_mark
from tasks.instruct.checks import Checks
from tasks.instruct.config import WritingConfig
from tasks.instruct.evolving import IN_DEPTH, evolution_failed, evolve, paraphrase, read_instruction
from tasks.instruct.request import Draft
from tasks.instruct.self_instruct import SHOWN, propose, read_tasks

SEEDS = [make_example(f"Do thing number {number} well.", "Done.") for number in range(10)]
WRITTEN = [make_example(f"Written task {number}.", "Done.") for number in range(5)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            " Name a bird.\n10. Name a fish.\n11. Name a tree.",
            ["Name a bird.", "Name a fish.", "Name a tree."],
        ),
        ("Here are four more:\n1. Name a bird.\n2) Name a fish.", ["Name a bird.", "Name a fish."]),
        ("Task 9: Name a bird.\n\nThat is all.", ["Name a bird."]),
        ("1.\n2. Name a fish.", ["Name a fish."]),
        ("1. A\n2. B\n3. C\n4. D\n5. E", ["A", "B", "C", "D"]),  # no more than were asked for
        ("", []),
    ],
)
def test_tasks_are_read_line_by_line(text, expected):
    assert read_tasks(text, 4) == expected


def test_eight_tasks_are_shown_of_which_the_teacher_wrote_a_share():
    request = propose(SEEDS, WRITTEN, 0.25, 4, random.Random(0))
    assert len(request.parents) == SHOWN
    assert len({*request.parents} & {row.id for row in WRITTEN}) == 2
    shown = [row.input for row in [*SEEDS, *WRITTEN] if row.id in request.parents]
    assert all(text in request.prompt[0]["content"] for text in shown)
    first = propose(SEEDS, [], 0.25, 4, random.Random(0))
    assert {*first.parents} <= {row.id for row in SEEDS}
    assert len(propose(SEEDS[:3], [], 0.25, 4, random.Random(0)).parents) == 3  # fewer seeds than are shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Name three birds.", "Name three birds."),
        ("**Rewritten Instruction:** Name three birds.", "Name three birds."),
        ("Instruction: “Name three birds.”", "Name three birds."),
        ('"Name three birds."', "Name three birds."),
        ('Say "yes" and "no"', 'Say "yes" and "no"'),
        ("", ""),
    ],
)
def test_a_rewritten_instruction_is_read_without_its_heading(text, expected):
    assert read_instruction(text) == expected


def test_every_operation_says_what_it_wants_and_of_what():
    prompts = [evolve(SEEDS[0], name).prompt[0]["content"] for name in (*IN_DEPTH, "breadth")]
    prompts.append(paraphrase(SEEDS[0]).prompt[0]["content"])
    assert len(set(prompts)) == 6
    assert all(SEEDS[0].input in prompt for prompt in prompts)
    assert evolve(SEEDS[0], "deepen").operation == "evol/deepen"


@pytest.mark.parametrize(
    ("before", "after", "failed"),
    [
        ("Name a bird.", "name a bird", True),
        ("Name a bird.", "Name a bird of prey.", False),
        ("Name a bird.", "The rewritten prompt: name two birds.", True),
        ("Name a bird.", "#Rewritten Prompt# Name two birds.", True),
        ("Name a bird.", "Name a bird and explain the given instruction.", True),
    ],
)
def test_evolutions_that_failed(before, after, failed):
    assert bool(evolution_failed(before, after)) is failed


@pytest.mark.parametrize(
    ("text", "mark"),
    [("5", 5), ("Mark: 4/5. Good.", 4), ("I give it 3 out of 5", 3), ("10", None), ("no mark", None)],
)
def test_marks(text, mark):
    assert read_mark(text) == mark


def draft(text, kind="evol", parent=SEEDS[0]):
    request = {"evol": lambda: evolve(parent, "deepen"), "paraphrase": lambda: paraphrase(parent)}
    own = propose(SEEDS, [], 0.0, 4, random.Random(0))
    return Draft(instruction=text, request=request[kind]() if kind in request else own)


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("Name birds", "self_instruct", "length"),
        (" ".join(["word"] * 151), "self_instruct", "length"),
        ("写一首关于秋天的诗。", "self_instruct", None),
        ("เขียนบทกวีเกี่ยวกับฤดูใบไม้ร่วง", "self_instruct", None),
        ("写诗。", "self_instruct", "length"),
        ("写" * 302, "self_instruct", "length"),
        ("Compose a limerick about rain.", "self_instruct", None),
        ("do thing number 3 well", "self_instruct", "duplicate"),
        ("Do thing number 3 very well.", "self_instruct", "duplicate"),  # 10/11 above 0.7
        ("Do thing number 3 very well.", "evol", None),  # but below 0.95: it is meant to resemble
        ("Do thing number 0 well!", "evol", "failed evolution"),
        ("Do thing number 4 well!", "paraphrase", "duplicate"),
        ("What is the best way to boil an egg for long?", "evol", "contamination"),
    ],
)
def test_instructions_that_are_not_kept(text, kind, reason):
    checks = Checks(WritingConfig(), SEEDS, [make_example("What is the best way to boil an egg?", "")])
    assert checks.instruction(draft(text, kind), SEEDS[0]) == reason


def test_an_instruction_in_another_language_is_not_kept_where_languages_are_named():
    german = draft("Schreibe ein Gedicht über den Regen im November.", "self_instruct")
    assert Checks(WritingConfig(), SEEDS, []).instruction(german, None) is None
    assert Checks(WritingConfig(languages=("en",)), SEEDS, []).instruction(german, None) == "language"
    assert Checks(WritingConfig(languages=("en", "de")), SEEDS, []).instruction(german, None) is None


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ({"text": "Boil it for eight minutes."}, None),
        ({"text": "Boil it for"} | {"finish": "length"}, "cut"),
        ({"text": "", "finish": "error", "error": "HTTP 500"}, "no answer"),
        ({"text": "Sorry, that goes beyond me."}, "refusal"),
        ({"text": "Sorry to hear that. " + "Words that help. " * 30}, None),  # long enough to be an answer
        ({"text": "I can’t assist with that."}, "refusal"),
        ({"text": "It is the ... of !"}, "empty"),
        ({"text": ""}, "empty"),
        ({"text": "boil an egg, please"}, "echo"),
    ],
)
def test_responses_that_are_not_kept(completion, reason):
    checks = Checks(WritingConfig(), SEEDS, [])
    assert checks.response(draft("Boil an egg, please."), Completion(**completion)) == reason


def test_a_text_is_the_answer_to_the_instruction_that_is_asked_for():
    text = make_example("Water boils at 100 degrees at sea level.", "")
    request = backtranslate(text)
    assert (request.response, request.parents) == (text.input, [text.id])
    assert text.input in request.prompt[0]["content"]
