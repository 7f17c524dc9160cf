"""The Keras CNN as the paper's notebook trains it: plain Keras, `model.fit` on arrays, nothing set beyond that.

Written from the record of what the notebook ran, to compare speed with: the whole training set as float32 in memory,
one-hot labels, `fit` with its own shuffling. Its progress bar is left out (verbose=0), which favours it.
"""

import os
from typing import Any

import numpy as np

Json = dict[str, Any]


def start(images: np.ndarray, labels: np.ndarray, batch_size: int, device: str) -> tuple[Json, Json]:
    """A function that trains on some rows and reports each step to a log, and what must be the same in ours."""
    keras = start_keras(device)
    model = build(keras)
    model.compile(optimizer=keras.optimizers.Adam(), loss="categorical_crossentropy", metrics=["accuracy"])
    x = images.astype("float32") / 255.0
    y = keras.utils.to_categorical(labels, 10)

    def train(order: np.ndarray, log: Any) -> None:
        model.fit(x[order], y[order], batch_size=batch_size, epochs=1, verbose=0, callbacks=[stamps(keras, log)])

    return {"as it is": train}, settings(keras, model, device)


def start_keras(device: str) -> Any:
    """Keras on TensorFlow, or with device "cuda" on PyTorch, because TensorFlow's own wheel has no CUDA."""
    os.environ["KERAS_BACKEND"] = "tensorflow" if device == "cpu" else "torch"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import keras

    return keras


def stamps(keras: Any, log: Any) -> Any:
    """A callback that reports the steps to a log."""
    return keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda step, logs: log.step(step + 1, logs["loss"], logs["accuracy"])
    )


def settings(keras: Any, model: Any, device: str) -> Json:
    """What must be the same in all ways."""
    from stages.keras_cnn import backend as keras_backend

    return {
        "threads": keras_backend.threads("tensorflow" if device == "cpu" else "torch"),
        "weights": model.count_params(),
        "dropout": [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)],
        "augmentation": "none",
    }


def build(keras: Any) -> Any:
    """Three blocks of convolution, batch norm, pooling and dropout; a dense layer likewise; ten classes."""
    layers = keras.layers
    model = keras.Sequential([keras.Input((32, 32, 3))])
    for filters, rate in ((32, 0.3), (64, 0.4), (128, 0.5)):
        model.add(layers.Conv2D(filters, (3, 3), padding="same", activation="relu"))
        model.add(layers.BatchNormalization())
        model.add(layers.MaxPooling2D((2, 2)))
        model.add(layers.Dropout(rate))
    model.add(layers.Flatten())
    model.add(layers.Dense(128, activation="relu"))
    model.add(layers.BatchNormalization())
    model.add(layers.Dropout(0.5))
    model.add(layers.Dense(10, activation="softmax"))
    return model
