"""The paper's custom Keras CNN (sections 2.1 and 2.2; layer by layer as its notebook built it)."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def build(
    filters: Sequence[int],
    kernel_size: int,
    dense_units: int,
    dropout_rates: Sequence[float],
    convolutions_per_block: int = 1,
) -> Any:
    """The untrained network for 32x32 RGB images and ten classes.

    Args:
        filters: Output channels of each convolution block; the paper's are 32, 64, 128.
        kernel_size: Side of the square kernels, in pixels; the paper's is 3.
        dense_units: Width of the dense layer; the paper's is 128.
        dropout_rates: One rate for each block and one for the dense layer.
        convolutions_per_block: How many convolutions, each with its batch norm, precede a block's pooling and dropout;
            the notebook has one.

    Returns:
        A `keras.Sequential` that maps float (N, 32, 32, 3) in [0, 1] to probabilities (N, 10). With the paper's values
        it has 358,218 weights, 704 of them (the batch norms' statistics) not trained.
    """
    import keras
    from keras import layers

    model = keras.Sequential([keras.Input((32, 32, 3))], name="keras_cnn")
    for channels, rate in zip(filters, dropout_rates[:-1], strict=True):
        for _ in range(convolutions_per_block):
            model.add(layers.Conv2D(channels, kernel_size, padding="same", activation="relu"))
            model.add(layers.BatchNormalization())
        model.add(layers.MaxPooling2D(2))
        model.add(layers.Dropout(rate))
    model.add(layers.Flatten())
    model.add(layers.Dense(dense_units, activation="relu"))
    model.add(layers.BatchNormalization())
    model.add(layers.Dropout(dropout_rates[-1]))
    model.add(layers.Dense(10, activation="softmax"))
    return model


def to_input(images: np.ndarray) -> np.ndarray:
    """What the network takes, from uint8 images (N, 32, 32, 3): float32 in [0, 1], as the notebook's `/ 255`."""
    return images.astype(np.float32) / np.float32(255)
