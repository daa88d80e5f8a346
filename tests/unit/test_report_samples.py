"""The report of a loop over a policy's own samples: figures counted by hand, sections, files, texts."""

import csv
from pathlib import Path
from typing import Any

import pytest

from tasks.core.examples import Example, make_example, make_sample, write_rows
from tasks.report.compare import Comparison
from tasks.report.records import IterationRecord
from tasks.report.samples import improve_steps, kept_samples
from tasks.report.show import kept_table
from tasks.report.stage import STAGE, ReportConfig, ReportInputs, ReportResult, run
from tasks.report.tables import iteration_rows
from tests.unit.report_html import Parsed, parse
from tests.unit.report_loop import baseline, small_loop
from tests.unit.report_samples import QUESTIONS, draw, figures, sampled_loop, select
from tests.unit.test_report_page import evil

FIRST = [True] * 4 + [False] * 6
LAST = [True] * 3 + [False] + [True] * 5 + [False]


def write(
    folder: Path,
    loop: list[IterationRecord],
    compared: list[Comparison] | None = None,
    settings: dict[str, Any] | None = None,
    **config: object,
) -> tuple[ReportResult, Parsed]:
    folder.mkdir(parents=True, exist_ok=True)
    inputs = ReportInputs(iterations=loop, comparisons=compared or [], settings=settings or {})
    result = run(ReportConfig.model_validate(config), inputs, folder, lambda event: None)
    page = Path(result.page).read_text(encoding="utf-8").replace("\u00a0", " ")
    return result, parse(page)


def in_order(text: str, *pieces: str) -> bool:
    """Whether the pieces follow each other in a text with nothing but white space between them."""
    return "".join("".join(pieces).split()) in "".join(text.split())


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReportResult, Parsed]:
    """Two iterations of two steps, with rewards and a warm start that answered as FIRST."""
    folder = tmp_path_factory.mktemp("samples")
    rewards = [{"reward/validation": 0.5, "reward/test": 0.4}, {"reward/validation": 0.6, "reward/test": 0.5}]
    loop = sampled_loop(folder, [FIRST, LAST], metrics=rewards)
    start = baseline(folder, FIRST, 20, "warm start")
    start.metrics["reward/test"] = 0.25
    settings = {"improve.by": "threshold"}
    return write(folder / "out", loop, [start], settings, method="rest", title="Mine")


def test_every_step_has_its_figures(two: tuple[ReportResult, Parsed]) -> None:
    """Four prompts with samples of 0, 0.5 and 0.9: above 0.2 lie two of each, above 0.7 one of each."""
    rows = two[1].rows
    begin = next(place for place, row in enumerate(rows) if row[2:4] == ["Level", "Rows"])
    both = ["12 → 8", "0.467 → 0.700", "0.520", "taken", "0 of 4", "2.00", "2", "4"]
    best = ["12 → 4", "0.467 → 0.900", "0.570", "taken", "0 of 4", "1.00", "1", "8"]
    assert rows[begin + 1 : begin + 5] == [
        ["1", "1", "reward above 0.2", *both],
        ["1", "2", "reward above 0.7", *best],
        ["2", "1", "reward above 0.2", *both],
        ["2", "2", "reward above 0.7", *best],
    ]
    alike = ["0.400 → 0.400", "0.600 → 0.800", "0.250 → 0.250", "5.0 ± 1.5", "4.0 ± 1.5"]
    assert rows[begin + 6] == ["1", "1", *alike]


def test_prompts_of_which_nothing_is_kept_count_for_the_mean_and_rejections_stand_by_reason(
    tmp_path: Path,
) -> None:
    samples = [*draw(1)[::3], *draw(1)[1:6:3]]
    step = select(samples, 0.2, {}, rejected={"cut": 1, "low": 4, "odd <b>": 2}, taken=False, asked=5)
    loop = sampled_loop(tmp_path, [FIRST])
    loop[0] = loop[0].model_copy(update={"selections": [step]})
    _, parsed = write(tmp_path / "out", loop)
    row = next(row for row in parsed.rows if row[2] == "level 0.2")
    # the four samples worth nothing and two worth 0.5: of two of the four prompts one row each is kept; a fifth prompt
    # has no sample
    assert row[3:] == ["6 → 2", "0.167 → 0.500", "–", "gone back on", "3 of 5", "0.40", "1", "4", "1", "2"]
    assert [text for text in parsed.bdi if text in ("low", "cut", "odd <b>")] == ["low", "cut", "odd <b>"]
    assert "reward not high enough" in parsed.text
    assert "over the limit per prompt" not in parsed.text  # it never occurred


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"improve.by": "threshold"}, "reward above 0.5"),
        ({"improve.by": "percentile"}, "percentile 0.5 of each prompt"),
        ({"improve.by": "top_n"}, "best 0.5 of each prompt"),
        ({"improve.by": ["odd"]}, "level 0.5"),
        ({}, "level 0.5"),
    ],
)
def test_a_level_is_written_in_the_words_of_its_filter(tmp_path: Path, settings: Any, words: str) -> None:
    loop = sampled_loop(tmp_path, [FIRST], levels=[0.5])
    assert [step.level for step in improve_steps(loop, settings)] == [words]


def test_nothing_is_said_of_a_teacher_and_every_link_leads_to_a_section(
    two: tuple[ReportResult, Parsed],
) -> None:
    parsed = two[1]
    for words in ("eacher", "augmentation", "wrong, generated", "Failed", "synthetic", "seed row"):
        assert words not in parsed.text
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [attributes["href"] for tag, attributes in parsed.elements if tag == "a"]
    assert {target.removeprefix("#") for target in targets if target} <= set(ids)
    assert "#samples" in targets
    assert not {"#teacher", "#filter", "#cases"} & set(targets)
    assert {"teacher", "filter", "cases"}.isdisjoint(ids)


def test_a_loop_with_samples_and_a_teacher_shows_both(tmp_path: Path) -> None:
    loop = small_loop(tmp_path, [FIRST, LAST])
    loop[1] = loop[1].model_copy(update={"selections": [select(draw(2), 0.2, {})], "kept": loop[1].train})
    _, parsed = write(tmp_path / "out", loop)
    for words in ("Samples and rewards", "What became of the rows the teacher wrote", "Not answered"):
        assert words in parsed.text


def test_a_loop_with_a_teacher_alone_says_nothing_of_samples(tmp_path: Path) -> None:
    _, parsed = write(tmp_path / "out", small_loop(tmp_path, [FIRST, LAST]))
    assert "Sample" not in parsed.text
    assert "reward" not in parsed.text


def test_the_iteration_table_speaks_of_prompts_and_rewards(two: tuple[ReportResult, Parsed]) -> None:
    result, parsed = two
    heading, first = parsed.rows[0], parsed.rows[1]
    figures_of = dict(zip(heading, first, strict=True))
    assert figures_of["Nothing kept"] == "0"
    assert (figures_of["Drawn"], figures_of["Kept"], figures_of["Trained on"]) == ("12", "4", "4")
    assert figures_of["Reward, samples"] == "0.467"
    assert (figures_of["Reward, validation"], figures_of["Reward, test"]) == ("0.500", "0.400")
    assert not {"Wrong", "Missing", "Generated"} & set(heading)
    assert "Nothing kept: prompts of which" in parsed.text
    terminal = result.table[0]
    assert {"nothing kept": 0, "drawn": 12, "kept": 4, "mean reward": 0.4667}.items() <= terminal.items()


def test_the_csv_has_the_rewards_that_were_recorded(two: tuple[ReportResult, Parsed], tmp_path: Path) -> None:
    with open(two[0].csv, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["reward_validation"], row["reward_test"]) for row in rows] == [
        ("0.5", "0.4"),
        ("0.6", "0.5"),
    ]
    assert float(rows[0]["reward_mean"]) == pytest.approx(7 / 15)
    some = iteration_rows(sampled_loop(tmp_path, [FIRST, LAST], metrics=[{}, {"reward/validation": 1.0}]))
    assert [row["reward_validation"] for row in some] == [None, 1.0]
    assert "reward_test" not in some[0]


def test_the_headline_begins_at_the_policy_that_the_loop_set_out_from(
    two: tuple[ReportResult, Parsed],
) -> None:
    text = two[1].text
    assert "Test accuracy went from 40.0 %" in text
    assert "for the warm start to 80.0 %" in text
    assert "5 answers became right, 1 became wrong" in text
    assert "Fixed: wrong at first, right in the end (5)" in text
    assert "Warm start" in text
    assert "trained for 20 optimizer steps in all: part of the difference may be training time" in text


def test_one_iteration_is_compared_with_the_warm_start(tmp_path: Path) -> None:
    compared = [
        baseline(tmp_path, FIRST, 20, "warm start"),
        baseline(tmp_path / "b", LAST, 30, "equal steps"),
    ]
    _, parsed = write(tmp_path / "out", sampled_loop(tmp_path, [LAST]), compared)
    assert "for the warm start to 80.0 %" in parsed.text
    assert "There was one iteration" not in parsed.text
    assert "may be training time" not in parsed.text  # the other baseline had as many steps
    classes = [row for row in parsed.rows if row[0] in ("music", "weather")]
    # music stands on even rows: of 0, 2, 4, 6, 8 the warm start has 2 right, the last iteration all five
    assert classes[1][:4] == ["music", "5", "40.0 %", "100.0 %"]


def test_one_iteration_with_nothing_to_compare_it_with_is_reported(tmp_path: Path) -> None:
    _, parsed = write(tmp_path / "out", sampled_loop(tmp_path, [[True]]))
    assert "Test accuracy is 100.0 %" in parsed.text
    assert "on 1 test row." in parsed.text
    assert "There was one iteration" in parsed.text


def test_an_iteration_that_kept_nothing_trained_on_nothing(tmp_path: Path) -> None:
    """The flow names the rows behind the old policy as `train`; they are not what this iteration trained on."""
    loop = sampled_loop(tmp_path, [FIRST, LAST], levels=[0.95])
    data = write_rows(tmp_path / "data.jsonl", QUESTIONS)
    loop = [record.model_copy(update={"kept": None, "train": data}) for record in loop]
    result, parsed = write(tmp_path / "out", loop)
    assert [row["trained on"] for row in result.table] == [0, 0]
    assert "The last iteration trained on none of its samples." in parsed.text
    assert "No sample was kept." in parsed.text
    assert "The filter kept nothing in iterations 1 (level 0.95), 2 (level 0.95)" in parsed.text
    row = next(row for row in parsed.rows if row[2] == "level 0.95")
    assert row[3:7] == ["12 → 0", "0.467 → –", "0.595", "nothing kept"]


def test_samples_are_traced_to_their_prompts(tmp_path: Path) -> None:
    """The first question stands among the rows trained on, the second does not."""
    rows = [QUESTIONS[0].model_copy(update={"reward": 1.0}), *draw(1, QUESTIONS[:2])]
    kept = write_rows(tmp_path / "mixed.jsonl", rows)
    loop = sampled_loop(tmp_path, [FIRST])
    loop[0] = loop[0].model_copy(update={"kept": kept, "train": kept})
    _, parsed = write(tmp_path / "out", loop)
    part = parsed.text[parsed.text.index("each with the row whose prompt it answers") :]
    assert "6 samples" in part
    known, lost = (part[part.index(f"1: {row.id}") - 120 :][:250] for row in (rows[1], rows[4]))
    chain = [f"seed {QUESTIONS[0].id}", "question 0", "→ music", f"sample drawn in iteration 1: {rows[1].id}"]
    assert in_order(known, *chain, "answer a of iteration 1", "reward 0.000")
    assert known.index("answer a") - known.index(rows[1].id) < 40  # its question is not said twice
    chain = [
        f"prompt, not among the rows trained on: {QUESTIONS[1].id}",
        f"sample drawn in iteration 1: {rows[4].id}",
    ]
    assert in_order(lost, *chain, "question 1", "→ weather", "answer a of iteration 1", "reward 0.000")


def test_kept_samples_are_shown_with_prompt_answer_reward_and_target(tmp_path: Path) -> None:
    asked = make_example("question\nof two lines", "right answer")
    rows = [
        make_sample(asked, "", reward=0.125, step=1),
        make_sample(asked, "never ends", reward=1.0, cut=True, step=1),
        asked.model_copy(update={"reward": 0.5}),
    ]
    loop = sampled_loop(tmp_path, [FIRST])
    loop[0] = loop[0].model_copy(update={"kept": write_rows(tmp_path / "kept.jsonl", rows)})
    text = write(tmp_path / "out", loop)[1].text
    part = text[text.index("Samples that were kept") :]
    assert "Iteration 1: 2 kept samples" in part  # a training row is no sample
    assert in_order(
        part, "question\nof two lines", "→ right answer", "Sample", "(an empty answer)", "reward 0.125\n"
    )
    assert in_order(part, "never ends", "reward 1.000, cut at the token limit")


def test_of_many_samples_a_seeded_choice_is_shown(tmp_path: Path) -> None:
    many = [make_sample(QUESTIONS[0], f"answer {number}", reward=1.0) for number in range(500)]
    loop = sampled_loop(tmp_path, [FIRST, LAST])
    kept = write_rows(tmp_path / "many.jsonl", many)
    loop = [record.model_copy(update={"kept": kept, "train": kept}) for record in loop]
    chosen = kept_samples(loop, 10, seed=3)
    assert [(part.count, len(part.shown)) for part in chosen] == [(500, 5), (500, 5)]
    assert kept_samples(loop, 10, seed=3) == chosen != kept_samples(loop, 10, seed=4)
    ids = [row.id for row in many]
    places = [ids.index(row.id) for row in chosen[0].shown]
    assert places == sorted(places)
    _, parsed = write(tmp_path / "out", loop, most_rows=10)
    assert "5 of 500 samples are shown" in parsed.text
    assert "10 of 500 samples are shown" in parsed.text  # the lineage of the last iteration


def test_no_text_of_a_sample_becomes_markup(tmp_path: Path) -> None:
    row = Example(
        id=evil("id"),
        input=evil("input"),
        target=evil("target"),
        choices=[evil("choice")],
        origin="synthetic",
        parent=evil("parent"),
        completion=evil("completion"),
        reward=0.5,
        step=1,
    )
    kept = write_rows(tmp_path / "kept.jsonl", [row])
    loop = sampled_loop(tmp_path, [FIRST])
    step = select(draw(1), 0.2, {}, rejected={evil("reason"): 1})
    loop[0] = loop[0].model_copy(update={"kept": kept, "train": kept, "selections": [step]})
    start = baseline(tmp_path, FIRST, 1, "warm start")
    _, parsed = write(tmp_path / "out", loop, [start], {"improve.by": evil("by")})
    tags = {tag for tag, _ in parsed.elements}
    assert not tags & {"script", "iframe", "object", "link", "base", "b"}
    for label in ("id", "input", "target", "choice", "parent", "completion", "reason"):
        assert evil(label) in parsed.bdi
    marks = "\u202e\u2066\u2069"
    inside = sum(text.count(mark) for text in parsed.bdi for mark in marks)
    assert inside == sum(parsed.text.count(mark) for mark in marks) > 0


def test_the_stage_on_json_values_gives_the_same_bytes_over_what_a_killed_attempt_left(
    tmp_path: Path,
) -> None:
    loop, start = sampled_loop(tmp_path, [FIRST, LAST]), baseline(tmp_path, FIRST, 10, "warm start")
    write(tmp_path / "one", loop, [start])
    (tmp_path / "two" / "curves").mkdir(parents=True)
    (tmp_path / "two" / "report.html").write_text("<p>half", encoding="utf-8")
    inputs = ReportInputs(iterations=loop, comparisons=[start]).model_dump(mode="json")
    STAGE({}, inputs, tmp_path / "two", lambda event: None)
    names = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(names) == 8
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_table_of_kept_rows_shows_what_the_policy_answered(tmp_path: Path) -> None:
    samples = [make_sample(QUESTIONS[0], "two", reward=0.5), QUESTIONS[1].model_copy(update={"reward": 1.0})]
    parent = {"parent": QUESTIONS[0].id}
    assert kept_table(write_rows(tmp_path / "samples.jsonl", samples)) == [
        {"input": "question 0", "completion": "two", "reward": 0.5, "target": "music"} | parent,
        {"input": "question 1", "completion": None, "reward": 1.0, "target": "weather", "parent": None},
    ]
    written = QUESTIONS[1].model_copy(update={"origin": "synthetic"} | parent)
    assert kept_table(write_rows(tmp_path / "written.jsonl", [written])) == [
        {"input": "question 1", "target": "weather"} | parent
    ]
    assert kept_table(write_rows(tmp_path / "none.jsonl", [])) == []


def test_figures_of_an_empty_set_are_dashes_not_zeros(tmp_path: Path) -> None:
    loop = sampled_loop(tmp_path, [FIRST])
    nothing = select([], 0.2, {})
    assert nothing.before == figures([])
    loop[0] = loop[0].model_copy(update={"selections": [nothing]})
    _, parsed = write(tmp_path / "out", loop)
    row = next(row for row in parsed.rows if row[2] == "level 0.2")
    assert row[3:] == ["0 → 0", "– → –", "–", "nothing kept", "0 of 0", "–", "0"]
