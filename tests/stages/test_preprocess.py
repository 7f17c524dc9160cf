"""The arrays, their statistics, and what the data must be."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages import preprocess
from stages.cifar10.official import TEST_BATCH, TRAIN_BATCHES
from stages.cifar10.synthetic import CLASSES
from stages.common.errors import ExpectedError
from tests.support.batches import edit, load
from tests.support.stage_runs import files_limited_to, run_stage

OUTPUTS = ("data/processed", "metrics")


@pytest.fixture
def raw(workdir: Path, tiny_batches: Path) -> Path:
    """The tiny synthetic data where `download` leaves it."""
    return Path(shutil.copytree(tiny_batches, workdir / "data/raw/cifar-10-batches-py"))


def test_writes_the_images_of_the_files_in_their_order(raw: Path) -> None:
    preprocess.main()

    images, labels = np.load("data/processed/train_images.npy"), np.load("data/processed/train_labels.npy")
    assert (images.shape, images.dtype) == ((50, 32, 32, 3), np.uint8)
    assert (labels.shape, labels.dtype) == ((50,), np.uint8)
    third = load(raw / "data_batch_3")  # its fifth image is number 24
    red, green, blue = third["data"][4].reshape(3, 32, 32)
    assert np.array_equal(images[24], np.dstack([red, green, blue]))
    assert labels[24] == third["labels"][4]
    test = load(raw / TEST_BATCH)
    assert np.load("data/processed/test_labels.npy").tolist() == test["labels"]
    assert np.array_equal(np.load("data/processed/test_images.npy")[9, 31, 31], test["data"][9, [1023, 2047, 3071]])


def test_records_what_the_data_is(raw: Path) -> None:
    preprocess.main()

    images = np.load("data/processed/train_images.npy") / 255
    dataset = json.loads(Path("metrics/dataset.json").read_text())
    assert dataset == {
        "source": "synthetic",
        "classes": list(CLASSES),
        "train_images": 50,
        "test_images": 10,
        "images_per_class": 6,
        "image_shape": [32, 32, 3],
        "mean": pytest.approx(images.mean(axis=(0, 1, 2)), abs=1e-6),
        "std": pytest.approx(images.std(axis=(0, 1, 2)), abs=1e-6),
    }


def test_samples_are_the_first_images(raw: Path) -> None:
    preprocess.main()

    with np.load("metrics/samples.npz") as samples:
        assert {name: len(samples[name]) for name in samples.files} == {
            "train_images": 25,
            "train_labels": 25,
            "test_images": 10,
            "test_labels": 10,
        }
        for name in samples.files:
            assert np.array_equal(samples[name], np.load(f"data/processed/{name}.npy")[: len(samples[name])])


def test_two_runs_write_the_same_bytes(raw: Path) -> None:
    def written() -> dict[str, bytes]:
        preprocess.main()
        return {str(path): path.read_bytes() for folder in OUTPUTS for path in Path(folder).iterdir()}

    assert written() == written()


def test_statistics_are_of_all_pixels_and_not_the_mean_of_each_images_own() -> None:
    # No image deviates in itself: one in ten is white. Those come first, and fill no whole part of the histogram.
    images = np.zeros((10_000, 32, 32, 3), np.uint8)
    images[:1_000, ..., 0] = 255
    mean, std = preprocess.channel_statistics(images)
    assert mean == pytest.approx([0.1, 0, 0])
    assert std == pytest.approx([0.3, 0, 0])


@pytest.mark.parametrize(("name", "part"), [("data_batch_1", "training"), (TEST_BATCH, "test")])
def test_unbalanced_classes_are_refused(raw: Path, name: str, part: str) -> None:
    def relabel(batch: dict[str, Any]) -> None:
        batch["labels"][0] = (batch["labels"][0] + 1) % 10

    edit(raw / name, relabel)
    with pytest.raises(ExpectedError, match=f"the {part} images of the classes are not equally many"):
        preprocess.main()


@pytest.mark.usefixtures("official")
def test_cifar10_of_another_size_is_refused(raw: Path) -> None:
    with pytest.raises(ExpectedError, match=r"50 \+ 10 images instead of 50000 \+ 10000"):
        preprocess.main()


def test_a_full_disk_ends_in_one_line(raw: Path) -> None:
    with files_limited_to(50_000):
        result = run_stage("preprocess")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "File too large" in result.stderr


@pytest.mark.real_data
def test_cifar10_arrays_are_those_of_torchvision(cifar10_workdir: Path) -> None:
    from torchvision.datasets import CIFAR10

    for part, is_train in (("train", True), ("test", False)):
        theirs = CIFAR10(root=str(cifar10_workdir / "data/raw"), train=is_train, download=False)
        assert np.array_equal(np.load(cifar10_workdir / f"data/processed/{part}_images.npy"), theirs.data)
        assert np.load(cifar10_workdir / f"data/processed/{part}_labels.npy").tolist() == theirs.targets


@pytest.mark.real_data
def test_cifar10_is_recorded_with_its_published_statistics(cifar10_workdir: Path) -> None:
    dataset = json.loads((cifar10_workdir / "metrics/dataset.json").read_text())
    assert dataset["mean"] == pytest.approx([0.4914, 0.4822, 0.4465], abs=5e-5)
    assert dataset["std"] == pytest.approx([0.2470, 0.2435, 0.2616], abs=5e-5)
    del dataset["mean"], dataset["std"]
    assert dataset == {
        "source": "cifar10",
        "classes": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
        "train_images": 50_000,
        "test_images": 10_000,
        "images_per_class": 6_000,
        "image_shape": [32, 32, 3],
    }


@pytest.mark.real_data
def test_cifar10_with_one_byte_changed_is_no_longer_cifar10(cifar10_workdir: Path, workdir: Path) -> None:
    raw = Path(shutil.copytree(cifar10_workdir / "data/raw/cifar-10-batches-py", "data/raw/cifar-10-batches-py"))
    with (raw / TRAIN_BATCHES[2]).open("r+b") as file:
        file.seek(10_000_000)  # a pixel
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(ExpectedError, match=r"belongs neither to CIFAR-10 .* nor to the synthetic data"):
        preprocess.main()
