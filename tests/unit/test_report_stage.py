"""The report of whole loops: figures, files, limits, equal bytes."""

import csv
import itertools
from pathlib import Path

import pytest
from pydantic import ValidationError

from tasks.core.errors import DamagedArtifact, UserError
from tasks.core.examples import make_example, write_rows
from tasks.evaluate import Prediction
from tasks.report.compare import read_predictions
from tasks.report.lineage import Lineage
from tasks.report.stage import STAGE, ReportConfig, ReportInputs, ReportResult, run
from tests.unit.report_html import parse
from tests.unit.report_loop import baseline, exchange, small_loop, split, written_from

FIRST = [True] * 4 + [False] * 6
LAST = [True] * 3 + [False] + [True] * 5 + [False]


def write(folder: Path, inputs: ReportInputs, **config: object) -> tuple[ReportResult, str]:
    folder.mkdir(parents=True, exist_ok=True)
    result = run(ReportConfig.model_validate(config), inputs, folder, lambda event: None)
    return result, parse(Path(result.page).read_text(encoding="utf-8")).text


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReportResult, str]:
    """The report of two iterations, FIRST and LAST."""
    folder = tmp_path_factory.mktemp("two")
    return write(folder / "out", ReportInputs(iterations=small_loop(folder, [FIRST, LAST])))


def test_the_headline_counts_what_changed(two: tuple[ReportResult, str]) -> None:
    text = two[1].replace("\u00a0", " ")
    assert "Test accuracy went from 40.0 %" in text
    assert "to 80.0 %" in text
    assert "+40.0 points" in text
    assert "5 answers became right, 1 became wrong (McNemar’s p = 0.219)" in text  # 2 * (1 + 6) / 64
    assert "Fixed: wrong at first, right in the end (5)" in text
    assert "Broken: right at first, wrong in the end (1)" in text


def test_overlapping_intervals_are_said_to_overlap(tmp_path: Path) -> None:
    inputs = ReportInputs(iterations=small_loop(tmp_path, [[True, False] * 5, [False, True] * 5]))
    _, text = write(tmp_path / "out", inputs)
    assert "The intervals of the two accuracies overlap, and that of the difference holds zero" in text
    assert "is better" not in text


def test_a_clear_gain_is_called_one(tmp_path: Path) -> None:
    inputs = ReportInputs(iterations=small_loop(tmp_path, [[False] * 30, [True] * 30]))
    _, text = write(tmp_path / "out", inputs)
    assert "The two intervals do not overlap: the last iteration is better" in text


def test_a_loss_is_called_worse_and_the_better_iteration_is_named(tmp_path: Path) -> None:
    inputs = ReportInputs(iterations=small_loop(tmp_path, [[True] * 30, [False] * 30]))
    _, text = write(tmp_path / "out", inputs)
    assert "the last iteration is worse" in text
    assert "Iteration 1 reached 100.0" in text


def test_the_csv_holds_the_iterations_in_figures(two: tuple[ReportResult, str]) -> None:
    result, _ = two
    with open(result.csv, encoding="utf-8", newline="") as file:
        first, last = csv.DictReader(file)
    assert (first["train_rows"], last["train_rows"]) == ("8", "9")
    assert (first["train_steps"], last["train_steps"]) == ("10", "20")
    assert (first["accuracy"], last["accuracy"]) == ("0.4", "0.8")
    assert (first["wrong"], first["generated"], first["kept"], first["shortfall"]) == ("2", "2", "1", "1")


def test_answers_that_are_right_in_part_give_a_column_of_those_right_in_full(
    tmp_path: Path, two: tuple[ReportResult, str]
) -> None:
    loop = small_loop(tmp_path, [FIRST, LAST])
    answers = read_predictions(loop[1].splits["test"].predictions)
    answers[3] = answers[3].model_copy(update={"value": 0.5})  # it was wrong
    loop[1].splits["test"] = split(tmp_path / "in-part.jsonl", answers)
    result, text = write(tmp_path / "out", ReportInputs(iterations=loop))
    assert [row["right in full"] for row in result.table] == ["40.0%", "80.0%"]
    assert result.table[1]["test accuracy"].startswith("85.0% (")
    with open(result.csv, encoding="utf-8", newline="") as file:
        assert [row["exact"] for row in csv.DictReader(file)] == ["0.4", "0.8"]
    assert "Right in full" in text
    assert "right in full" not in two[0].table[0]
    assert "Right in full" not in two[1]


def test_the_result_has_a_table_for_the_terminal_and_files_beneath_out(two: tuple[ReportResult, str]) -> None:
    result, _ = two
    assert {"iteration": 2, "trained on": 9, "wrong": 2}.items() <= result.table[1].items()
    assert result.table[0]["test accuracy"].startswith("40.0% (")
    for path in (result.page, result.csv, *result.curves):
        assert Path(path).is_relative_to(Path(result.page).parent)
    for curve in result.curves:
        assert Path(curve).read_bytes().startswith(b"\x89PNG")


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    inputs = ReportInputs(
        iterations=small_loop(tmp_path, [FIRST, LAST]), comparisons=[baseline(tmp_path, FIRST, 10)]
    )
    for folder in ("one", "two"):
        write(tmp_path / folder, inputs)
    names = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(names) == 7
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_second_attempt_writes_over_what_a_killed_one_left(tmp_path: Path) -> None:
    inputs = ReportInputs(iterations=small_loop(tmp_path, [FIRST, LAST]))
    _, fresh = write(tmp_path / "fresh", inputs)
    (tmp_path / "out" / "curves").mkdir(parents=True)
    (tmp_path / "out" / "report.html").write_text("<p>half", encoding="utf-8")
    assert write(tmp_path / "out", inputs)[1] == fresh


def test_a_baseline_with_fewer_steps_is_flagged(tmp_path: Path) -> None:
    loop = small_loop(tmp_path, [FIRST, LAST])  # its last training takes 20 steps
    _, text = write(
        tmp_path / "fewer", ReportInputs(iterations=loop, comparisons=[baseline(tmp_path, FIRST, 19)])
    )
    assert "seed only trained for 19 optimizer steps, the last iteration for 20" in text
    assert "part of the difference may be training time" in text
    _, text = write(
        tmp_path / "equal", ReportInputs(iterations=loop, comparisons=[baseline(tmp_path, FIRST, 20)])
    )
    assert "may be training time" not in text
    assert "p = 0.219" in text


def test_without_an_equal_baseline_more_steps_are_a_caution(two: tuple[ReportResult, str]) -> None:
    _, text = two
    assert "The last training took 20 optimizer steps, the first one 10" in text


def test_a_baseline_on_other_test_rows_is_refused(tmp_path: Path) -> None:
    loop = small_loop(tmp_path, [FIRST, LAST])
    with pytest.raises(UserError, match="comparisons"):
        write(
            tmp_path / "out", ReportInputs(iterations=loop, comparisons=[baseline(tmp_path, [True] * 11, 20)])
        )


def test_one_iteration_without_any_augmentation_is_reported(tmp_path: Path) -> None:
    _, text = write(tmp_path / "out", ReportInputs(iterations=small_loop(tmp_path, [FIRST])))
    assert "Test accuracy is 40.0" in text
    for words in (
        "There was one iteration, so there is no earlier one",
        "No row was chosen for the teacher.",
        "Nothing was filtered",
        "The last iteration trained on seed rows alone.",
        "No teacher was asked.",
    ):
        assert words in text


def test_one_test_row_and_one_training_row_are_enough(tmp_path: Path) -> None:
    _, text = write(tmp_path / "out", ReportInputs(iterations=small_loop(tmp_path, [[True]], rows=1)))
    assert "on 1 test row." in text


def test_no_iterations_are_refused() -> None:
    with pytest.raises(ValidationError):
        ReportInputs(iterations=[])


def test_missing_metrics_stay_empty_and_nothing_is_claimed_of_them(tmp_path: Path) -> None:
    loop = [record.model_copy(update={"metrics": {}}) for record in small_loop(tmp_path, [FIRST, LAST])]
    result, text = write(
        tmp_path / "out", ReportInputs(iterations=loop, comparisons=[baseline(tmp_path, FIRST, 1)])
    )
    assert Path(result.csv).read_text(encoding="utf-8").splitlines()[1].startswith("1,8,,,,,,,0.4,")
    assert result.table[0]["wrong"] == "–"
    assert "training time" not in text
    assert [Path(path).stem for path in result.curves] == [
        "accuracy-by-iteration",
        "accuracy-by-training-rows",
        "rows-by-origin",
    ]


def test_failures_of_which_nothing_was_kept_are_shown(tmp_path: Path) -> None:
    loop = small_loop(tmp_path, [FIRST, FIRST])
    empty = write_rows(tmp_path / "none.jsonl", [])
    loop[0] = loop[0].model_copy(update={"kept": empty, "rejected": [], "exchanges": [], "counts": {}})
    _, text = write(tmp_path / "out", ReportInputs(iterations=loop))
    assert "Kept (0)" in text
    assert "Kept (1)" not in text


def test_free_answers_with_partial_scores_have_no_classes(tmp_path: Path) -> None:
    predictions = [
        Prediction(
            id=str(n),
            input="i",
            target=str(n),
            prompt="p",
            completion="c",
            answer=None,
            value=0.1,
            finish="stop",
        )
        for n in range(12)
    ]  # their binary sum, divided by twelve, lies below both ends of the bootstrap interval
    loop = small_loop(tmp_path, [FIRST])
    loop[0] = loop[0].model_copy(update={"splits": {"test": split(tmp_path / "free.jsonl", predictions)}})
    _, text = write(tmp_path / "out", ReportInputs(iterations=loop))
    assert "there are no classes" in text
    assert "Test accuracy is 10.0" in text


def test_a_failed_row_stands_beside_what_was_made_of_it(two: tuple[ReportResult, str]) -> None:
    _, text = two
    case = text[text.index("Failed row") :]
    pieces = [
        "seed sentence 0",
        "not music",
        "wrong",
        "kept sentence 1",
        "too close to a test row",
        "refused sentence 1",
    ]
    places = [
        case.index(piece)
        for piece in [*pieces, "repeats:", "test sentence 0", "Write rows like: seed sentence 0"]
    ]
    assert places == sorted(places)
    assert "connection refused" in case


def test_the_teachers_usage_is_summed_per_iteration(tmp_path: Path) -> None:
    loop = small_loop(tmp_path, [FIRST, LAST])
    parent = make_example("seed sentence 0", "music")
    asked = [
        exchange(parent, 3, completion_tokens=1500),
        exchange(parent, 0),
        exchange(parent, 1, finish="length"),
        exchange(parent, 0, text="", finish="error", error="time-out"),
    ]
    loop[0] = loop[0].model_copy(update={"exchanges": [write_rows(tmp_path / "asked.jsonl", asked)]})
    page = Path(write(tmp_path / "out", ReportInputs(iterations=loop))[0].page).read_text(encoding="utf-8")
    # requests, rows read, not answered, unreadable, cut, prompt tokens, tokens written
    assert parse(page).rows[-1] == ["1", "4", "4", "1", "1", "1", "80", "1,521"]
    assert "time-out" in parse(page).bdi


def test_filter_counts_stand_by_reason_and_leave_out_what_never_occurred(tmp_path: Path) -> None:
    loop = small_loop(tmp_path, [FIRST, FIRST, LAST])
    loop[1] = loop[1].model_copy(update={"counts": {"kept": 3, "surplus": 2, "label": 1}})
    page = Path(write(tmp_path / "out", ReportInputs(iterations=loop))[0].page).read_text(encoding="utf-8")
    rows = parse(page).rows
    begin = rows.index(["Iteration", "kept", "label", "contamination", "surplus"])
    assert rows[begin + 1 : begin + 3] == [["1", "1", "0", "1", "0"], ["2", "3", "1", "0", "2"]]


def test_the_class_that_lost_most_comes_first(tmp_path: Path) -> None:
    first, last = [True, False] * 5, [False, True] * 5  # music stands on even rows, weather on odd ones
    inputs = ReportInputs(iterations=small_loop(tmp_path, [first, last]))
    page = Path(write(tmp_path / "out", inputs)[0].page).read_text(encoding="utf-8").replace("\u00a0", " ")
    rows = parse(page).rows
    music = rows.index(["music", "5", "100.0 %", "0.0 %", "−100.0", "50.0 %", "0.0 %"])
    assert rows[music + 1] == ["weather", "5", "0.0 %", "100.0 %", "+100.0", "0.0 %", "50.0 %"]


def test_a_row_is_traced_back_to_its_seed_row() -> None:
    seed = make_example("seed", "music")
    child = written_from(seed, "child", 1)
    grandchild = written_from(child, "grandchild", 2)
    lineage = Lineage([seed, child, grandchild])
    assert [link.row for link in lineage.chain(grandchild)] == [seed, child, grandchild]
    assert [link.row for link in lineage.chain(seed)] == [seed]


def test_a_parent_that_is_not_in_the_data_ends_the_chain() -> None:
    child = written_from(make_example("lost", "music"), "child", 1)
    assert [link.row for link in Lineage([child]).chain(child)] == [None, child]


def test_rows_that_name_each_other_as_parents_do_not_loop_forever() -> None:
    one, two = make_example("one", "music"), make_example("two", "music")
    one, two = (a.model_copy(update={"parent": b.id}) for a, b in itertools.permutations([one, two]))
    assert [link.id for link in Lineage([one, two]).chain(one)][-1] == one.id


def test_the_lineage_on_the_page_leads_from_the_seed_row_to_the_synthetic_one(tmp_path: Path) -> None:
    _, text = write(tmp_path / "out", ReportInputs(iterations=small_loop(tmp_path, [FIRST, FIRST, LAST])))
    part = text[text.index("each with the chain that begins at a seed row") : text.index("Not answered")]
    for number in (1, 2):
        end = part.index(f"kept sentence {number}")
        assert f"iteration {number}" in part[part.rindex("seed sentence 0", 0, end) : end]


def test_ten_thousand_rows_make_no_huge_page_and_long_texts_are_cut(tmp_path: Path) -> None:
    loop = small_loop(tmp_path, [[False] * 100, [True] * 100])
    long = "long text " * 500
    seeds = [make_example(f"{long}{number}", "music") for number in range(10_000)]
    kept = [written_from(seeds[number % 100], f"{long}kept {number}", 1) for number in range(5_000)]
    exchanges = [exchange(seeds[number % 100], 1, text=long, error="x" * 5000) for number in range(1_000)]
    loop[0] = loop[0].model_copy(
        update={
            "train": write_rows(tmp_path / "many.jsonl", seeds),
            "failures": write_rows(tmp_path / "failed.jsonl", seeds),
            "kept": write_rows(tmp_path / "kept.jsonl", kept),
            "exchanges": [write_rows(tmp_path / "exchanges.jsonl", exchanges)],
        }
    )
    result, text = write(tmp_path / "out", ReportInputs(iterations=loop))
    assert Path(result.page).stat().st_size < 3_000_000
    assert "50 of 10,000 failed rows are shown" in text
    assert "50 of 100 rows are shown" in text
    assert f"cut, {5004 - 600:,} more characters" in text  # a seed row with a number of four digits


def test_fewer_rows_are_shown_when_fewer_are_wanted(tmp_path: Path) -> None:
    inputs = ReportInputs(iterations=small_loop(tmp_path, [[False] * 20, [True] * 20]))
    _, text = write(tmp_path / "out", inputs, most_rows=3)
    assert "3 of 20 rows are shown" in text
    assert text.count("The prompt") == 3


def test_data_that_changed_since_it_was_written_are_refused(tmp_path: Path) -> None:
    loop = small_loop(tmp_path, [FIRST, LAST])
    path = Path(loop[0].train.uri)
    path.write_text(path.read_text(encoding="utf-8").replace("sentence", "Sentence"), encoding="utf-8")
    with pytest.raises(DamagedArtifact):
        write(tmp_path / "out", ReportInputs(iterations=loop))


def test_the_stage_runs_on_json_values(tmp_path: Path) -> None:
    inputs = ReportInputs(iterations=small_loop(tmp_path, [FIRST, LAST])).model_dump(mode="json")
    (tmp_path / "out").mkdir()
    result = STAGE({"title": "Mine"}, inputs, tmp_path / "out", lambda event: None)
    assert "<title>Mine</title>" in Path(result["page"]).read_text(encoding="utf-8")
