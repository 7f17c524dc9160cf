"""From pickled batches to arrays, by an unpickler that runs nothing."""

import io
import pickle
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from stages.cifar10.official import OFFICIAL_SHA256, SYNTHETIC_LABEL, holds_cifar10
from stages.common.errors import ExpectedError
from stages.common.paths import RAW

IMAGE_SHAPE = (32, 32, 3)
CLASS_COUNT = 10


class Batch(NamedTuple):
    """Images, uint8 of shape (N, 32, 32, 3), and their labels, uint8 of shape (N,)."""

    images: np.ndarray
    labels: np.ndarray


def identify(folder: Path) -> str:
    """`cifar10` if every file is the official one, otherwise `synthetic`, which `read_batch` then checks.

    Raises:
        ExpectedError: A file is missing.
    """
    for name in OFFICIAL_SHA256:
        if not (folder / name).is_file():
            raise ExpectedError(f"{folder / name} is missing; {AGAIN}")
    return "cifar10" if holds_cifar10(folder) else "synthetic"


def read_classes(path: Path) -> list[str]:
    """The ten class names of `batches.meta`, in the order of the labels.

    Raises:
        ExpectedError: The file is not such a pickle.
    """
    names = unpickle(path).get("label_names")
    if not (isinstance(names, list) and len(set(map(str, names))) == CLASS_COUNT):
        raise ExpectedError(f"{path} does not name {CLASS_COUNT} classes; {AGAIN}")
    return [str(name) for name in names]


def read_batch(path: Path, source: str) -> Batch:
    """One batch of images.

    Args:
        path: A pickled mapping with `batch_label`, `data` (uint8 of shape (N, 3072): the red plane, the green one, the
            blue one, each row by row) and `labels` (N whole numbers from 0 to 9).
        source: `cifar10` or `synthetic`.

    Returns:
        The batch, its colours last.

    Raises:
        ExpectedError: The file is not such a pickle, or is neither official nor synthetic.
    """
    batch = unpickle(path)
    label = batch.get("batch_label")
    if source == "synthetic" and not (isinstance(label, str) and label == SYNTHETIC_LABEL):
        raise ExpectedError(
            f"{path} belongs neither to CIFAR-10 (a file differs from the official one) "
            f"nor to the synthetic data; {AGAIN}"
        )
    data, labels = batch.get("data"), batch.get("labels")
    height, width, channels = IMAGE_SHAPE
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.shape[1:] == (channels * height * width,)):
        raise ExpectedError(f"{path}: its data is not uint8 of shape (N, {channels * height * width}); {AGAIN}")
    if not (
        isinstance(labels, list)
        and len(labels) == len(data) > 0
        and all(type(label) is int and 0 <= label < CLASS_COUNT for label in labels)
    ):
        raise ExpectedError(f"{path}: its labels are not one of 0 to {CLASS_COUNT - 1} for each image; {AGAIN}")
    return Batch(data.reshape(-1, channels, height, width).transpose(0, 2, 3, 1), np.array(labels, dtype=np.uint8))


AGAIN = f"remove {RAW} and run dvc repro, which makes it anew"


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
        raise ExpectedError(f"{path} is not a pickle of a CIFAR-10 batch ({why}); {AGAIN}") from None
    if not isinstance(content, dict):
        raise ExpectedError(f"{path} does not hold a mapping; {AGAIN}")
    return content
