"""The page on both directions, and whether anything else got worse."""

import math

import pytest

from tasks.core.errors import UserError
from tasks.core.examples import make_example, read_records, write_rows
from tasks.core.generators.load import EngineConfig
from tasks.core.models import load_model, load_tokenizer
from tasks.direction import general
from tasks.direction.gap import DirectionGap, Group
from tasks.direction.general import LossInputs, LossResult
from tasks.direction.measured import Measured
from tasks.direction.report import DirectionReportConfig, DirectionReportInputs, cautions, headline, run
from tasks.evaluate import SplitResult

MARKUP = "<img src=x onerror=alert(1)>"


def split(folder, name, values) -> SplitResult:
    rows = [
        {"id": str(n), "input": f"{MARKUP} {n} is", "target": "x", "completion": "\u202ey", "value": value}
        for n, value in enumerate(values)
    ]
    mean = sum(values) / len(values)
    facts = {"rows": len(values), "accuracy": mean, "low": mean, "high": mean, "wrong": 0, "classes": []}
    return SplitResult(**facts, predictions=write_rows(folder / f"{name}.jsonl", rows))


def measured(folder, name, forward, backward, steps=0) -> Measured:
    sides = [split(folder, f"{name}-{side}", values) for side, values in (("f", forward), ("b", backward))]
    difference = sides[0].accuracy - sides[1].accuracy
    group = Group(name=MARKUP, forward_rows=4, forward=0.5, backward_rows=0, backward=0.0)
    gap = DirectionGap(
        forward=sides[0],
        backward=sides[1],
        gap=difference,
        low=difference - 0.1,
        high=difference + 0.1,
        by_relation=[group],
        by_words=[],
    )
    return Measured(name=name, gap=gap, steps=steps)


def test_the_headline_says_the_gap_and_what_it_is_without_copies(tmp_path):
    models = [
        measured(tmp_path, "before", [0, 0, 0, 0], [0, 0, 0, 0]),
        measured(tmp_path, "data-matched", [1, 1, 1, 1], [0, 0, 0, 1]),
        measured(tmp_path, "reverse-trained", [1, 1, 1, 1], [1, 1, 1, 0]),
    ]
    assert headline(models).replace("\u00a0", " ") == (
        "The direction gap is +25.0 points (+15.0 to +35.0): 100.0 % right in the direction that was taught, 75.0 % in "
        "the other; data-matched: +75.0 points (25.0 % in the other direction)."
    )
    assert headline(models[:1]).replace("\u00a0", " ").endswith("taught, 0.0 % in the other.")
    assert cautions(DirectionReportInputs(measured=models)) == []


def test_cautions_name_what_was_not_learned_and_what_was_known(tmp_path):
    models = [
        measured(tmp_path, "before", [0, 0], [1, 0]),
        measured(tmp_path, "reverse-trained", [0, 0], [0, 0]),
    ]
    worse = general.LossChange(before=2.0, after=3.0, low=0.5, high=1.5, rows=9)
    found = cautions(DirectionReportInputs(measured=models, general=worse))
    assert ["Less than half" in found[0], "were known" in found[1], "2.000 to 3.000" in found[2]] == [
        True
    ] * 3
    assert len(found) == 3


def test_the_page_escapes_and_its_tables_are_files(tmp_path):
    inputs = DirectionReportInputs(measured=[measured(tmp_path, MARKUP, [1, 0], [0, 0])])
    result = run(DirectionReportConfig(most_answers=1), inputs, tmp_path, lambda event: None)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<img" not in page
    assert page.count("<article") == 1
    assert "1 are shown" in page
    assert (tmp_path / "relations.csv").read_text().splitlines()[1].endswith("4,50.0\u00a0%,0,–")
    assert [row["model"] for row in result.models] == [MARKUP]


def test_the_loss_of_general_texts_is_that_of_the_words_after_the_first(tiny_ref, tmp_path):
    import torch

    rows = [make_example("", "What will it be?"), make_example("", "Paris"), make_example("Who?", "Anna.")]
    inputs = LossInputs(model=tiny_ref, rows=write_rows(tmp_path / "rows.jsonl", rows))
    result = general.run(EngineConfig(), inputs, tmp_path, lambda event: None)
    losses = [row["loss"] for row in read_records(result.rows)]
    assert len(losses) == 2  # a single word says nothing
    tokenizer, model = load_tokenizer(tiny_ref), load_model(tiny_ref)
    first = tokenizer("What")["input_ids"]
    rest = [*tokenizer(" will it be?")["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        scores = model(input_ids=torch.tensor([first + rest])).logits[0].log_softmax(-1)
    expected = -sum(float(scores[len(first) - 1 + n, token]) for n, token in enumerate(rest)) / len(rest)
    assert losses[0] == pytest.approx(expected, rel=1e-4)
    short = LossInputs(model=tiny_ref, rows=write_rows(tmp_path / "short.jsonl", rows[1:2]))
    with pytest.raises(UserError, match="more than one word"):
        general.run(EngineConfig(), short, tmp_path, lambda event: None)


def test_a_rise_of_the_loss_counts_when_it_is_more_than_chance(tmp_path):
    def losses(name, values):
        rows = write_rows(tmp_path / name, [{"loss": value} for value in values])
        return LossResult(loss=sum(values) / len(values), rows=rows)

    before = losses("a", [1.0, 2.0, 3.0, 4.0])
    settings = {"confidence": 0.95, "resamples": 500, "seed": 0}
    risen = general.change(before, losses("b", [1.1, 2.1, 3.1, 4.1]), **settings)
    assert risen.worse
    assert math.isclose(risen.after - risen.before, 0.1)
    assert not general.change(before, losses("c", [1.4, 1.7, 3.2, 3.8]), **settings).worse
