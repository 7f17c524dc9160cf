"""What only Keras's TensorFlow backend can do, to train the same network faster.

Where a convolution, a batch norm, a max pooling of 2x2 pixels and a dropout follow one another, TensorFlow makes dozens
of passes over their arrays, forward and backward, that take more than half of a step. Here they are one layer: the
sums of its batch norm are matrix products, and the rest is two functions that XLA compiles. The values and gradients
are Keras's, but for the order of sums, and so are the random numbers. (XLA cannot take the whole step: its
convolutions for processors are five times slower than TensorFlow's.)
"""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

STEPS_AT_ONCE = 25  # of training that TensorFlow executes without coming back to Python; it changes no result
FUSED = [keras.layers.Conv2D, keras.layers.BatchNormalization, keras.layers.MaxPooling2D, keras.layers.Dropout]
Arrays = tuple[np.ndarray, np.ndarray]


def fused(model: Any) -> Any:
    """A `keras.Sequential` that computes what the given one does, with its layers and weights, not copies of them."""
    layers, left = [keras.Input(model.input_shape[1:])], list(model.layers)
    while left:
        if [type(layer) for layer in left[:4]] == FUSED and left[2].pool_size == (2, 2):
            layers.append(Block(*left[:4]))
            del left[:4]
        else:
            layers.append(left.pop(0))
    return keras.Sequential(layers, name=model.name)


def dataset(batches: Callable[[], Iterator[Arrays]], steps: int) -> tf.data.Dataset:
    """Inputs and one-hot labels, float32, as Keras's `fit` and `evaluate` take them fastest.

    Args:
        batches: Called once for each pass: an iterator over uint8 images (B, 32, 32, 3) and labels (B,), which are a
            quarter of what their float32 inputs would be to hand over.
        steps: How many batches it has.
    """
    signature = tuple(tf.TensorSpec(shape, tf.uint8) for shape in ((None, 32, 32, 3), (None,)))
    data = tf.data.Dataset.from_generator(batches, output_signature=signature)
    data = data.map(lambda images, labels: (tf.cast(images, tf.float32) / 255, tf.one_hot(labels, 10)))
    data = data.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(2)
    options = tf.data.Options()
    options.autotune.enabled = False  # the end of each pass would wait for its thread, up to five seconds
    return data.with_options(options)


class Block(keras.layers.Layer):
    """A convolution with ReLU, a batch norm, a max pooling of 2x2 pixels and a dropout in one.

    It trains the layers that it is given.
    """

    def __init__(self, convolution: Any, normalisation: Any, pooling: Any, dropout: Any) -> None:
        super().__init__()
        self.parts = [convolution, normalisation, pooling, dropout]

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Float32 (N, height, width, channels), both sides even, to (N, height / 2, width / 2, filters)."""
        convolution, normalisation, pooling, dropout = self.parts
        if not training:
            return pooling(normalisation(convolution(inputs), training=False))
        shape = tf.shape(inputs)
        shape = (shape[0], shape[1] // 2, shape[2] // 2, convolution.filters)

        @tf.custom_gradient
        def layer(linear: Any, gamma: Any, beta: Any) -> Any:
            maps = tf.nn.relu(linear)
            uniform = tf.ones(shape, maps.dtype)  # nothing is dropped
            if dropout.rate:  # Keras's dropout draws the same numbers
                uniform = tf.random.stateless_uniform(shape, dropout.seed_generator.next(), dtype=maps.dtype)
            mean, variance = moments(maps)
            constants = (tf.constant(value, maps.dtype) for value in (dropout.rate, normalisation.epsilon))
            given = (mean, variance, uniform, *constants)
            pooled, outputs = _forward(maps, gamma, beta, *given)
            return (outputs, mean, variance), lambda gradient, *_: _backward(gradient, maps, pooled, gamma, *given)

        linear = tf.nn.bias_add(convolution.convolution_op(inputs, convolution.kernel), convolution.bias.value)
        outputs, mean, variance = layer(linear, normalisation.gamma.value, normalisation.beta.value)
        for moving, value in ((normalisation.moving_mean, mean), (normalisation.moving_variance, variance)):
            moving.assign(moving * normalisation.momentum + value * (1 - normalisation.momentum))
        return outputs


def moments(maps: Any) -> tuple[Any, Any]:
    """Mean and (biased) variance of each channel, (channels,) each, of maps (N, height, width, channels).

    The variance comes from squares of differences from the first image's mean: near enough to that of all for the
    difference of squares to keep its digits, and known before it.
    """
    shift = tf.reduce_mean(maps[0], [0, 1])
    mean = _mean(maps)
    variance = _mean(tf.math.squared_difference(maps, shift)) - tf.square(mean - shift)
    return mean, tf.maximum(variance, tf.zeros_like(variance))


def _mean(maps: Any) -> Any:
    """Of each channel: over the images by a matrix product with ones, TensorFlow's fastest sum, then over pixels."""
    count, height, width, channels = tf.unstack(tf.shape(maps))
    pixels = height * width
    totals = tf.ones((1, count), maps.dtype) @ tf.reshape(maps, (count, pixels * channels))
    return tf.reduce_sum(tf.reshape(totals, (pixels, channels)), 0) / tf.cast(count * pixels, maps.dtype)


@tf.function(jit_compile=True)
def _forward(
    maps: Any, gamma: Any, beta: Any, mean: Any, variance: Any, uniform: Any, rate: Any, epsilon: Any
) -> tuple[Any, Any]:
    """The largest of each four pixels after normalisation: before it, the smallest where its scale is negative."""
    a, b, c, d = _quarters(maps)
    largest = tf.maximum(tf.maximum(a, b), tf.maximum(c, d))
    smallest = tf.minimum(tf.minimum(a, b), tf.minimum(c, d))
    pooled = tf.where(gamma >= 0, largest, smallest)
    normalised = (pooled - mean) * (gamma * tf.math.rsqrt(variance + epsilon)) + beta
    return pooled, tf.where(uniform >= rate, normalised / (1 - rate), tf.zeros_like(normalised))


@tf.function(jit_compile=True)
def _backward(
    gradient: Any,
    maps: Any,
    pooled: Any,
    gamma: Any,
    mean: Any,
    variance: Any,
    uniform: Any,
    rate: Any,
    epsilon: Any,
) -> tuple[Any, Any, Any]:
    """The gradients of the maps, gamma and beta (Ioffe and Szegedy, 2015, section 3), given that of the outputs."""
    count = tf.cast(tf.size(maps) // maps.shape[-1], maps.dtype)
    inverse = tf.math.rsqrt(variance + epsilon)
    gradient = tf.where(uniform >= rate, gradient / (1 - rate), tf.zeros_like(gradient))
    of_beta = tf.reduce_sum(gradient, [0, 1, 2])
    of_gamma = tf.reduce_sum(gradient * (pooled - mean), [0, 1, 2]) * inverse
    # Through the mean and the variance, every pixel takes a share that is linear in its value.
    slope = -gamma * tf.square(inverse) * of_gamma / count
    shift = -gamma * inverse * of_beta / count - slope * mean
    scaled = gamma * inverse * gradient

    quarters, taken = [], tf.zeros_like(gradient, tf.bool)
    for quarter in _quarters(maps):
        largest = (quarter == pooled) & ~taken  # of equal pixels the first one, as max pooling has it
        taken |= largest
        of_map = tf.where(largest, scaled, tf.zeros_like(scaled)) + shift + slope * quarter
        quarters.append(tf.where(quarter > 0, of_map, tf.zeros_like(of_map)))  # ReLU's gradient
    rows = [tf.stack(quarters[:2], 3), tf.stack(quarters[2:], 3)]
    return tf.reshape(tf.stack(rows, 2), tf.shape(maps)), of_gamma, of_beta


def _quarters(maps: Any) -> list[Any]:
    """The four pixels of each square of four, a map for each: top left, top right, bottom left, bottom right."""
    return [maps[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
