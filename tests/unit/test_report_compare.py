"""Paired comparison: rows counted by hand, McNemar against SciPy, the interval against the normal one."""

import random

import pytest
from scipy.stats import binomtest

from tasks.core.errors import UserError
from tasks.report.choice import choose
from tasks.report.compare import Pair, changes, difference, mcnemar, pair
from tests.unit.report_loop import answers, held_out


def pairs_of(first: list[bool], second: list[bool]) -> list[Pair]:
    rows = held_out(len(first))
    return pair(answers(rows, first), answers(rows, second), "comparisons")


def test_fixed_and_broken_rows_are_counted_by_hand() -> None:
    found = difference(pairs_of([True, True, False, False, False], [True, False, True, True, False]), 0.95, 0)
    assert (found.rows, found.fixed, found.broken) == (5, 2, 1)
    assert found.mean == pytest.approx(0.2)
    assert found.p == 1.0  # 2 of 3 changes in one direction: both tails together hold everything


def test_six_changes_in_one_direction_have_the_p_value_of_six_heads() -> None:
    assert mcnemar(6, 0) == 2 / 2**6 == mcnemar(0, 6)


def test_no_change_is_no_evidence() -> None:
    assert mcnemar(0, 0) == 1.0


@pytest.mark.parametrize(("fixed", "broken"), [(1, 0), (7, 3), (3, 7), (5, 5), (40, 21), (5300, 5000)])
def test_mcnemar_agrees_with_the_binomial_test(fixed: int, broken: int) -> None:
    assert mcnemar(fixed, broken) == pytest.approx(binomtest(fixed, fixed + broken).pvalue, rel=1e-9)


def test_the_interval_is_paired() -> None:
    """Of 400 rows 40 become right and none wrong. Unpaired, the difference of 50 % and 60 % has an interval
    of ±6.9 points; paired, its standard error is sqrt(0.1 * 0.9 / 400) = 1.5 points."""
    found = difference(pairs_of([True] * 200 + [False] * 200, [True] * 240 + [False] * 160), 0.95, 3)
    assert found.low == pytest.approx(0.1 - 1.96 * 0.015, abs=0.006)
    assert found.high == pytest.approx(0.1 + 1.96 * 0.015, abs=0.006)


def test_a_model_compared_with_itself_differs_in_nothing() -> None:
    found = difference(pairs_of([True, False, True], [True, False, True]), 0.95, 0)
    assert (found.mean, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_one_row_is_enough_to_compare() -> None:
    found = difference(pairs_of([False], [True]), 0.95, 0)
    assert (found.mean, found.low, found.high, found.p) == (1.0, 1.0, 1.0, 1.0)


def test_rows_are_paired_by_id_whatever_their_order() -> None:
    rows = held_out(30)
    verdicts = [index % 3 == 0 for index in range(30)]
    first = answers(rows, verdicts)
    second = random.Random(0).sample(first, len(first))
    assert [(a.id, a.value) for a, _ in pair(first, second, "")] == [
        (b.id, b.value) for _, b in pair(first, second, "")
    ]


def test_a_row_that_stands_twice_is_paired_with_its_own_copy() -> None:
    row = held_out(1)[0]
    first, second = answers([row, row], [True, False]), answers([row, row], [False, True])
    assert [(a.value, b.value) for a, b in pair(first, second, "")] == [(1.0, 0.0), (0.0, 1.0)]


@pytest.mark.parametrize(("left", "right"), [(5, 4), (4, 5)])
def test_other_test_rows_are_refused_with_the_field_and_the_mend(left: int, right: int) -> None:
    with pytest.raises(UserError, match="only 4 are the same") as caught:
        pair(answers(held_out(left), [True] * left), answers(held_out(right), [True] * right), "comparisons")
    assert caught.value.field == "comparisons"
    assert "one test set" in caught.value.mend


def test_changed_rows_are_all_shown_when_they_are_few() -> None:
    found = changes(pairs_of([False, True, False], [True, False, True]), fixed=True, most=5, seed=0)
    assert found.count == 2
    assert [first.input for first, _ in found.shown] == ["test sentence 0", "test sentence 2"]
    broken = changes(pairs_of([False, True, False], [True, False, True]), fixed=False, most=5, seed=0)
    assert [first.input for first, _ in broken.shown] == ["test sentence 1"]


def test_a_choice_of_rows_keeps_their_order_and_follows_its_seed() -> None:
    chosen = choose(range(1000), 20, seed=1)
    assert len(set(chosen)) == 20
    assert chosen == sorted(chosen) == choose(range(1000), 20, seed=1)
    assert chosen != choose(range(1000), 20, seed=2)
