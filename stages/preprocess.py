"""From the pickled batches to arrays: restricted unpickling, checks, and the statistics of the training images.

Reads no parameter: whether the data is CIFAR-10 or the synthetic stand-in is seen in the files themselves, so that a
label further down the pipeline cannot be wrong. The files count as CIFAR-10 only where every SHA-256 sum is the
official one, and that is known before anything is unpickled.

The per-channel mean and standard deviation are those of all training pixels: for CIFAR-10 (0.4914, 0.4822, 0.4465) and
(0.2470, 0.2435, 0.2616). The widely copied standard deviation (0.2023, 0.1994, 0.2010), which the paper's code uses
too, is another quantity: the average over the images of each image's own deviation.
"""

import io
import pickle
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from stages.batch_files import (
    FOLDER,
    META,
    OFFICIAL_SHA256,
    SYNTHETIC_LABEL,
    TEST_BATCH,
    TRAIN_BATCHES,
    is_official,
)
from stages.errors import ExpectedError
from stages.files import write_json
from stages.running import run_stage

RAW = Path("data/raw") / FOLDER
PROCESSED = Path("data/processed")
DATASET = Path("metrics/dataset.json")
SAMPLES = Path("metrics/samples.npz")

IMAGE_SHAPE = (32, 32, 3)
CLASS_COUNT = 10
CIFAR10_TRAIN_IMAGES, CIFAR10_TEST_IMAGES = 50_000, 10_000
SAMPLE_TRAIN_IMAGES, SAMPLE_TEST_IMAGES = 25, 10  # the 5x5 grid of samples, the ten sample predictions


class Images(NamedTuple):
    """Images, uint8 of shape (N, 32, 32, 3), and their labels, uint8 of shape (N,)."""

    images: np.ndarray
    labels: np.ndarray


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


def identify(folder: Path) -> str:
    """`cifar10` where every file is the official one, otherwise `synthetic`, which `read_batch` then holds it to.

    Raises:
        ExpectedError: A file is missing.
    """
    for name in OFFICIAL_SHA256:
        if not (folder / name).is_file():
            raise ExpectedError(f"{folder / name} is missing; {_AGAIN}")
    return "cifar10" if all(is_official(folder / name) for name in OFFICIAL_SHA256) else "synthetic"


def read_classes(path: Path) -> list[str]:
    """The ten class names of `batches.meta`, in the order of the labels.

    Raises:
        ExpectedError: The file is not such a pickle.
    """
    names = unpickle(path).get("label_names")
    if not (isinstance(names, list) and len(set(map(str, names))) == CLASS_COUNT):
        raise ExpectedError(f"{path} does not name {CLASS_COUNT} classes; {_AGAIN}")
    return [str(name) for name in names]


def read_batch(path: Path, source: str) -> Images:
    """One batch of images.

    Args:
        path: A pickled mapping with `batch_label`, `data` (uint8 of shape (N, 3072): the red plane, the green one, the
            blue one, each row by row) and `labels` (N whole numbers from 0 to 9).
        source: `cifar10` or `synthetic`.

    Returns:
        The batch, its colours last.

    Raises:
        ExpectedError: The file is not such a pickle, or is neither official nor the stand-in's.
    """
    batch = unpickle(path)
    label = batch.get("batch_label")
    if source == "synthetic" and not (isinstance(label, str) and label == SYNTHETIC_LABEL):
        raise ExpectedError(
            f"{path} belongs neither to CIFAR-10 (a file differs from the official one) "
            f"nor to the synthetic stand-in; {_AGAIN}"
        )
    data, labels = batch.get("data"), batch.get("labels")
    height, width, channels = IMAGE_SHAPE
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.shape[1:] == (channels * height * width,)):
        raise ExpectedError(f"{path}: its data is not uint8 of shape (N, {channels * height * width}); {_AGAIN}")
    if not (
        isinstance(labels, list)
        and len(labels) == len(data) > 0
        and all(type(label) is int and 0 <= label < CLASS_COUNT for label in labels)
    ):
        raise ExpectedError(f"{path}: its labels are not one of 0 to {CLASS_COUNT - 1} for each image; {_AGAIN}")
    return Images(data.reshape(-1, channels, height, width).transpose(0, 2, 3, 1), np.array(labels, dtype=np.uint8))


def join(batches: list[Images]) -> Images:
    """The batches one after another, in memory order (the order in which they are saved)."""
    images = np.concatenate([batch.images for batch in batches])
    return Images(np.ascontiguousarray(images), np.concatenate([batch.labels for batch in batches]))


def check_counts(train_labels: np.ndarray, test_labels: np.ndarray, source: str) -> None:
    """Every class has as many images as the others; CIFAR-10 has 50,000 + 10,000 images.

    Raises:
        ExpectedError: It is not so.
    """
    if source == "cifar10" and (len(train_labels), len(test_labels)) != (CIFAR10_TRAIN_IMAGES, CIFAR10_TEST_IMAGES):
        raise ExpectedError(
            f"{RAW}: {len(train_labels)} + {len(test_labels)} images instead of "
            f"{CIFAR10_TRAIN_IMAGES} + {CIFAR10_TEST_IMAGES}; {_AGAIN}"
        )
    for part, labels in (("training", train_labels), ("test", test_labels)):
        counts = np.bincount(labels, minlength=CLASS_COUNT)
        if np.any(counts != len(labels) / CLASS_COUNT):
            raise ExpectedError(
                f"{RAW}: the {part} images of the classes are not equally many: {counts.tolist()}; {_AGAIN}"
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
    """Write an `.npy` file, by way of memory: straight to disk, np.save hides the system's word on a full one."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    path.write_bytes(buffer.getbuffer())


_AGAIN = f"remove {RAW} and run dvc repro, which makes it anew"


class _Unpickler(pickle.Unpickler):
    """Knows NumPy arrays and Python's own containers, and nothing that could run a command."""

    _RECONSTRUCT = np.empty(0).__reduce__()[0]  # what makes the empty array that is then filled
    _ALLOWED: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,  # NumPy 1's name, in the official files
        ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,  # NumPy 2's
    }

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return self._ALLOWED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}") from None


def unpickle(path: Path) -> dict[str, Any]:
    """A pickled mapping of plain values and arrays; anything else in it is refused, not run.

    Raises:
        ExpectedError: The file is not such a pickle.
    """
    pickled = path.read_bytes()
    try:
        # latin1: Python 2 wrote the official files, whose keys and pixels are its byte strings.
        content = _Unpickler(io.BytesIO(pickled), encoding="latin1").load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        why = " ".join(str(error).split())
        raise ExpectedError(f"{path} is not a pickle of a CIFAR-10 batch ({why}); {_AGAIN}") from None
    if not isinstance(content, dict):
        raise ExpectedError(f"{path} does not hold a mapping; {_AGAIN}")
    return content


if __name__ == "__main__":
    run_stage("preprocess", main)
