"""Intervals of a few runs, against textbook values and SciPy's own tests."""

import numpy as np
import pytest
from scipy import stats

from stages.paper.statistics import (
    RESAMPLES,
    for_other_images,
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
    assert prediction_interval(VALUES[:3]) is not None
    assert prediction_interval(VALUES[:2]) is None
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


def test_the_runs_needed_of_unpaired_runs_are_of_each_kind() -> None:
    first, second = [0.81, 0.79, 0.80, 0.83], [0.80, 0.79, 0.801]
    found = welch_difference(first, second)
    assert found.needed is not None

    def half(runs: int) -> float:
        errors = [np.var(values, ddof=1) / runs for values in (first, second)]
        freedom = sum(errors) ** 2 / sum(error**2 / (runs - 1) for error in errors)
        return float(stats.t.ppf(0.975, freedom) * np.sqrt(sum(errors)))

    assert half(found.needed) < found.mean <= half(found.needed - 1)


def test_the_sampling_error_is_binomial() -> None:
    assert sampling_error(0.8075, 10_000) == pytest.approx(0.00773, abs=5e-6)


def samples_of(right: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The accuracy of each run, (runs, images) of whether it was right, in each sample of images."""
    return right @ weights.T / right.shape[1]


def test_other_images_add_the_standard_error_of_a_paired_difference() -> None:
    """Runs without scatter of their own leave that of the images: two classifiers' difference on the same images."""
    right = np.random.default_rng(3).random((2, 2000)) < np.array([[0.8], [0.75]])
    first, second = (samples_of(np.stack([row] * 3), image_weights(2000)) for row in right)
    difference = right[0].astype(float) - right[1]
    low, high = for_other_images(mean_estimate([difference.mean()] * 3), first, second)  # type: ignore[misc]
    half = 1.96 * difference.std() / 2000**0.5
    assert (low, high) == pytest.approx((difference.mean() - half, difference.mean() + half), abs=0.05 * half)


def test_an_interval_for_other_images_is_never_narrower_than_that_of_the_runs() -> None:
    estimate = mean_estimate([0.01, 0.03])
    alike = np.full((2, RESAMPLES), 0.8)
    assert for_other_images(estimate, alike + 0.02, alike) == pytest.approx((estimate.low, estimate.high))
    assert for_other_images(mean_estimate([0.01]), alike[:1], alike[:1]) is None


def test_it_holds_95_percent_of_the_differences_on_other_images_with_other_seeds() -> None:
    """200 experiments of five pairs of runs on 400 images, whose true difference is three points: no fewer, nor all."""
    random, weights = np.random.default_rng(5), image_weights(400)
    inside = []
    for _ in range(200):
        ease, seeds = random.uniform(0.4, 0.9, 400), random.normal([[0.03], [0.0]], 0.015, (2, 5))
        right = random.random((2, 5, 400)) < ease + seeds[..., None]
        differences = right[0].mean(axis=1) - right[1].mean(axis=1)
        ends = for_other_images(mean_estimate(list(differences)), *(samples_of(runs, weights) for runs in right))
        assert ends is not None
        inside.append(ends[0] <= 0.03 <= ends[1])
    assert 0.93 <= np.mean(inside) <= 0.995
