"""The model card: every figure that decided, every digest, and nothing from outside that could act in a page."""

import pytest

from tasks.core.digests import file_digest
from tasks.core.references import DatasetRef, ModelRef
from tasks.promotion import model_card
from tasks.promotion.decision import Decision, PromotionConfig, decide
from tasks.promotion.markdown import escaped
from tasks.promotion.model_card import Ancestor, CardConfig, CardInputs
from tasks.retrain.versions import DataVersion
from tests.unit.test_promotion_decision import answers

HOSTILE = "<script>alert(1)</script> [click](javascript:alert(2)) | `x` ![](http://evil/p.png)\n# big"


def rows(name: str, count: int) -> DatasetRef:
    return DatasetRef(uri=f"/store/{name}.jsonl", digest=name * 8, rows=count)


def card_inputs(**changes) -> CardInputs:
    base = ModelRef(uri="/store/base", digest="basedigest", facts={"name": "smollm2-135m"})
    given = {
        "name": "messages",
        "number": "3",
        "method": "rest",
        "model": ModelRef(uri="/store/model", digest="modeldigest", base=base),
        "decision": decide(answers(*[1] * 8), answers(*[0] * 6, 1, 1), PromotionConfig()),
        "data": DataVersion(rows=rows("rows", 66), seen=rows("seen", 66), train=rows("train", 66)),
        "new_rows": 64,
        "held_out": rows("test", 8),
        "problem": "classification",
        "metrics": {"eval/accuracy": 0.5},
        "lineage": [Ancestor(number="2", digest="olderdigest", rows=2, accuracy=0.25)],
        "settings": {"training.epochs": "3"},
    }
    return CardInputs(**(given | changes))


def cells(text: str) -> list[list[str]]:
    """The cells of all table rows, as they are read."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    plain = [line.replace("\\", "").replace("&#47;", "/") for line in lines]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in plain]


def test_the_card_names_decision_figures_data_and_lineage():
    text = model_card.model_card(card_inputs())
    assert text.startswith("# messages, version 3\n\nPromoted. better: ")
    table = cells(text)
    assert ["champion", "25.00%", ""] in table
    (this,) = [row for row in table if row[0] == "this model"]
    assert this[1] == "100.00%"
    assert "+75.00 points" in this[2]
    assert "p = 0.03125 (mcnemar), 6 fixed, 0 broken" in this[2]
    assert ["training rows (of them new: 64)", "66", "rows" * 8, "/store/rows.jsonl"] in table
    assert ["held-out rows", "8", "test" * 8, "/store/test.jsonl"] in table
    assert ["base", "smollm2-135m"] in table
    assert ["2", "25.00%", "2", "olderdigest"] in table
    assert ["training.epochs", "3"] in table
    assert "rests on 8 rows" in text


def test_text_from_outside_is_read_and_does_nothing():
    base = ModelRef(uri="/b", digest="b", facts={"name": HOSTILE})
    text = model_card.model_card(
        card_inputs(
            name=HOSTILE,
            problem=HOSTILE,
            model=ModelRef(uri=HOSTILE, digest="m", base=base),
            settings={"data.instruction": HOSTILE},
        )
    )
    assert "<" not in text
    assert "](" not in text
    assert "![" not in text
    assert "http://" not in text
    assert [line for line in text.splitlines() if line.startswith("# ")] == [text.splitlines()[0]]
    hostile = [line for line in text.splitlines() if line.startswith("|") and "alert" in line]
    widths = {len(line.replace("\\|", "").split("|")) for line in hostile}
    assert widths == {4}  # two cells a row: no bar of the text makes a third


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a_b*c", "a\\_b\\*c"),
        ("<b>&", "&lt;b&gt;&amp;"),
        ("one\n\n two", "one two"),
        ("s3://x", "s3:&#47;&#47;x"),
    ],
)
def test_marks_are_escaped(text, shown):
    assert escaped(text) == shown


def test_a_card_without_a_comparison_says_so_and_empty_parts_are_none():
    alone = Decision(
        promoted=True, reason="no champion", opponent="none", accuracy=0.5, level=0.05, minimum_gain=0.0
    )
    text = model_card.model_card(card_inputs(decision=alone, lineage=[], settings={}, metrics={}))
    assert "without a comparison" in text
    assert text.count("None.") == 3
    full = card_inputs(model=ModelRef(uri="/m", digest="d"))
    assert ["kind", "full weights"] in cells(model_card.model_card(full))


def test_the_stage_writes_one_file_the_same_every_time_and_cuts_long_settings(tmp_path):
    inputs = card_inputs(settings={"data.instruction": "word " * 100})
    found = [
        model_card.run(CardConfig(longest_text=20), inputs, _made(tmp_path / name), lambda event: None).card
        for name in ("one", "two")
    ]
    assert found[0].digest == found[1].digest == file_digest(tmp_path / "one" / "model_card.md")
    (row,) = [
        row for row in cells((tmp_path / "one" / "model_card.md").read_text()) if "instruction" in row[0]
    ]
    assert row[1] == "word word word word…"


def _made(folder):
    folder.mkdir()
    return folder
