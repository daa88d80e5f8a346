"""Figures of a reward model: accuracy and calibration against hand counts and a second computation."""

import math

import numpy as np
import pytest

from tasks.evaluate import bootstrap_interval
from tasks.reward_model.calibration_plot import draw_calibration
from tasks.reward_model.evaluation import calibrate, evaluate_pairs, logistic

SETTINGS = {"confidence": 0.95, "resamples": 500, "seed": 3}


def log_odds(probability):
    return math.log(probability / (1 - probability))


def test_ties_count_half_and_the_margin_is_the_mean_difference():
    result = evaluate_pairs([2.0, 1.0, 0.0, 5.0], [1.0, 1.0, 3.0, 1.0], **SETTINGS)
    assert (result.pairs, result.accuracy, result.margin) == (4, 0.625, 0.5)
    assert (result.low, result.high) == bootstrap_interval([1.0, 0.5, 0.0, 1.0], 0.95, 500, 3)


def test_the_calibration_counts_every_pair_both_ways():
    """Three pairs predicted with 0.75, of which two are right; one with 0.95, right."""
    margins = [log_odds(0.75), log_odds(0.75), -log_odds(0.75), log_odds(0.95)]
    rows = calibrate(margins)
    assert [row.comparisons for row in rows] == [1, 3, 3, 1]
    assert [row.predicted for row in rows] == pytest.approx([0.05, 0.25, 0.75, 0.95])
    assert [row.observed for row in rows] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    error = evaluate_pairs(margins, [0.0] * 4, **SETTINGS).calibration_error
    assert error == pytest.approx((3 * (0.75 - 2 / 3) + 1 * 0.05) / 4)


def test_a_tie_is_predicted_and_observed_at_one_half():
    (row,) = calibrate([0.0])
    assert (row.comparisons, row.predicted, row.observed) == (2, 0.5, 0.5)


def test_the_error_agrees_with_a_computation_on_arrays():
    margins = np.random.default_rng(0).normal(0.4, 2, 300)
    predicted = np.concatenate([1 / (1 + np.exp(-margins)), 1 / (1 + np.exp(margins))])
    observed = np.concatenate([np.ones(300), np.zeros(300)])
    bins = np.digitize(predicted, np.linspace(0, 1, 11)[1:-1])
    gaps = [abs((predicted - observed)[bins == number].sum()) for number in range(10)]
    result = evaluate_pairs(margins.tolist(), [0.0] * 300, **SETTINGS)
    assert result.calibration_error == pytest.approx(sum(gaps) / 600)
    assert sum(row.comparisons for row in result.calibration) == 600


def test_rewards_that_say_the_truth_are_calibrated():
    """The better side is drawn with the very probability that is predicted."""
    draw = np.random.default_rng(1)
    margins = draw.normal(0, 1.5, 20_000)
    better = draw.random(20_000) < 1 / (1 + np.exp(-margins))
    said = np.where(better, margins, -margins).tolist()
    assert evaluate_pairs(said, [0.0] * 20_000, **SETTINGS).calibration_error < 0.01
    overconfident = evaluate_pairs([4 * margin for margin in said], [0.0] * 20_000, **SETTINGS)
    assert overconfident.calibration_error > 0.1


@pytest.mark.parametrize(("x", "value"), [(0, 0.5), (1000, 1.0), (-1000, 0.0), (math.log(3), 0.75)])
def test_the_logistic_function_has_no_overflow(x, value):
    assert logistic(x) == pytest.approx(value)


def test_one_pair_has_figures_and_a_plot_and_equal_figures_equal_bytes():
    result = evaluate_pairs([1e4], [-1e4], **SETTINGS)
    assert (result.accuracy, result.low, result.high, result.calibration_error) == (1.0, 1.0, 1.0, 0.0)
    assert draw_calibration(result) == draw_calibration(result)
    other = evaluate_pairs([0.1, 0.3], [0.2, 0.1], **SETTINGS)
    assert draw_calibration(other) != draw_calibration(result)
