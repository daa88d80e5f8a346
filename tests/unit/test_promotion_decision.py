"""Promoted only if better: by the test, by the minimum gain, and what happens without a champion."""

import pytest
from pydantic import ValidationError

from tasks.core.errors import UserError
from tasks.evaluate import Prediction
from tasks.promotion.decision import PromotionConfig, decide


def answers(*values: float) -> list[Prediction]:
    shared = {"input": "", "target": "", "prompt": "", "completion": "", "answer": None, "finish": "stop"}
    return [Prediction(id=str(number), value=value, **shared) for number, value in enumerate(values)]


def test_a_candidate_that_is_right_where_the_champion_was_wrong_is_promoted():
    decision = decide(answers(*[1] * 8), answers(*[0] * 6, 1, 1), PromotionConfig())
    assert (decision.promoted, decision.opponent) == (True, "champion")
    assert (decision.accuracy, decision.opponent_accuracy) == (1.0, 0.25)
    assert decision.test is not None
    assert decision.test.p == pytest.approx(2 / 64)
    assert decision.reason.startswith("better: +75.0 points against the champion on 8 rows")
    figures = decision.metrics()
    assert (figures["promotion/promoted"], figures["promotion/gain"]) == (1.0, 0.75)
    assert (figures["promotion/fixed"], figures["promotion/broken"]) == (6.0, 0.0)


@pytest.mark.parametrize(
    ("candidate", "champion", "config", "reason"),
    [
        ([0] * 8, [1] * 8, {}, "not better"),  # worse, and significantly so
        ([1, 0], [0, 1], {}, "not better"),
        ([1] * 5, [0] * 5, {}, "chance may explain it"),  # 5 of 5: p = 2/32
        ([1] * 8 + [0] * 92, [0] * 100, {"minimum_gain": 0.1}, "less than the minimum gain of 10 points"),
        ([1] * 6, [0] * 6, {"level": 0.03}, "chance may explain it"),
    ],
)
def test_a_candidate_that_is_not_better_stays_out(candidate, champion, config, reason):
    decision = decide(answers(*candidate), answers(*champion), PromotionConfig(**config))
    assert not decision.promoted
    assert reason in decision.reason


def test_a_gain_of_exactly_the_minimum_is_enough():
    config = PromotionConfig(minimum_gain=0.08)
    assert decide(answers(*[1] * 8, *[0] * 92), answers(*[0] * 100), config).promoted


def test_scores_in_between_are_compared_by_the_bootstrap():
    better = decide(answers(*[0.8] * 9, 0.2), answers(*[0.3] * 9, 0.25), PromotionConfig())
    assert better.test is not None
    assert (better.promoted, better.test.test) == (True, "bootstrap")
    assert better.test.gain == pytest.approx(0.445)


def test_rows_are_paired_by_their_id_and_not_by_their_place():
    candidate = answers(1, 1, 1, 1, 1, 1, 0)
    champion = [*reversed(answers(0, 0, 0, 0, 0, 0, 1))]
    decision = decide(candidate, champion, PromotionConfig())
    assert decision.test is not None
    assert (decision.test.fixed, decision.test.broken) == (6, 1)


def test_without_an_opponent_it_is_promoted_and_against_the_base_model_it_says_so():
    alone = decide(answers(0, 1), None, PromotionConfig(first="promote"))
    assert (alone.promoted, alone.opponent, alone.test) == (True, "none", None)
    assert "promotion/p" not in alone.metrics()
    beside = decide(answers(*[1] * 9), answers(*[0] * 9), PromotionConfig(), against="base model")
    assert (beside.opponent, "against the base model" in beside.reason) == ("base model", True)


def test_no_row_and_other_rows_are_refused():
    with pytest.raises(UserError, match="no held-out row"):
        decide([], [], PromotionConfig())
    with pytest.raises(UserError, match="test rows only"):
        decide(answers(1, 0), answers(1), PromotionConfig())


@pytest.mark.parametrize("wrong", [{"level": 0}, {"level": 1}, {"minimum_gain": -0.1}, {"test": "t"}])
def test_settings_out_of_bounds_are_refused(wrong):
    with pytest.raises(ValidationError):
        PromotionConfig(**wrong)
