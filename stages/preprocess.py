"""From the pickled batches to arrays: restricted unpickling, checks, and the statistics of the training images.

Reads no parameter: the files themselves show whether the data is CIFAR-10 or synthetic, so that a label further down
the pipeline cannot be wrong. The files count as CIFAR-10 only if every SHA-256 sum is the official one, and that is
checked before anything is unpickled.

The per-channel mean and standard deviation are those of all training pixels: for CIFAR-10 (0.4914, 0.4822, 0.4465) and
(0.2470, 0.2435, 0.2616). The widely copied standard deviation (0.2023, 0.1994, 0.2010), which the paper's code uses
too, is another quantity: the average over the images of each image's own deviation.
"""

import io
from pathlib import Path

import numpy as np

from stages.cifar10.batches import AGAIN, CLASS_COUNT, IMAGE_SHAPE, Batch, identify, read_batch, read_classes
from stages.cifar10.official import META, TEST_BATCH, TRAIN_BATCHES
from stages.common.errors import ExpectedError
from stages.common.files import write_json
from stages.common.paths import DATASET, PROCESSED, RAW, SAMPLES
from stages.common.process import run_stage

CIFAR10_TRAIN_IMAGES, CIFAR10_TEST_IMAGES = 50_000, 10_000
SAMPLE_TRAIN_IMAGES, SAMPLE_TEST_IMAGES = 25, 10  # the 5x5 grid of samples, the ten sample predictions


def main() -> None:
    source = identify(RAW)
    classes = read_classes(RAW / META)
    train = join([read_batch(RAW / name, source) for name in TRAIN_BATCHES])
    test = join([read_batch(RAW / TEST_BATCH, source)])
    check_counts(train.labels, test.labels, source)
    mean, std = channel_statistics(train.images)

    PROCESSED.mkdir(parents=True, exist_ok=True)
    save(PROCESSED / "train_images.npy", train.images)
    save(PROCESSED / "train_labels.npy", train.labels)
    save(PROCESSED / "test_images.npy", test.images)
    save(PROCESSED / "test_labels.npy", test.labels)
    write_json(
        DATASET,
        {
            "source": source,
            "classes": classes,
            "train_images": len(train.labels),
            "test_images": len(test.labels),
            "images_per_class": (len(train.labels) + len(test.labels)) // CLASS_COUNT,
            "image_shape": list(IMAGE_SHAPE),
            "mean": [round(value, 6) for value in mean],
            "std": [round(value, 6) for value in std],
        },
    )
    # The first ones, so that nobody picked them.
    np.savez_compressed(
        SAMPLES,
        train_images=train.images[:SAMPLE_TRAIN_IMAGES],
        train_labels=train.labels[:SAMPLE_TRAIN_IMAGES],
        test_images=test.images[:SAMPLE_TEST_IMAGES],
        test_labels=test.labels[:SAMPLE_TEST_IMAGES],
    )


def join(batches: list[Batch]) -> Batch:
    """The batches one after another, in memory order (the order in which they are saved)."""
    images = np.concatenate([batch.images for batch in batches])
    return Batch(np.ascontiguousarray(images), np.concatenate([batch.labels for batch in batches]))


def check_counts(train_labels: np.ndarray, test_labels: np.ndarray, source: str) -> None:
    """Every class has as many images as the others; CIFAR-10 has 50,000 + 10,000 images.

    Raises:
        ExpectedError: It is not so.
    """
    if source == "cifar10" and (len(train_labels), len(test_labels)) != (CIFAR10_TRAIN_IMAGES, CIFAR10_TEST_IMAGES):
        raise ExpectedError(
            f"{RAW}: {len(train_labels)} + {len(test_labels)} images instead of "
            f"{CIFAR10_TRAIN_IMAGES} + {CIFAR10_TEST_IMAGES}; {AGAIN}"
        )
    for part, labels in (("training", train_labels), ("test", test_labels)):
        counts = np.bincount(labels, minlength=CLASS_COUNT)
        if np.any(counts != len(labels) / CLASS_COUNT):
            raise ExpectedError(
                f"{RAW}: the {part} images of the classes are not equally many: {counts.tolist()}; {AGAIN}"
            )


def channel_statistics(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation (of the population) of each channel, pixels scaled to [0, 1].

    Computed from the histogram of the 256 values, whose sums are exact: in float32 the sum of 51 million pixels is not.

    Args:
        images: uint8 of shape (N, 32, 32, 3).

    Returns:
        Three means and three standard deviations.
    """
    values = np.arange(256) / 255
    means, deviations = [], []
    for channel in range(images.shape[-1]):
        histogram = np.zeros(256, dtype=np.int64)
        # Part by part, because bincount makes 8 bytes of each pixel.
        for part in np.array_split(images, len(images) // 5_000 + 1):
            histogram += np.bincount(part[..., channel].ravel(), minlength=256)
        share = histogram / histogram.sum()
        mean = float(share @ values)
        means.append(mean)
        deviations.append(float(np.sqrt(share @ (values - mean) ** 2)))
    return means, deviations


def save(path: Path, array: np.ndarray) -> None:
    """Write an `.npy` file through memory: np.save straight to a full disk raises an error without its errno."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    path.write_bytes(buffer.getbuffer())


if __name__ == "__main__":
    run_stage("preprocess", main)
