"""Paired tests against hand counts, all outcomes enumerated, and scipy."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from tasks.evaluate import bootstrap_interval
from tasks.promotion.paired_tests import bootstrap_p, paired_test, resampled_means


def right_and_wrong(both: int, fixed: int, broken: int, neither: int):
    before = [1.0] * both + [0.0] * fixed + [1.0] * broken + [0.0] * neither
    after = [1.0] * both + [1.0] * fixed + [0.0] * broken + [0.0] * neither
    return before, after


def test_figures_of_right_and_wrong_are_those_counted_by_hand():
    found = paired_test(*right_and_wrong(both=4, fixed=5, broken=1, neither=0))
    assert (found.test, found.rows, found.fixed, found.broken) == ("mcnemar", 10, 5, 1)
    assert found.gain == pytest.approx(0.4)
    assert found.p == pytest.approx(
        2 * (1 + 6) / 64
    )  # 0 or 1 of 6 changed rows the other way, both directions


@pytest.mark.parametrize(("fixed", "broken"), [(0, 0), (1, 0), (6, 0), (3, 3), (2, 9), (40, 21), (300, 250)])
def test_mcnemar_agrees_with_the_binomial_test_of_scipy(fixed, broken):
    found = paired_test(*right_and_wrong(3, fixed, broken, 2), resamples=100)
    reference = binomtest(fixed, fixed + broken, 0.5).pvalue if fixed + broken else 1.0
    assert found.p == pytest.approx(reference)


def test_the_bootstrap_p_value_is_that_of_all_resamples_enumerated():
    gains = [0.5, 0.25, -0.125, 0.75]
    gain = sum(gains) / 4
    every = [sum(draw) / 4 for draw in product(gains, repeat=4)]  # 256 equally likely resamples
    exact = sum(abs(mean - gain) >= gain - 1e-9 for mean in every) / len(every)
    found = paired_test([0.25] * 4, [0.25 + gain for gain in gains], resamples=40_000)
    assert (found.test, found.gain) == ("bootstrap", pytest.approx(gain))
    assert found.p == pytest.approx(exact, abs=0.005)


def test_the_interval_agrees_with_that_of_scipy_and_with_that_of_the_report():
    generator = np.random.default_rng(0)
    before, after = generator.uniform(0, 0.6, size=50), generator.uniform(0.1, 1.0, size=50)
    found = paired_test(before.tolist(), after.tolist(), confidence=0.9, seed=3)
    gains = after - before
    reference = bootstrap(
        (gains,), np.mean, n_resamples=10_000, confidence_level=0.9, method="percentile", rng=generator
    ).confidence_interval
    assert (found.low, found.high) == (
        pytest.approx(reference.low, abs=4e-3),
        pytest.approx(reference.high, abs=4e-3),
    )
    assert (found.low, found.high) == bootstrap_interval(gains.tolist(), 0.9, 10_000, 3)


def test_under_no_difference_the_bootstrap_rejects_about_as_often_as_its_level_says():
    generator, rejected = np.random.default_rng(1), 0
    for seed in range(400):
        gains = generator.uniform(-0.5, 0.5, size=40)
        means = resampled_means(gains.tolist(), 300, seed)
        rejected += bootstrap_p(means, float(gains.mean())) < 0.1
    assert 0.06 < rejected / 400 < 0.16


def test_auto_takes_the_bootstrap_as_soon_as_one_score_lies_in_between():
    assert paired_test([0.0, 1.0], [1.0, 1.0]).test == "mcnemar"
    assert paired_test([0.0, 1.0], [1.0, 0.5]).test == "bootstrap"
    assert paired_test([0.0, 1.0], [1.0, 0.5], test="mcnemar").broken == 1


def test_the_same_scores_are_no_difference_and_one_row_is_no_proof():
    same = paired_test([0.5, 1.0, 0.0], [0.5, 1.0, 0.0])
    assert (same.gain, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    assert paired_test([0.0], [1.0]).p == 1.0  # one changed row goes one of two ways


def test_a_seed_decides_everything_and_nothing_else_does():
    scores = ([0.1, 0.9, 0.4, 0.3], [0.4, 0.8, 0.9, 0.2])
    assert paired_test(*scores, seed=5) == paired_test(*scores, seed=5)
    assert paired_test(*scores, seed=5, resamples=500) != paired_test(*scores, seed=6, resamples=500)


@pytest.mark.parametrize(("before", "after"), [([], []), ([1.0], []), ([1.0], [1.0, 0.0])])
def test_scores_that_make_no_pairs_are_refused(before, after):
    with pytest.raises(ValueError, match="make no pairs"):
        paired_test(before, after)
