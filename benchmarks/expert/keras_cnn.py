"""The Keras CNN as an expert trains it with Keras's own means: `fit` on a cached tf.data pipeline, 25 steps a call.

The images are cached as uint8, shuffled, and converted a batch at a time, while the batch before is trained on. The
network and its optimiser are the notebook's; it runs once as TensorFlow's graph and once compiled by XLA.
"""

from typing import Any

import numpy as np

from benchmarks.notebook import keras_cnn as notebook

Json = dict[str, Any]
STEPS_PER_EXECUTION = 25


def start(images: np.ndarray, labels: np.ndarray, batch_size: int, device: str) -> tuple[Json, Json]:
    """Functions that train and report to a log, by their form, and what must be the same in ours; on the CPU alone."""
    keras = notebook.start_keras(device)
    import tensorflow as tf

    data = (
        tf.data.Dataset.from_tensor_slices((images, labels))
        .cache()
        .shuffle(len(labels))
        .repeat()
        .batch(batch_size, drop_remainder=True)
        .map(lambda x, y: (tf.cast(x, "float32") / 255.0, y), num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )

    def form(jit_compile: bool) -> tuple[Any, Any]:
        model = notebook.build(keras)
        model.compile(
            optimizer=keras.optimizers.Adam(),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
            steps_per_execution=STEPS_PER_EXECUTION,
            jit_compile=jit_compile,
        )

        def train(order: np.ndarray, log: Any) -> None:
            steps = len(order) // batch_size
            model.fit(data, steps_per_epoch=steps, epochs=1, verbose=0, callbacks=[notebook.stamps(keras, log)])

        return model, train

    (model, graph), (_, xla) = form(jit_compile=False), form(jit_compile=True)
    return {"graph": graph, "XLA": xla}, notebook.settings(keras, model, device)
