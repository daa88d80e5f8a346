"""The choice of the rows whose answer the judges find likeliest."""

import math
from typing import get_args

import pytest

from tasks.core.examples import make_example
from tasks.filter.judged import choose_likeliest, mean_probability
from tasks.filter.rules import Reason
from tasks.report.tables import REASONS

PLAY = [make_example(f"play {number}", "play") for number in range(4)]
RATE = [make_example("rate 0", "rate")]


def test_the_mean_is_over_probabilities_and_not_over_their_logarithms() -> None:
    judgements = [{"a": math.log(0.9), "b": math.log(0.5)}, {"a": math.log(0.1), "b": math.log(0.5)}]
    assert mean_probability(judgements) == pytest.approx({"a": 0.5, "b": 0.5})


def test_the_share_is_taken_target_by_target_and_leaves_the_order() -> None:
    probability = {
        row.id: value for row, value in zip([*PLAY, *RATE], [0.2, 0.9, 0.4, 0.8, 0.01], strict=True)
    }
    kept, rejected = choose_likeliest([*PLAY, *RATE], probability, 0.5)
    assert kept == [PLAY[1], PLAY[3], RATE[0]]
    assert [(rejection.example, rejection.reason, rejection.detail) for rejection in rejected] == [
        (PLAY[0], "judged", "mean probability 0.20"),
        (PLAY[2], "judged", "mean probability 0.40"),
    ]


@pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.6, 2), (0.7, 3), (1.0, 4)])
def test_a_target_keeps_at_least_one_row(share: float, count: int) -> None:
    kept, rejected = choose_likeliest(PLAY, {row.id: 0.5 for row in PLAY}, share)
    assert (len(kept), len(rejected)) == (count, 4 - count)


def test_no_row_gives_no_row() -> None:
    assert choose_likeliest([], {}, 0.5) == ([], [])


def test_the_report_has_words_for_every_reason_to_reject() -> None:
    assert set(get_args(Reason)) <= set(REASONS)


def test_a_row_that_is_too_long_for_a_judge_has_no_probability_of_its():
    judgements = [{"a": math.log(0.5), "b": None}, {"a": math.log(0.25), "b": math.log(0.5)}]
    assert mean_probability(judgements) == pytest.approx({"a": 0.375, "b": 0.25})
