"""The rule of early stopping and of the learning rate: Keras's own callbacks on the same losses."""

import json
import os
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest

from stages.common.config import load
from stages.common.files import read_rows
from stages.keras_cnn import backend
from stages.train_keras_cnn import Parameters
from stages.training.plateau import Plateau
from tests.support.stage_runs import ROOT

# Keras's conversion of a TensorFlow tensor to NumPy; nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

FALLS_THEN_RISES = [2.0, 1.5, 1.2, *[1.3 + 0.01 * step for step in range(30)]]
BY_LESS_THAN_MIN_DELTA = [1.0 - 0.00005 * step for step in range(12)]  # counts for early stopping, not for the rate
UP_AND_DOWN = [2.0, 1.9, 2.1, 2.2, 1.8, 1.9, 1.9, 1.9, 1.7, *[1.75] * 5, 1.6, *[1.65] * 10]


def settings(stopping: int | None, slowing: int | None, factor: float = 0.5, lowest: float = 1e-5) -> Any:
    return SimpleNamespace(
        early_stopping_patience=stopping,
        reduce_lr_patience=slowing,
        reduce_lr_factor=factor,
        min_learning_rate=lowest,
    )


def ours(given: Any, losses: list[float], rate: float = 0.01) -> tuple[list[float], int]:
    """The learning rate of each epoch that runs, and the best epoch; interrupted after each epoch."""
    plateau, rates = Plateau(given), []
    for epoch, loss in enumerate(losses, start=1):
        if plateau.stops_before(epoch):
            break
        rates.append(rate)
        if plateau.is_best(epoch, loss):
            plateau.best_weights = [epoch]
        rate = plateau.next_rate(rate, loss)
        resumed = Plateau(given)
        resumed.resume(json.loads(json.dumps(plateau.state())), plateau.best_weights)
        plateau = resumed
    assert plateau.best_weights == (None if given.early_stopping_patience is None else [plateau.best_epoch])
    return rates, plateau.best_epoch


@pytest.fixture(scope="module")
def model() -> Any:
    with mock.patch.dict(os.environ):
        keras = backend.start("tensorflow", "cpu")
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])


def keras_own(model: Any, given: Any, losses: list[float]) -> tuple[list[float], int]:
    """The same by Keras's callbacks."""
    import keras

    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.stop_training = False
    stopping = keras.callbacks.EarlyStopping(
        "val_loss", patience=given.early_stopping_patience or 1000, restore_best_weights=True
    )
    slowing = keras.callbacks.ReduceLROnPlateau(
        "val_loss",
        factor=given.reduce_lr_factor,
        patience=given.reduce_lr_patience or 1000,
        min_lr=given.min_learning_rate,
    )
    for callback in (stopping, slowing):
        callback.set_model(model)
        callback.on_train_begin()
    rates: list[float] = []
    for epoch, loss in enumerate(losses):
        rates.append(float(model.optimizer.learning_rate))
        for callback in (stopping, slowing):
            callback.on_epoch_end(epoch, {"val_loss": loss})
        if model.stop_training:
            break
    return rates, stopping.best_epoch + 1 if given.early_stopping_patience else len(rates)


@pytest.mark.parametrize(
    ("losses", "given"),
    [
        (FALLS_THEN_RISES, settings(10, 5)),
        (FALLS_THEN_RISES, settings(None, 2)),
        (FALLS_THEN_RISES, settings(1, 1)),
        (FALLS_THEN_RISES, settings(20, 1, lowest=0.004)),
        (FALLS_THEN_RISES, settings(20, 1, lowest=0.5)),
        (BY_LESS_THAN_MIN_DELTA, settings(2, 3)),
        (UP_AND_DOWN, settings(6, 2, factor=0.1)),
        (UP_AND_DOWN, settings(3, None)),
    ],
)
def test_follows_keras(model: Any, losses: list[float], given: Any) -> None:
    rates, best = ours(given, losses)
    expected, expected_best = keras_own(model, given, losses)
    assert rates == pytest.approx(expected, rel=1e-5)  # Keras's are float32
    assert best == expected_best


def test_follows_keras_on_random_walks(model: Any) -> None:
    """50 curves of up to 30 epochs, in float32 like Keras's losses."""
    rng = np.random.default_rng(0)
    stopped = slowed = 0
    for _ in range(50):
        losses = (2 + rng.normal(-0.01, 0.1, 30).cumsum()).astype(np.float32).tolist()
        patience = int(rng.integers(3, 20)), int(rng.integers(1, 6))
        given = settings(*patience, float(rng.choice([0.1, 0.5, 0.7])), float(rng.choice([1e-5, 1e-4, 1e-3])))
        rates, best = ours(given, losses)
        expected, expected_best = keras_own(model, given, losses)
        assert rates == pytest.approx(expected, rel=1e-5)
        assert best == expected_best
        stopped += len(rates) < 30
        slowed += len(set(rates)) > 2
    assert stopped > 10  # or the walks would show nothing
    assert slowed > 10


def test_stops_keeps_and_slows_by_hand() -> None:
    """Otherwise two rules that do nothing would agree too."""
    assert ours(settings(10, 5), FALLS_THEN_RISES, rate=0.001) == ([0.001] * 8 + [0.0005] * 5, 3)
    assert ours(settings(3, None), [1.0] * 9) == ([0.01] * 4, 1)  # an equal loss is no better one


def test_without_validation_every_epoch_runs_and_the_last_is_kept() -> None:
    plateau = Plateau(settings(1, 1))
    for epoch in (1, 2, 3, 4):
        assert not plateau.stops_before(epoch)
        assert not plateau.is_best(epoch, None)
        assert plateau.next_rate(0.01, None) == 0.01
    assert plateau.best_epoch == 4


def test_on_the_papers_own_curve_the_rate_halves_for_epoch_50_which_is_kept() -> None:
    """Figure 1's validation losses give Figure 1's learning rates, and the epoch whose 0.8075 is printed."""
    rows = read_rows(ROOT / "data/paper/figure1_keras_cnn.csv")
    printed, losses = ([float(row[name]) for row in rows] for name in ("learning_rate", "val_loss"))
    given = load(Parameters, ROOT / "params.yaml").keras_cnn
    assert ours(given, losses, rate=given.learning_rate) == (printed, 50)
    assert printed == [0.001] * 49 + [0.0005]
