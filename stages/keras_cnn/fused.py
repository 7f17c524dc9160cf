"""What only Keras's TensorFlow backend can do, to train the same network faster.

Where a convolution, a batch norm, a max pooling of 2x2 pixels and a dropout follow one another, TensorFlow makes dozens
of passes over their arrays, forward and backward, that take more than half of a step. Here they are one layer: the
sums of its batch norm are matrix products, and the rest is two functions that XLA compiles. The values and gradients
are Keras's, but for the order of sums and the dropout's random numbers: these come from a counter and a key alone, so
that no array of them is drawn, kept or read. (XLA cannot take the whole step: its convolutions for processors are five
times slower than TensorFlow's.)
"""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

STEPS_AT_ONCE = 25  # of training that TensorFlow executes without returning to Python; it changes no result
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


def dataset(batches: Callable[[int], Iterator[Arrays]], batch_size: int, steps: int) -> tf.data.Dataset:
    """Inputs and one-hot labels, float32, as Keras's `fit` and `evaluate` take them fastest.

    Args:
        batches: Called once for each pass, with a number B of images: an iterator over uint8 images (B, 32, 32, 3) and
            labels (B,), which are a quarter of what their float32 inputs would be to hand over. It is asked for many
            batches at once, since each time TensorFlow has to wait for Python.
        batch_size: How many images a step takes.
        steps: How many batches of that size there are.
    """
    signature = tuple(tf.TensorSpec(shape, tf.uint8) for shape in ((None, 32, 32, 3), (None,)))
    data = tf.data.Dataset.from_generator(lambda: batches(STEPS_AT_ONCE * batch_size), output_signature=signature)
    data = data.rebatch(batch_size)
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
        # Keras's layer has no generator where its rate is 0, and every number is at least 0.
        key = tf.cast(dropout.seed_generator.next() if dropout.rate else [0, 0], tf.uint32)

        @tf.custom_gradient
        def layer(linear: Any, gamma: Any, beta: Any) -> Any:
            maps = tf.nn.relu(linear)
            mean, variance = moments(maps)
            constants = (tf.constant(value, maps.dtype) for value in (dropout.rate, normalisation.epsilon))
            given = (mean, variance, key, *constants)
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
    maps: Any, gamma: Any, beta: Any, mean: Any, variance: Any, key: Any, rate: Any, epsilon: Any
) -> tuple[Any, Any]:
    """The largest of each four pixels after normalisation: before it, the smallest where its scale is negative."""
    a, b, c, d = _quarters(maps)
    largest = tf.maximum(tf.maximum(a, b), tf.maximum(c, d))
    smallest = tf.minimum(tf.minimum(a, b), tf.minimum(c, d))
    pooled = tf.where(gamma >= 0, largest, smallest)
    normalised = (pooled - mean) * (gamma * tf.math.rsqrt(variance + epsilon)) + beta
    kept = uniform(key, tf.shape(pooled), rate.dtype) >= rate
    return pooled, tf.where(kept, normalised / (1 - rate), tf.zeros_like(normalised))


@tf.function(jit_compile=True)
def _backward(
    gradient: Any,
    maps: Any,
    pooled: Any,
    gamma: Any,
    mean: Any,
    variance: Any,
    key: Any,
    rate: Any,
    epsilon: Any,
) -> tuple[Any, Any, Any]:
    """The gradients of the maps, gamma and beta (Ioffe and Szegedy, 2015, section 3), given that of the outputs."""
    count = tf.cast(tf.size(maps) // maps.shape[-1], maps.dtype)
    inverse = tf.math.rsqrt(variance + epsilon)
    kept = uniform(key, tf.shape(pooled), rate.dtype) >= rate  # as in _forward
    gradient = tf.where(kept, gradient / (1 - rate), tf.zeros_like(gradient))
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


def uniform(key: Any, shape: Any, dtype: Any) -> Any:
    """Uniform random numbers in [0, 1), of the given shape, each from its place and the key alone.

    Multiples of 2**-24, which float32 holds exactly.

    Args:
        key: uint32 (2,).
        shape: int32, of fewer than 2**32 elements in all.
        dtype: A float type.
    """
    place = tf.cast(tf.reshape(tf.range(tf.reduce_prod(shape)), shape), tf.uint32)
    bits, _ = threefry(key[0], key[1], place, tf.zeros_like(place))
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32)), dtype) * 2.0**-24


def threefry(key_0: Any, key_1: Any, count_0: Any, count_1: Any) -> tuple[Any, Any]:
    """Threefry-2x32 with 20 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

    Args:
        key_0: uint32, one number; the first word of the key.
        key_1: The second.
        count_0: uint32, of any shape; the first word of each counter.
        count_1: The second, of the same shape.

    Returns:
        The two random words of each counter, uint32 of that shape.
    """
    xor, left, right = tf.bitwise.bitwise_xor, tf.bitwise.left_shift, tf.bitwise.right_shift
    keys = (key_0, key_1, xor(xor(key_0, key_1), tf.constant(0x1BD11BDA, tf.uint32)))
    count_0, count_1 = count_0 + key_0, count_1 + key_1
    for group in range(5):
        for turn in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            count_0 += count_1
            turned = left(count_1, tf.constant(turn, tf.uint32)) | right(count_1, tf.constant(32 - turn, tf.uint32))
            count_1 = xor(turned, count_0)
        count_0 += keys[(group + 1) % 3]
        count_1 += keys[(group + 2) % 3] + tf.constant(group + 1, tf.uint32)
    return count_0, count_1


def _quarters(maps: Any) -> list[Any]:
    """The four pixels of each square of four, a map for each: top left, top right, bottom left, bottom right."""
    return [maps[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
