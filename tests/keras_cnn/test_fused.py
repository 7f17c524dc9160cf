"""The fused layers train as Keras's own do: the same losses and weights, step by step."""

import functools
import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest

from stages import train_keras_cnn
from stages.common.config import load
from stages.keras_cnn import architecture as keras_cnn
from stages.keras_cnn import backend as keras_backend
from stages.train_keras_cnn import KerasCnn, Parameters
from stages.training.images import Images
from tests.support.stage_runs import ROOT, Steps

# Keras's conversion of a TensorFlow tensor to NumPy; nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STEPS, BATCH = 25, 8


@pytest.fixture(scope="module")
def keras() -> Any:
    with mock.patch.dict(os.environ):
        return keras_backend.start("tensorflow", "cpu")


@pytest.fixture(scope="module")
def fast(keras: Any) -> ModuleType:
    """The module, imported when Keras knows its backend."""
    return importlib.import_module("stages.keras_cnn.fused")


@pytest.fixture
def exact(keras: Any, fast: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything in float64, one step at a time.

    In float32 a training is chaotic: what the order of a sum changes in the last digit has grown to a hundredth of the
    loss after 25 steps, as much as a learning rate that is 1 % off. In float64 it stays below a millionth of that.
    """

    def in_float64(_: Any, batches: Any, batch_size: int, steps: int) -> Any:
        return ((pixels / np.float64(255), np.eye(10)[labels]) for pixels, labels in batches(batch_size))

    monkeypatch.setattr(train_keras_cnn, "feed", in_float64)
    monkeypatch.setattr(fast, "STEPS_AT_ONCE", 1)
    for setting in (keras.config.set_floatx, keras.config.set_dtype_policy):
        setting("float64")
    yield
    for setting in (keras.config.set_floatx, keras.config.set_dtype_policy):
        setting("float32")


@pytest.fixture(autouse=True)
def same_numbers(keras: Any, fast: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras's own dropout after a pooling takes the numbers that the fused layer takes."""
    own = keras.layers.Dropout.call

    def call(layer: Any, inputs: Any, training: bool = False) -> Any:
        if not (training and layer.rate and len(inputs.shape) == 4):
            return own(layer, inputs, training=training)
        key = keras.ops.cast(layer.seed_generator.next(), "uint32")
        kept = fast.uniform(key, keras.ops.shape(inputs), inputs.dtype) >= layer.rate
        return keras.ops.where(kept, inputs / (1 - layer.rate), 0)

    monkeypatch.setattr(keras.layers.Dropout, "call", call)


def pictures() -> Images:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (STEPS * BATCH - 3, 32, 32, 3), dtype=np.uint8)  # the last batch is smaller
    pixels[::4, :16] = 255  # where an image is plain, neighbouring pixels of a map are equal
    return Images(pixels, rng.integers(0, 10, len(pixels), dtype=np.uint8))


def section(**changes: Any) -> KerasCnn:
    committed = load(Parameters, ROOT / "params.yaml").keras_cnn
    return committed.model_copy(update={"filters": [4, 6, 8], "dense_units": 8} | changes)


def trained(
    keras: Any, ours: bool, rates: tuple[float, ...] = (0.3, 0.4, 0.5, 0.5), negative: bool = False, **changes: Any
) -> tuple[list[float], list[np.ndarray], Any]:
    """The losses of the steps of one epoch, the weights after it, and the network, by our layers or by Keras's own."""
    given = section(**changes)
    keras.utils.set_random_seed(3)
    plain = train_keras_cnn.untrained_model(given, list(rates))
    if negative:
        for layer in plain.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.gamma.assign(np.linspace(-1, 1, layer.gamma.shape[0]))
    if ours:
        model = train_keras_cnn.compiled(keras, plain, given)
    else:
        model = plain
        adam = keras.optimizers.Adam(given.learning_rate)
        model.compile(adam, "categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    train_keras_cnn.reseed_dropout(model, 7, 1)
    images, log = pictures(), Steps()
    train_keras_cnn.train_epoch(keras, model, images, np.arange(len(images.labels)), BATCH, None, 1, log)
    return log.losses, plain.get_weights(), model


@functools.cache
def as_committed(keras: Any, ours: bool, exactly: bool) -> tuple[list[float], list[np.ndarray], Any]:
    """`trained` one step at a time, with nothing changed, once for all tests; those that use `exact` say so."""
    return trained(keras, ours)


def furthest(one: list[Any], other: list[Any]) -> float:
    """The largest difference of two lists of arrays, relative to the largest value of each array."""
    return max(np.abs(a - b).max() / np.abs(a).max() for a, b in zip(one, other, strict=True))


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="the paper's"),
        pytest.param({"negative": True}, id="negative scales"),
        pytest.param({"rates": (0.0, 0.2, 0.0, 0.0)}, id="no dropout"),
        pytest.param({"filters": [2, 2, 3, 3, 4], "rates": (0.1,) * 6}, id="five blocks"),
        pytest.param({"convolutions_per_block": 2}, id="two convolutions a block"),
    ],
)
def test_25_steps_give_keras_own_losses_and_weights(keras: Any, fast: ModuleType, changes: dict[str, Any]) -> None:
    losses, weights, _ = trained(keras, ours=False, **changes) if changes else as_committed(keras, False, exactly=True)
    our_losses, our_weights, model = trained(keras, ours=True, **changes)
    assert len(losses) == STEPS
    assert sum(isinstance(layer, fast.Block) for layer in model.layers) >= 3
    assert furthest(losses, our_losses) < 1e-12
    assert furthest(weights, our_weights) < 1e-9


@pytest.mark.usefixtures("exact")
def test_a_learning_rate_that_is_1_percent_off_lies_far_beyond_that_tolerance(keras: Any) -> None:
    losses, weights, _ = as_committed(keras, False, exactly=True)
    other_losses, other_weights, _ = trained(keras, ours=True, learning_rate=1.01e-3)
    assert furthest(losses[1:], other_losses[1:]) > 1e-4
    assert furthest(weights, other_weights) > 1e-3


def test_many_steps_at_once_are_as_many_steps(keras: Any, fast: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a smaller last batch, and without learning: 25 steps, ten or one at once."""
    results, told = [], []
    images = pictures()
    for many in (10, 1):
        monkeypatch.setattr(fast, "STEPS_AT_ONCE", many)
        losses, weights, model = trained(keras, ours=True) if many > 1 else as_committed(keras, True, exactly=False)
        told.append(len(losses))
        validation = train_keras_cnn.validate(keras, model, images, np.arange(len(images.labels)), BATCH)
        results.append([np.float64(losses[-1]), *weights, *np.float64(list((validation or {}).values()))])
    assert told == [3, STEPS]
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))


def test_first_steps_in_float32_are_keras_own_too(
    keras: Any, fast: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the stage trains, for as long as rounding has not grown."""
    monkeypatch.setattr(fast, "STEPS_AT_ONCE", 1)
    losses, _, _ = trained(keras, ours=False)
    our_losses, _, model = as_committed(keras, True, exactly=False)
    assert our_losses[0] == pytest.approx(losses[0], rel=1e-5)
    assert our_losses[:3] == pytest.approx(losses[:3], rel=1e-3)
    assert model.dtype == "float32"


def test_predicts_and_saves_as_the_network_whose_weights_it_shares(keras: Any, tmp_path: Path) -> None:
    images = pictures()
    keras.utils.set_random_seed(3)
    plain = train_keras_cnn.untrained_model(section(), [0.3, 0.4, 0.5, 0.5])
    model = train_keras_cnn.compiled(keras, plain, section())
    train_keras_cnn.train_epoch(keras, model, images, np.arange(64), 16, None, 1, Steps())
    inputs = images.pixels[:10].astype(np.float32) / 255
    expected = np.asarray(plain(inputs, training=False))
    assert np.array_equal(np.asarray(model(inputs, training=False)), expected)
    plain.save(tmp_path / "model.keras", include_optimizer=False)
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)  # Keras's own layers only
    assert np.array_equal(np.asarray(loaded(inputs, training=False)), expected)


@pytest.mark.parametrize(
    ("key", "count", "expected"),
    [  # published with the generator's reference implementation, Random123
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_the_random_words_are_threefrys(
    keras: Any, fast: ModuleType, key: tuple[int, int], count: tuple[int, int], expected: tuple[int, int]
) -> None:
    words = (keras.ops.convert_to_tensor(np.uint32(word)) for word in (*key, *count))
    assert tuple(int(word) for word in fast.threefry(*words)) == expected


def test_a_dropout_drops_its_share_and_others_at_each_step_and_layer(keras: Any, fast: ModuleType) -> None:
    kept = []
    for key in ((5, 0), (5, 1), (6, 0)):
        numbers = np.asarray(fast.uniform(keras.ops.convert_to_tensor(np.uint32(key)), (64, 16, 16, 32), "float32"))
        assert numbers.min() >= 0
        assert numbers.max() < 1
        kept.append(numbers >= 0.3)
    # 524,288 numbers: a standard deviation of 0.000 63 of a share of 0.7, and of agreement by chance at 0.58 0.000 68.
    assert [share.mean() for share in kept] == pytest.approx([0.7] * 3, abs=0.003)
    for one, other in ((0, 1), (0, 2)):
        assert (kept[one] == kept[other]).mean() == pytest.approx(0.58, abs=0.003)
    # Neighbours in any direction are as independent as others.
    for axis in range(4):
        shifted = np.roll(kept[0], 1, axis)
        assert (kept[0] == shifted).mean() == pytest.approx(0.58, abs=0.003)


def test_means_and_variances_are_right_far_from_zero(keras: Any, fast: ModuleType) -> None:
    """A difference of squares would keep no digit of this variance in float32, and could make it negative."""
    maps = (1000 + np.random.default_rng(0).normal(0, 0.1, (64, 8, 8, 3))).astype(np.float32)
    maps[..., 2] = 1000
    mean, variance = (np.asarray(value) for value in fast.moments(keras.ops.convert_to_tensor(maps)))
    assert mean == pytest.approx(maps.astype(np.float64).mean((0, 1, 2)), rel=5e-6)
    assert variance[:2] == pytest.approx(maps.astype(np.float64).var((0, 1, 2))[:2], rel=1e-2)
    assert 0 <= variance[2] < 1e-3


def test_a_dataset_is_the_networks_inputs_as_often_as_it_is_asked(fast: ModuleType) -> None:
    images = pictures()
    order = np.random.default_rng(0).permutation(20)
    data = fast.dataset(lambda size: train_keras_cnn.batches(images, order, size), 8, 3)
    assert int(data.cardinality()) == 3
    for _ in range(2):
        inputs, labels = (np.concatenate(parts) for parts in zip(*data.as_numpy_iterator(), strict=True))
        assert np.array_equal(inputs, keras_cnn.to_input(images.pixels[order]))
        assert np.array_equal(labels, np.eye(10, dtype=np.float32)[images.labels[order]])
