"""The Keras CNN's architecture, layer by layer as the paper's notebook built it."""

import os
from typing import Any
from unittest import mock

import numpy as np
import pytest

from stages.keras_cnn import architecture as keras_cnn
from stages.keras_cnn import backend as keras_backend

PAPER = ([32, 64, 128], 3, 128, [0.3, 0.4, 0.5, 0.5])


@pytest.fixture(scope="module")
def keras() -> Any:
    """Keras on TensorFlow; starting it sets environment variables, which are put back."""
    with mock.patch.dict(os.environ):
        module = keras_backend.start("tensorflow", "cpu")
    module.utils.set_random_seed(7)  # with deterministic operations, TensorFlow refuses to draw without a seed
    return module


@pytest.fixture(scope="module")
def model(keras: Any) -> Any:
    return keras_cnn.build(*PAPER)


def test_has_the_papers_number_of_weights(model: Any) -> None:
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    fixed = sum(int(np.prod(weight.shape)) for weight in model.non_trainable_weights if "seed" not in weight.path)
    assert (model.count_params(), trainable, fixed) == (358_218, 357_514, 704)


def test_is_the_papers_network_layer_by_layer(model: Any) -> None:
    assert model.input_shape == (None, 32, 32, 3)
    assert [(type(layer).__name__, layer.output.shape[1:]) for layer in model.layers] == [
        ("Conv2D", (32, 32, 32)),
        ("BatchNormalization", (32, 32, 32)),
        ("MaxPooling2D", (16, 16, 32)),
        ("Dropout", (16, 16, 32)),
        ("Conv2D", (16, 16, 64)),
        ("BatchNormalization", (16, 16, 64)),
        ("MaxPooling2D", (8, 8, 64)),
        ("Dropout", (8, 8, 64)),
        ("Conv2D", (8, 8, 128)),
        ("BatchNormalization", (8, 8, 128)),
        ("MaxPooling2D", (4, 4, 128)),
        ("Dropout", (4, 4, 128)),
        ("Flatten", (2048,)),
        ("Dense", (128,)),
        ("BatchNormalization", (128,)),
        ("Dropout", (128,)),
        ("Dense", (10,)),
    ]


def test_each_layer_is_set_as_in_the_notebook(model: Any) -> None:
    """The notebook set nothing else. These of Keras's defaults change the numbers."""
    for layer in model.layers:
        kind, settings = type(layer).__name__, layer.get_config()
        if kind == "Conv2D":
            assert (settings["kernel_size"], settings["strides"], settings["padding"]) == ((3, 3), (1, 1), "same")
            assert (settings["activation"], settings["use_bias"]) == ("relu", True)
            assert settings["kernel_initializer"]["class_name"] == "GlorotUniform"
            assert settings["kernel_regularizer"] is None
        elif kind == "MaxPooling2D":
            assert (settings["pool_size"], settings["strides"], settings["padding"]) == ((2, 2), (2, 2), "valid")
        elif kind == "BatchNormalization":
            assert (settings["momentum"], settings["epsilon"]) == (0.99, 0.001)
            assert settings["center"]
            assert settings["scale"]
    assert [layer.rate for layer in model.layers if type(layer).__name__ == "Dropout"] == [0.3, 0.4, 0.5, 0.5]
    dense = [layer.get_config()["activation"] for layer in model.layers if type(layer).__name__ == "Dense"]
    assert dense == ["relu", "softmax"]


def test_gives_probabilities(model: Any) -> None:
    probabilities = model.predict(np.random.default_rng(0).random((5, 32, 32, 3), dtype=np.float32), verbose=0)
    assert (probabilities.shape, probabilities.dtype) == ((5, 10), np.float32)
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert probabilities.min() >= 0


def test_every_part_is_a_parameter(keras: Any) -> None:
    model = keras_cnn.build([4, 8], 5, 16, [0.1, 0.2, 0.25])
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds.count("Conv2D") == 2
    assert [layer.filters for layer in model.layers if type(layer).__name__ == "Conv2D"] == [4, 8]
    assert model.layers[0].kernel_size == (5, 5)
    assert [layer.rate for layer in model.layers if type(layer).__name__ == "Dropout"] == [0.1, 0.2, 0.25]
    assert model.layers[-1].units == 10
    assert model.layers[-4].units == 16


def test_a_block_may_have_several_convolutions_each_with_its_batch_norm(keras: Any) -> None:
    model = keras_cnn.build([4, 8], 3, 16, [0.1, 0.2, 0.3], convolutions_per_block=2)
    kinds = [type(layer).__name__ for layer in model.layers]
    block = ["Conv2D", "BatchNormalization"] * 2 + ["MaxPooling2D", "Dropout"]
    assert kinds[:12] == block * 2
    assert [layer.filters for layer in model.layers if type(layer).__name__ == "Conv2D"] == [4, 4, 8, 8]


def test_one_rate_too_few_is_a_bug_that_shows(keras: Any) -> None:
    with pytest.raises(ValueError, match="zip"):
        keras_cnn.build([4, 8], 3, 16, [0.1, 0.2])


def test_five_blocks_still_fit_an_image_of_32_pixels(keras: Any) -> None:
    """32, 16, 8, 4, 2, 1: the schema's limit of five blocks."""
    assert keras_cnn.build([2] * 5, 3, 4, [0.1] * 6).output_shape == (None, 10)


def test_input_is_the_notebooks_division_by_255() -> None:
    pixels = np.arange(256, dtype=np.uint8).repeat(12).reshape(1, 32, 32, 3)
    ours = keras_cnn.to_input(pixels)
    assert (ours.dtype, ours.shape) == (np.float32, pixels.shape)
    assert np.array_equal(ours, pixels.astype("float32") / 255)
    assert (ours.min(), ours.max()) == (0, 1)
