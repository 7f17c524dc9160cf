"""What a few runs say: where one more run would lie, and how far two configurations are apart.

All intervals are two-sided 95 % intervals. Those over runs are of Student's t distribution, which holds for few runs
whose results scatter about normally. They say nothing about other images, because every run is scored on the same test
set; `for_other_images` does.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import mean, stdev, variance
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtri, stdtrit  # quantiles; scipy.stats takes half a second to import

LEVEL = 0.95
FEWEST = 3  # runs that a prediction interval, and seeds that a verdict, may rest on
NORMAL = float(ndtri((1 + LEVEL) / 2))  # half the interval of a normal distribution, in standard deviations
MOST_RUNS = 1000  # that `runs_needed` looks at
RESAMPLES = 2000


class Estimate(NamedTuple):
    """A mean with its interval; `low` and `high` are None where too few runs were made to know any."""

    mean: float
    low: float | None
    high: float | None
    runs: int  # or pairs of runs
    needed: int | None  # runs (or pairs) with which the interval would leave out 0, if mean and scatter stayed


def prediction_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Where one more run would lie: mean ± t(n - 1) · s · sqrt(1 + 1/n) (Hahn and Meeker, 1991, section 4.7).

    Args:
        values: One result for each of n runs with different seeds.

    Returns:
        The two ends, or None for fewer than FEWEST runs: that of two reaches 11 times their distance to either side.
    """
    if len(values) < FEWEST:
        return None
    half = _quantile(len(values) - 1) * stdev(values) * math.sqrt(1 + 1 / len(values))
    return mean(values) - half, mean(values) + half


def mean_estimate(values: Sequence[float]) -> Estimate:
    """The mean of several runs' values: mean ± t(n - 1) · s / sqrt(n).

    Raises:
        ValueError: There is no value.
    """
    count = len(values)
    if not count:
        raise ValueError("no runs")
    if count < 2:
        return Estimate(values[0], None, None, count, None)
    spread = stdev(values)
    half = _quantile(count - 1) * spread / math.sqrt(count)
    needed = _first(lambda runs: _quantile(runs - 1) * spread / math.sqrt(runs), abs(mean(values)))
    return Estimate(mean(values), mean(values) - half, mean(values) + half, count, needed)


def paired_difference(first: Mapping[Any, float], second: Mapping[Any, float]) -> Estimate:
    """The mean difference, `first` less `second`, of runs that share something, such as their seed.

    Args:
        first: A result for each key; only keys that both have count.
        second: Likewise.

    Raises:
        ValueError: No key is in both.
    """
    return mean_estimate([first[key] - second[key] for key in first if key in second])


def welch_difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """The difference of the means of two sets of runs that do not pair (Welch, 1947: unequal variances).

    Raises:
        ValueError: One of them is empty.
    """
    if not (first and second):
        raise ValueError("no runs")
    difference, fewer = mean(first) - mean(second), min(len(first), len(second))
    if fewer < 2:
        return Estimate(difference, None, None, fewer, None)
    parts = [variance(values) for values in (first, second)]

    def half(sizes: tuple[int, int]) -> float:
        errors = [part / size for part, size in zip(parts, sizes, strict=True)]
        if not sum(errors):
            return 0.0
        freedom = sum(errors) ** 2 / sum(error**2 / (size - 1) for error, size in zip(errors, sizes, strict=True))
        return _quantile(freedom) * math.sqrt(sum(errors))

    now = half((len(first), len(second)))
    needed = _first(lambda runs: half((runs, runs)), abs(difference))
    return Estimate(difference, difference - now, difference + now, fewer, needed)


def sampling_error(share: float, images: int) -> float:
    """Half the interval of a share of images, for other images of the same kind (binomial, normal approximation)."""
    return NORMAL * math.sqrt(share * (1 - share) / images)


def image_weights(images: int) -> np.ndarray:
    """How often each image is drawn in each bootstrap sample: (RESAMPLES, images), always the same numbers."""
    random = np.random.default_rng(0)
    samples = (np.bincount(random.integers(images, size=images), minlength=images) for _ in range(RESAMPLES))
    return np.stack([*samples]).astype(np.float64)


def for_other_images(estimate: Estimate, first: np.ndarray, second: np.ndarray) -> tuple[float, float] | None:
    """The interval of a difference of two configurations for other seeds and other images.

    The scatter of the runs and that of the images are independent errors, so their half widths add up in squares. For
    the runs it is Student's t. For the images it is 1.96 bootstrap standard errors (Efron and Tibshirani, 1993, chapter
    6); each sample draws the same images for all runs. To draw the runs as well would be too narrow: with few runs, a
    bootstrap underestimates their scatter.

    Args:
        estimate: The difference of the same runs, `first` less `second`.
        first: A number of each run in each sample of `image_weights`: (runs, RESAMPLES).
        second: Likewise.

    Returns:
        The two ends, or None where the runs have no interval.
    """
    if estimate.low is None:
        return None
    of_images = NORMAL * float(np.std(first.mean(axis=0) - second.mean(axis=0), ddof=1))
    half = math.hypot(estimate.mean - estimate.low, of_images)
    return estimate.mean - half, estimate.mean + half


def _quantile(freedom: float) -> float:
    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def _first(half_width: Callable[[int], float], below: float) -> int | None:
    """The smallest number of runs whose half width is below a limit; None where that takes too many."""
    low, high = 2, MOST_RUNS
    if half_width(high) >= below:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if half_width(middle) < below else (middle + 1, high)
    return low
