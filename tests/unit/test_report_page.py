"""The page: nothing in data, models or settings becomes markup; every text comes out as it went in."""

import re
from pathlib import Path

import pytest

from tasks.core.examples import Example, write_rows
from tasks.core.references import ModelRef
from tasks.evaluate import Prediction
from tasks.filter.rules import Rejection
from tasks.report import page
from tasks.report.compare import Comparison
from tasks.report.drawing import DARK, LIGHT
from tasks.report.records import IterationRecord
from tasks.report.stage import ReportConfig, ReportInputs, ReportResult, run
from tasks.report.wording import cut, figure, p_value, percent, points, span, visible
from tests.unit.report_html import Parsed, parse
from tests.unit.report_loop import baseline, exchange, small_loop, split

EVIL = (
    "<script>alert(1)</script>",
    "</style></title></bdi><img src=x onerror=alert(1)>",
    "javascript:alert(1)",
    "\"' onmouseover='alert(1)\" x=`y`",
    "\u202eright to left\u2066 \u2069\u2069 stray",
    "{{ 7 * 7 }}{% include '/etc/passwd' %}",
    "&lt;b&gt; &amp; <!-- <![CDATA[ ]]>",
    "$\\frac{1}{$ _under\n\n  two  lines",
)
WHOLE = " ".join(EVIL)


def evil(label: str) -> str:
    """One text with every attack, told apart by a label."""
    return f"{label}: {WHOLE}"


def evil_prediction(number: int, name: str, value: float) -> Prediction:
    return Prediction(
        id=evil(f"test id {number}"),
        input=evil(f"test input {number}"),
        target=evil("test target"),
        prompt=evil(f"prompt {name}"),
        completion=evil(f"completion {name}"),
        answer=evil(f"answer {name}"),
        value=value,
        finish=evil(f"finish {name}"),
    )


def evil_loop(folder: Path) -> list[IterationRecord]:
    seed = Example(
        id=evil("seed id"), input=evil("seed input"), target=evil("seed target"), choices=[evil("choice")]
    )
    kept = Example(
        id=evil("kept id"),
        input=evil("kept input"),
        target="t",
        origin="synthetic",
        parent=seed.id,
        root=seed.id,
        step=1,
    )
    refused = kept.model_copy(update={"id": evil("refused id"), "input": evil("refused input")})
    rejection = Rejection(example=refused, reason="label", detail=evil("detail"), against=evil("against"))
    asked = exchange(seed, 0, text=evil("teacher"), finish="error", error=evil("error")) | {
        "prompt": [{"role": evil("role"), "content": evil("message")}]
    }
    student = Prediction(
        id=seed.id,
        input="",
        target="",
        prompt="",
        completion=evil("student"),
        answer=None,
        value=0.0,
        finish="stop",
    )
    records = []
    for number, rows in ((1, [seed]), (2, [seed, kept])):
        answers = [evil_prediction(row, f"of iteration {number}", float(number > 1)) for row in range(3)]
        record = IterationRecord(
            number=number,
            metrics={"train/steps": 5.0},
            model=ModelRef(uri=evil("model uri"), digest="0"),
            train=write_rows(folder / f"train-{number}.jsonl", rows),
            splits={"test": split(folder / f"test-{number}.jsonl", answers)}
            | {"train": split(folder / f"student-{number}.jsonl", [student])},
        )
        records.append(record)
    augmented = {
        "failures": write_rows(folder / "failures.jsonl", [seed]),
        "kept": write_rows(folder / "kept.jsonl", [kept]),
        "rejected": [write_rows(folder / "rejected.jsonl", [rejection])],
        "exchanges": [write_rows(folder / "exchanges.jsonl", [asked])],
        "counts": {"kept": 1, evil("reason"): 1},
    }
    return [records[0].model_copy(update=augmented), records[1]]


def write(folder: Path, inputs: ReportInputs, config: ReportConfig) -> tuple[ReportResult, Parsed]:
    folder.mkdir(parents=True, exist_ok=True)
    result = run(config, inputs, folder, lambda event: None)
    return result, parse(Path(result.page).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def evil_page(tmp_path_factory: pytest.TempPathFactory) -> Parsed:
    folder = tmp_path_factory.mktemp("evil")
    loop = evil_loop(folder)
    compared = Comparison(
        name=evil("baseline"),
        steps=1,
        rows=1,
        metrics={evil("metric"): 0.5},
        predictions=loop[0].splits["test"].predictions,
    )
    inputs = ReportInputs(
        iterations=loop,
        comparisons=[compared],
        stopped=evil("stopped"),
        settings={evil("setting"): evil("value")},
    )
    config = ReportConfig(title=f"title {EVIL[0]} {EVIL[1]}", method=f"method {EVIL[3]}")
    return write(folder / "out", inputs, config)[1]


def test_no_text_becomes_an_element_that_acts(evil_page: Parsed) -> None:
    tags = {tag for tag, _ in evil_page.elements}
    assert not tags & {"script", "iframe", "object", "embed", "form", "link", "base", "svg", "math", "b"}
    assert sum(tag == "style" for tag, _ in evil_page.elements) == 1
    images = [attributes["src"] for tag, attributes in evil_page.elements if tag == "img"]
    assert len(images) == 4
    assert all(source and source.startswith("data:image/png;base64,") for source in images)


def test_no_attribute_acts_or_leaves_the_page(evil_page: Parsed) -> None:
    for _, attributes in evil_page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name != "style"
            text = value or ""
            assert "alert" not in text
            assert name != "href" or text.startswith("#")
            assert name not in ("src", "srcset") or text.startswith("data:image/png;base64,")


# fmt: off
TEXTS = (
    "seed id", "seed input", "seed target", "choice", "kept id", "kept input", "refused id",
    "refused input", "detail", "against", "teacher", "error", "role", "message", "student", "model uri",
    "baseline", "metric", "setting", "value", "test id 2", "test input 0", "test target",
    "prompt of iteration 2", "completion of iteration 1", "completion of iteration 2",
    "answer of iteration 1", "finish of iteration 2",
)
# fmt: on


@pytest.mark.parametrize("label", TEXTS)
def test_every_text_comes_out_as_it_went_in(evil_page: Parsed, label: str) -> None:
    assert evil(label) in evil_page.bdi


def test_reasons_of_other_filters_and_the_words_for_stopping_are_escaped_too(evil_page: Parsed) -> None:
    assert evil("reason").replace("_", " ") in evil_page.text
    assert f"The loop ended early: {evil('stopped')}." in evil_page.text


def test_direction_marks_stay_inside_the_element_that_ends_them(evil_page: Parsed) -> None:
    marks = "\u202e\u2066\u2069"
    inside = sum(text.count(mark) for text in evil_page.bdi for mark in marks)
    assert inside == sum(evil_page.text.count(mark) for mark in marks) > 100
    assert "bdi { display: inline-block" in evil_page.styles[0]


def test_the_page_needs_no_other_file_and_forbids_scripts(evil_page: Parsed) -> None:
    policies = [attributes["content"] for tag, attributes in evil_page.elements if "http-equiv" in attributes]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert "url(" not in evil_page.styles[0]
    assert "@import" not in evil_page.styles[0]


def test_a_reader_without_sight_gets_headers_and_words_for_curves(tmp_path: Path) -> None:
    inputs = ReportInputs(
        iterations=small_loop(tmp_path, [[False] * 4, [True] * 4]),
        comparisons=[baseline(tmp_path, [True] * 4, 20)],
    )
    _, parsed = write(tmp_path / "out", inputs, ReportConfig())
    assert all(
        attributes.get("scope") in ("col", "row") for tag, attributes in parsed.elements if tag == "th"
    )
    alts = [attributes["alt"] or "" for tag, attributes in parsed.elements if tag == "img"]
    assert (
        "Test accuracy by iteration: from 0.0\u00a0% at 1 to 100.0\u00a0% at 2. The bars are intervals."
        in alts
    )
    assert "Training rows by origin: 0 synthetic of 8 in the first iteration, 1 of 9 in the last." in alts
    assert ("html", {"lang": "en"}) in parsed.elements
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    targets = [attributes["href"] for tag, attributes in parsed.elements if tag == "a"]
    assert {f"#{id}" for id in ids} == set(targets)


@pytest.mark.filterwarnings("ignore:Glyph")
def test_any_name_of_a_baseline_can_stand_in_a_legend(tmp_path: Path) -> None:
    names = ["$\\frac{1}{$", "_under", "\x00\n", "名前 \u202e \U0001f600", "__"]
    compared = [baseline(tmp_path, [True] * 4, 20, name) for name in names]
    inputs = ReportInputs(iterations=small_loop(tmp_path, [[True] * 4]), comparisons=compared)
    _, parsed = write(tmp_path / "out", inputs, ReportConfig())
    assert [row[0] for row in parsed.rows if len(row) == 9][1:] == [visible(name).strip() for name in names]


def test_text_and_ground_have_a_contrast_of_at_least_four_and_a_half() -> None:
    style = Path(page.__file__).with_name("page.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        colour = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))
        for ground in ("ground", "raised"):
            for name in ("text", "quiet", "accent", "good", "bad"):
                assert contrast(colour[name], colour[ground]) >= 4.5, (name, ground)
        assert contrast(colour["text"], colour["warn"]) >= 4.5
    for colours in (LIGHT, DARK):
        for drawn in (colours.text, colours.main, colours.other, colours.quiet):
            assert contrast(drawn, colours.ground) >= 4.5


def contrast(one: str, other: str) -> float:
    """Contrast ratio of WCAG 2.2."""

    def luminance(colour: str) -> float:
        shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        return sum(weight * share for weight, share in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (percent(0.5), "50.0\u00a0%"),
        (span(0.4, 0.605), "40.0 to 60.5\u00a0%"),
        (points(0.05), "+5.0"),
        (points(-0.05), "−5.0"),
        (points(-0.0001), "0.0"),
        (p_value(0.0004), "McNemar’s p < 0.001"),
        (p_value(0.25), "McNemar’s p = 0.250"),
        (figure(None), "–"),
        (figure(12345), "12,345"),
        (figure(0.123456), "0.1235"),
        (visible("a\x00b\rc\td\n\x7f"), "a␀b␍c\td\n␡"),
        (visible("\ud800"), "?"),
        (cut("x" * 600), ("x" * 600, 0)),
        (cut("x" * 601), ("x" * 600, 1)),
    ],
)
def test_figures_and_texts_are_written_so(written: object, expected: object) -> None:
    assert written == expected
