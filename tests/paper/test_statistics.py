"""Intervals of a few runs, against textbook values and SciPy's own tests."""

import numpy as np
import pytest
from scipy import stats

from stages.paper.statistics import (
    RESAMPLES,
    bootstrap_difference,
    image_weights,
    mean_estimate,
    paired_difference,
    prediction_interval,
    sampling_error,
    welch_difference,
)

VALUES = [0.8080, 0.8031, 0.8102, 0.8055, 0.8066]


def test_the_prediction_interval_is_for_one_more_run() -> None:
    low, high = prediction_interval(VALUES)  # type: ignore[misc]
    half = 2.776445 * np.std(VALUES, ddof=1) * np.sqrt(1.2)  # t of 4 degrees of freedom
    assert (low, high) == pytest.approx((np.mean(VALUES) - half, np.mean(VALUES) + half), rel=1e-6)
    assert prediction_interval(VALUES[:1]) is None


def test_the_prediction_interval_holds_95_percent_of_further_runs() -> None:
    """2,000 experiments of five runs: a standard deviation of half a point of the share."""
    draws = np.random.default_rng(0).normal(0.8, 0.004, (2000, 6))
    inside = [low <= draw[5] <= high for draw in draws for low, high in [prediction_interval(list(draw[:5]))]]  # type: ignore[misc]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)


def test_a_mean_s_interval_is_scipys() -> None:
    found, expected = mean_estimate(VALUES), stats.ttest_1samp(VALUES, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert mean_estimate([0.5]) == (0.5, None, None, 1, None)


def test_pairs_are_what_both_have() -> None:
    found = paired_difference({1: 0.82, 2: 0.80, 3: 0.83}, {2: 0.79, 3: 0.80, 4: 0.5})
    assert (found.mean, found.runs) == (pytest.approx(0.02), 2)
    expected = stats.ttest_rel([0.80, 0.83], [0.79, 0.80]).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    with pytest.raises(ValueError, match="no runs"):
        paired_difference({1: 0.5}, {2: 0.5})


def test_unpaired_runs_are_compared_as_welch_did() -> None:
    other = [0.7943, 0.8014, 0.7881]
    found = welch_difference(VALUES, other)
    expected = stats.ttest_ind(VALUES, other, equal_var=False).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.runs == 3
    assert welch_difference(VALUES, other[:1]).low is None


def test_the_runs_needed_are_those_whose_interval_leaves_out_0() -> None:
    found = paired_difference(dict(enumerate([0.010, -0.004, 0.006, 0.001])), dict.fromkeys(range(4), 0.0))
    assert found.low is not None
    assert found.low < 0
    assert found.needed is not None
    spread = np.std([0.010, -0.004, 0.006, 0.001], ddof=1)

    def half(runs: int) -> float:
        return float(stats.t.ppf(0.975, runs - 1) * spread / np.sqrt(runs))

    assert half(found.needed) < found.mean <= half(found.needed - 1)
    assert mean_estimate([1e-9, 1, -1]).needed is None  # no number of runs that anyone would make


def test_the_sampling_error_is_binomial() -> None:
    assert sampling_error(0.8075, 10_000) == pytest.approx(0.00773, abs=5e-6)


def test_the_bootstrap_finds_the_standard_error_of_a_difference() -> None:
    """Of one pair of runs only the images are drawn: the interval is that of a paired difference of proportions."""
    random = np.random.default_rng(3)
    right = random.random((2, 2000)) < np.array([[0.8], [0.75]])
    samples = [image_weights(2000) @ row[:, None] / 2000 for row in right]
    low, high = bootstrap_difference(samples[0].T, samples[1].T, paired=True)
    difference = right[0].astype(float) - right[1]
    half = 1.96 * difference.std() / 2000**0.5
    assert (low, high) == pytest.approx((difference.mean() - half, difference.mean() + half), abs=0.1 * half)


def test_the_bootstrap_draws_runs_too_and_pairs_together() -> None:
    seeds = np.array([0.0, 0.1, 0.2, 0.3])
    first = np.repeat(seeds[:, None], RESAMPLES, axis=1)
    low, high = bootstrap_difference(first + 0.01, first, paired=True)
    assert (low, high) == pytest.approx((0.01, 0.01))
    low, high = bootstrap_difference(first + 0.01, first, paired=False)
    assert low < -0.1 < 0.1 < high
