"""What samples look like before and after a filter, counted by hand, and the stage that keeps and describes them."""

import pytest

from tasks.core.examples import make_example, make_sample, read_examples, write_rows
from tasks.improve import stage
from tasks.improve.config import ImproveConfig, planned
from tasks.improve.figures import BINS, describe, histogram
from tasks.improve.stage import SelectInputs
from tasks.problems.base import ProblemConfig

PROBLEM = ProblemConfig(name="exact_match")
QUESTIONS = [make_example("one", "1"), make_example("two", "2"), make_example("three", "3")]


def sample(question: int, text: str, reward: float):
    return make_sample(QUESTIONS[question], text).model_copy(update={"reward": reward})


ROWS = [
    sample(0, "the cat sat", 1.0),
    sample(0, "the cat ran", 0.5),
    sample(1, "a dog", 0.0),
    QUESTIONS[1].model_copy(update={"reward": 1.0}),
]


def test_the_figures_are_those_counted_by_hand():
    figures = describe(ROWS)
    assert (figures.rows, figures.samples, figures.prompts, figures.reward) == (4, 3, 2, 0.5)
    assert figures.per_prompt == {1: 1, 2: 1}
    assert figures.distinct_1 == 6 / 8  # the, cat, sat, ran, a, dog
    assert figures.distinct_2 == 4 / 5  # the cat, cat sat, cat ran, a dog
    assert (
        figures.self_similarity == 1 / 3
    )  # the cat, of three pairs of words; the second prompt has one sample
    assert (figures.words, figures.words_deviation) == (pytest.approx(8 / 3), pytest.approx((2 / 9) ** 0.5))
    assert sum(figures.histogram) == 3
    assert (figures.histogram[0], figures.histogram[BINS // 2], figures.histogram[-1]) == (1, 1, 1)


def test_no_row_has_figures_too():
    figures = describe([])
    assert (figures.rows, figures.prompts, figures.reward, figures.distinct_1, figures.words) == (
        0,
        0,
        0,
        0,
        0,
    )
    assert (figures.histogram, figures.per_prompt) == ([0] * BINS, {})


def test_rewards_at_the_edges_fall_into_the_bin_above_and_the_greatest_into_the_last():
    counts = histogram([0.0, 0.05, 0.0499, 1.0, 0.95])
    assert (counts[0], counts[1], counts[-1]) == (2, 1, 2)


def select(folder, level, rows=ROWS):
    config = planned(ImproveConfig(), "rest")
    halves = [write_rows(folder / f"{n}.jsonl", part) for n, part in enumerate((rows[:2], rows[2:]))]
    result = stage.run(
        config,
        SelectInputs(rows=halves, level=level, asked=len(QUESTIONS), problem=PROBLEM),
        folder / "out",
        lambda event: None,
    )
    return read_examples(result.kept), result.selection


def test_the_stage_writes_what_it_keeps_and_describes_both_sides(tmp_path):
    kept, selection = select(tmp_path, 0.5)
    assert kept == [ROWS[0], ROWS[3]]
    assert (selection.level, selection.before.rows, selection.after.rows) == (0.5, 4, 2)
    # The training row that is kept is no answer of the policy's.
    # The third question has no sample: it was asked, and nothing of it was kept.
    assert (selection.prompts_without, selection.rejected) == (2, {"low": 2})


def test_training_rows_do_not_hide_a_policy_that_gets_nothing_right(tmp_path):
    wrong = [sample(number, "no", 0.0) for number in range(3)]
    known = [row.model_copy(update={"reward": 1.0}) for row in QUESTIONS]
    kept, selection = select(tmp_path, 0.0, wrong + known)
    assert kept == known
    assert (selection.prompts_without, selection.before.reward, selection.after.reward) == (3, 0.0, 0.0)
    assert (selection.before.per_prompt, selection.after.per_prompt) == ({1: 3}, {})
    assert (selection.after.rows, selection.after.samples) == (3, 0)


def test_a_sample_that_says_its_training_row_word_for_word_stands_for_both(tmp_path):
    known = [row.model_copy(update={"reward": 1.0}) for row in QUESTIONS]
    cut = sample(1, "2", 1.0).model_copy(update={"cut": True})
    said = [
        sample(0, "1", 1.0),
        cut,
        sample(2, "2", 1.0),
    ]  # right; cut, and so not kept; the word of another question
    kept, selection = select(tmp_path, 0.5, said + known)
    assert kept == [said[0], said[2], known[1], known[2]]
    assert (selection.before.rows, selection.before.samples, selection.rejected) == (5, 3, {"cut": 1})


def test_a_level_that_nothing_passes_gives_no_row_and_no_error(tmp_path):
    kept, selection = select(tmp_path, 1.0)
    assert (kept, selection.after.rows, selection.prompts_without) == ([], 0, 3)


def test_an_empty_set_and_a_single_row(tmp_path):
    assert select(tmp_path / "none", 0.0, [])[0] == []
    assert select(tmp_path / "one", 0.0, ROWS[:1])[0] == ROWS[:1]
