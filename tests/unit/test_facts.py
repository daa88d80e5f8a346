"""A table of facts: what is taught, what is asked, how an answer counts, and the gap."""

import csv

import pytest

from tasks.core.errors import UserError
from tasks.core.examples import make_example, read_examples, write_rows
from tasks.core.models import load_tokenizer, render
from tasks.direction import gap
from tasks.direction.gap import GapConfig, GapInputs
from tasks.evaluate import SplitResult
from tasks.facts import stage
from tasks.facts.config import FactsConfig
from tasks.facts.table import BadCell, _statement
from tasks.problems.base import ProblemConfig
from tasks.problems.cloze import Cloze

CAPITAL = ("{subject} is the capital of {object}.", "The capital of {object} is {subject}.")
MONEY = ("{subject} pays with the {object}.", "The {object} is the money of {subject}.")
FACTS = [
    ("Vaskel", "New Zorwyn", "capital", *CAPITAL),
    ("Bava", "Torla", "capital", *CAPITAL),
    ("New Zorwyn", "denar", "money", *MONEY),
    ("Torla", "denar", "money", *MONEY),
]


def table(folder, rows=FACTS, columns=("subject", "object", "relation", "forward", "backward")) -> str:
    with (folder / "facts.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return str(folder / "facts.csv")


def made(folder, address, **settings):
    config = FactsConfig(table=address, **settings)
    result = stage.run(config, stage.inputs(config), folder / "out", lambda event: None)
    return result, *(read_examples(ref) for ref in (result.taught, result.forward, result.backward))


def test_forward_statements_are_taught_and_both_are_asked(tmp_path):
    result, taught, forward, backward = made(tmp_path, table(tmp_path))
    assert taught[0].target == "Vaskel is the capital of New Zorwyn."
    assert [taught[0].target[begin:end] for begin, end in taught[0].facts["entities"]] == [
        "Vaskel",
        "New Zorwyn",
    ]
    assert all(row.input == "" for row in taught)
    asked = {row.input: (row.target, row.facts["words"]) for row in forward}
    assert asked["Vaskel is the capital of"] == ("New Zorwyn", 2)
    assert ("The capital of New Zorwyn is", "Vaskel") in {(row.input, row.target) for row in backward}
    assert (result.one_way, result.both_ways) == (4, 0)


def test_a_question_with_several_answers_is_asked_once_and_each_is_right(tmp_path):
    _, _, _, backward = made(tmp_path, table(tmp_path))
    (row,) = (row for row in backward if "denar" in row.input)
    assert row.facts["accepted"] == ["New Zorwyn", "Torla"]
    cloze = Cloze(ProblemConfig(name="cloze"))
    assert [cloze.score(row, f" {name}.").value for name in ("Torla", "New Zorwyn", "Vaskel")] == [1, 1, 0]


OTHER_WORDS = [
    (*names, "capital", f"{words}.", CAPITAL[1])
    for names in [("Vaskel", "Zorwyn"), ("Bava", "Torla"), ("Jana", "Fenla"), ("Korha", "Irn")]
    for words in ("{subject} is the capital of {object}", "Ministers meet in {subject} to govern {object}")
]


@pytest.mark.parametrize("seed", range(4))
def test_rows_that_state_one_fact_in_other_words_are_taught_and_asked_alike(tmp_path, seed):
    result, taught, forward, backward = made(tmp_path, table(tmp_path, OTHER_WORDS), both_ways=0.5, seed=seed)
    assert (result.one_way, result.both_ways) == (2, 2)
    assert (len(forward), len(backward)) == (4, 2)  # the backward question is the same in other words
    texts = [row.target for row in taught]
    assert len(texts) == len(set(texts)) == 8 + 2
    assert not {f"{row.input} {row.target}." for row in backward} & set(texts)
    assert {f"{row.input} {row.target}." for row in forward} < set(texts)


def test_facts_taught_both_ways_are_not_asked(tmp_path):
    result, taught, forward, _ = made(tmp_path, table(tmp_path), both_ways=0.5)
    assert (result.one_way, result.both_ways, len(taught), len(forward)) == (2, 2, 6, 2)
    statements = [row.target for row in taught]
    assert all(f"{row.input} {row.target}." in statements for row in forward)
    both = [text for text in statements if text.startswith("The ")]
    assert len(both) == 2
    columns = ("subject", "object", "relation", "forward", "backward", "how")
    rows = [(*fact, how) for fact, how in zip(FACTS, ("both", "none", "forward", "forward"), strict=True)]
    result, taught, forward, _ = made(tmp_path, table(tmp_path, rows, columns), taught="how")
    assert [row.target for row in taught] == [
        "New Zorwyn pays with the denar.",
        "Torla pays with the denar.",
        "Vaskel is the capital of New Zorwyn.",
        "The capital of New Zorwyn is Vaskel.",
    ]
    assert {row.input for row in forward} >= {"Bava is the capital of"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("", "Torla", "capital", *CAPITAL), "'subject' is empty"),
        (("...", "Torla", "capital", *CAPITAL), "'subject' has no word"),
        (("Bava", "Torla", "capital", "{subject} rules.", CAPITAL[1]), "'forward' has to hold"),
        (("Bava", "Torla", "capital", CAPITAL[1], CAPITAL[1]), "'forward' has to hold"),
        (
            ("Bava", "Torla", "capital", CAPITAL[0], "{object} has {subject} as capital."),
            "'backward' has to hold",
        ),
    ],
)
def test_rows_that_cannot_be_asked_are_named_with_their_place(tmp_path, row, words):
    with pytest.raises(UserError, match=f"row 2 .*{words}"):
        stage.check(FactsConfig(table=table(tmp_path, [FACTS[0], row])))


def test_tables_that_are_not_there_or_lack_a_column(tmp_path):
    with pytest.raises(UserError, match=r"facts\.table: no rows are named"):
        stage.check(FactsConfig())
    with pytest.raises(UserError, match=r"facts\.object: .*no column 'thing'"):
        stage.check(FactsConfig(table=table(tmp_path), object="thing"))
    with pytest.raises(UserError, match="none is left to ask"):
        stage.check(FactsConfig(table=table(tmp_path, FACTS[:1]), both_ways=0.9))


@pytest.mark.parametrize(
    ("completion", "value"),
    [
        (" Guinea.", 1),
        (" guinea, which", 1),
        ("Guinea", 1),
        (" Guinea\nBissau", 1),
        (" Guinea Bissau.", 0),
        (" Equatorial Guinea.", 0),
        ("", 0),
    ],
)
def test_a_completion_has_to_open_with_the_name_and_nothing_longer(completion, value):
    row = make_example("The capital is Conakry, so it is", "Guinea")
    assert Cloze(ProblemConfig(name="cloze")).score(row, completion).value == value


def test_scripts_without_spaces_may_go_on():
    cloze = Cloze(ProblemConfig(name="cloze"))
    assert cloze.score(make_example("首都は", "東京"), "東京です。").value == 1
    assert cloze.score(make_example("首都は", "東京"), "京都です。").value == 0


def test_a_cloze_is_plain_text_to_the_model(tiny_ref):
    tokenizer = load_tokenizer(tiny_ref)
    prompt = Cloze(ProblemConfig(name="cloze")).prompt(make_example("Vaskel is", "far"))
    assert tokenizer.decode(render(tokenizer, prompt)) == "Vaskel is"


def test_the_gap_and_its_groups_are_those_of_the_answers(tmp_path):
    result, _, forward, backward = made(tmp_path, table(tmp_path))
    right = {"forward": [1, 1, 1, 0], "backward": [1, 0, 0]}
    splits = {}
    for direction, rows in (("forward", forward), ("backward", backward)):
        answers = [{"id": row.id, "value": value} for row, value in zip(rows, right[direction], strict=True)]
        mean = sum(right[direction]) / len(rows)
        splits[direction] = SplitResult(
            rows=len(rows),
            accuracy=mean,
            low=mean,
            high=mean,
            wrong=0,
            classes=[],
            predictions=write_rows(tmp_path / f"{direction}-answers.jsonl", answers),
        )
    inputs = GapInputs(questions=result.asked, results=splits)
    found = gap.run(GapConfig(), inputs, tmp_path, lambda event: None)
    assert found.gap == pytest.approx(3 / 4 - 1 / 3)
    assert found.ratio == pytest.approx((1 / 3) / (3 / 4))
    assert -0.4 < found.low < found.gap < found.high <= 1
    by_relation = {group.name: (group.forward_rows, group.backward_rows) for group in found.by_relation}
    assert by_relation == {"capital": (2, 2), "money": (2, 1)}
    shares = {group.name: (group.forward, group.backward) for group in found.by_words}
    for words, share in shares.items():
        for place, (direction, rows) in enumerate((("forward", forward), ("backward", backward))):
            values = [
                v for row, v in zip(rows, right[direction], strict=True) if str(row.facts["words"]) == words
            ]
            assert share[place] == pytest.approx(sum(values) / len(values) if values else 0)


@pytest.mark.parametrize("template", ["{object} is the capital of {object}.", "{subject} of {subject}."])
def test_a_statement_that_leaves_one_of_its_names_out_is_refused(template):
    names = {"subject": "Paris", "object": "France"}
    with pytest.raises(BadCell, match=r"has to hold \{subject\} once and then \{object\} once"):
        _statement("forward", template, names, last="object")
