"""Votes, early stopping and orders, on tables of answers written by hand."""

import random

import pytest

from tasks.label.batches import in_batches, permuted
from tasks.label.reading import Ballot
from tasks.label.voting import agreement, settled, vote

YES, NO, MAYBE = (Ballot(answer, True) for answer in ("yes", "no", "maybe"))
YES_UNSURE, NO_UNSURE = (Ballot(answer, False) for answer in ("yes", "no"))


@pytest.mark.parametrize(
    ("ballots", "majority", "weighted"),
    [
        ([YES], "yes", "yes"),
        ([YES, NO_UNSURE, NO_UNSURE], "no", "yes"),  # 2 against 1; 0.4 against 1
        ([YES_UNSURE] * 5 + [NO], "yes", "no"),  # five fifths are not more than one: confident ballots decide
        ([YES_UNSURE] * 6 + [NO], "yes", "yes"),
        ([NO_UNSURE, YES], "yes", "yes"),  # one each: the confident one
        ([NO, YES], "no", "no"),  # equal in all: the first
        ([None, None, NO_UNSURE], "no", "no"),
        ([MAYBE, YES, NO, YES], "yes", "yes"),
        ([None], None, None),
        ([], None, None),
    ],
)
def test_votes(ballots, majority, weighted):
    assert vote(ballots) == majority
    assert vote(ballots, "weighted", 0.2) == weighted


@pytest.mark.parametrize(
    ("ballots", "expected"),
    [
        ([], False),
        ([YES], False),
        ([YES, YES], True),
        ([NO, YES, YES], True),
        ([YES, NO, YES], False),
        ([YES, YES_UNSURE], False),
        ([YES_UNSURE, YES], False),
        ([YES_UNSURE, YES, YES], True),
        ([YES, None, YES], False),
        ([None, None], False),
        ([YES, YES, NO], False),  # it is asked of the last two
    ],
)
def test_a_row_is_settled_by_two_confident_equal_rounds_in_a_row(ballots, expected):
    assert settled(ballots) is expected


def test_agreement_is_the_share_of_rounds_that_gave_the_answer():
    assert agreement([YES, NO, YES_UNSURE, None], "yes") == 0.5
    assert agreement([], None) == 0


def test_votes_recover_from_a_model_that_errs_at_the_end_of_a_batch():
    """A position bias: of 32 positions the last 8 are answered wrong. In one order a quarter of the rows is wrong; a
    majority of 5 orders errs where 3 of 5 draws fall among the last 8 (binomial: 10.4 %), of 9 orders 4.9 %."""
    rows = range(3200)
    for rounds, theory in ((1, 0.25), (5, 0.1035), (9, 0.0489)):
        ballots: dict[int, list[Ballot | None]] = {row: [] for row in rows}
        for number in range(rounds):
            for batch in in_batches(permuted(rows, 1, number), 32, lambda some: True):
                for place, row in enumerate(batch):
                    ballots[row].append(Ballot("wrong" if place >= 24 else "right", False))
        wrong = sum(vote(ballots[row]) == "wrong" for row in rows) / len(rows)
        assert wrong == pytest.approx(theory, abs=3 * (theory * (1 - theory) / len(rows)) ** 0.5)


def test_an_order_hangs_on_seed_round_and_rows_alone():
    rows = [4, 8, 15, 16, 23, 42]
    shuffled = random.Random(0).sample(rows, len(rows))
    assert permuted(rows, 3, 1) == permuted(shuffled, 3, 1)
    assert sorted(permuted(rows, 3, 1)) == rows
    orders = {tuple(permuted(rows, seed, number)) for seed in range(3) for number in range(3)}
    assert len(orders) > 6


@pytest.mark.parametrize(
    ("lengths", "size", "most", "expected"),
    [
        ([1, 1, 1, 1, 1], 2, 100, [[0, 1], [2, 3], [4]]),
        ([3, 3, 3, 3], 4, 7, [[0, 1], [2, 3]]),
        ([9, 1, 1, 9, 1], 3, 5, [[0], [1, 2], [3], [4]]),  # one that does not fit alone is asked alone
        ([], 3, 5, []),
    ],
)
def test_batches_are_as_large_as_the_context_lets_them(lengths, size, most, expected):
    found = in_batches(range(len(lengths)), size, lambda some: sum(lengths[row] for row in some) <= most)
    assert list(found) == expected
