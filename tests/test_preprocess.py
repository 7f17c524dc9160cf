"""Unpickling that runs nothing, the checks, the arrays and their statistics."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages import preprocess
from stages.batch_files import META, OFFICIAL_SHA256, TEST_BATCH, TRAIN_BATCHES
from stages.errors import ExpectedError
from stages.synthetic import CLASSES, SYNTHETIC_LABEL
from tests.stage_runs import files_limited_to, run_stage

OUTPUTS = ("data/processed", "metrics")


@pytest.fixture
def raw(workdir: Path, tiny_batches: Path) -> Path:
    """The tiny stand-in where `download` would have left it."""
    return Path(shutil.copytree(tiny_batches, workdir / "data/raw/cifar-10-batches-py"))


def load(path: Path) -> dict[str, Any]:
    return pickle.loads(path.read_bytes(), encoding="latin1")


def edit(path: Path, change: Callable[[dict[str, Any]], None], protocol: int = 4) -> None:
    batch = load(path)
    change(batch)
    path.write_bytes(pickle.dumps(batch, protocol=protocol))


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


@pytest.mark.parametrize("protocol", [3, 4])
def test_reads_the_protocols_that_ask_for_arrays_alone(raw: Path, protocol: int) -> None:
    expected = load(raw / TEST_BATCH)["data"]
    edit(raw / TEST_BATCH, lambda batch: None, protocol)
    assert np.array_equal(preprocess.unpickle(raw / TEST_BATCH)["data"], expected)


def test_reads_what_python_2_wrote(tmp_path: Path) -> None:
    """A pickle of protocol 2 with Python 2's byte strings, as in the official files, made opcode by opcode."""

    def text(value: bytes) -> bytes:
        return pickle.BINSTRING + len(value).to_bytes(4, "little") + value

    pixels = bytes(range(250, 256))
    dtype = (
        b"cnumpy\ndtype\n"
        + text(b"u1")
        + b"K\x00K\x01"
        + pickle.TUPLE3
        + pickle.REDUCE
        + b"(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"
        + pickle.BUILD
    )
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n"
        + b"cnumpy\nndarray\n"
        + b"K\x00"
        + pickle.TUPLE1
        + text(b"b")
        + pickle.TUPLE3
        + pickle.REDUCE
        + b"(K\x01K\x02K\x03"
        + pickle.TUPLE2
        + dtype
        + pickle.NEWFALSE
        + text(pixels)
        + b"t"
        + pickle.BUILD
    )
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + text(b"data") + array + pickle.SETITEM + b".")

    data = preprocess.unpickle(path)["data"]
    assert data.dtype == np.uint8
    assert data.tolist() == [[250, 251, 252], [253, 254, 255]]


class Payload:
    """What a hostile pickle does as soon as it is read."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize(
    "payload",
    [
        Payload(os.system, "touch ran"),
        Payload(eval, "open('ran', 'w')"),
        Payload(np.load, "ran"),
    ],
    ids=["os.system", "eval", "numpy.load"],
)
def test_a_planted_command_does_not_run(raw: Path, payload: Payload) -> None:
    planted = pickle.dumps({"batch_label": SYNTHETIC_LABEL, "data": payload}, protocol=4)
    if payload.call[0] is os.system:  # the plant itself works
        pickle.loads(planted)
        Path("ran").unlink()
    (raw / "data_batch_2").write_bytes(planted)

    with pytest.raises(ExpectedError, match=r"data_batch_2 is not a pickle of a CIFAR-10 batch \(it asks for"):
        preprocess.main()
    assert not Path("ran").exists()
    assert not any(Path(folder).exists() for folder in OUTPUTS)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"junk",
        b"\x80\x04.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff",
        pickle.dumps([1, 2]),
        pickle.dumps(None),
    ],
)
def test_a_damaged_pickle_is_named(raw: Path, content: bytes) -> None:
    (raw / "data_batch_4").write_bytes(content)
    with pytest.raises(ExpectedError, match=r"data_batch_4 .*; remove data/raw/cifar-10-batches-py and run dvc repro"):
        preprocess.main()


def test_a_truncated_pickle_is_named(raw: Path) -> None:
    path = raw / "data_batch_5"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ExpectedError, match="data_batch_5 is not a pickle"):
        preprocess.main()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda batch: batch.pop("data"), "its data is not uint8"),
        (lambda batch: batch.update(data=batch["data"].astype(np.float32)), "its data is not uint8"),
        (lambda batch: batch.update(data=batch["data"][:, :3071]), "its data is not uint8"),
        (lambda batch: batch.update(data=batch["data"].reshape(10, 3, 1024)), "its data is not uint8"),
        (lambda batch: batch.pop("labels"), "its labels are not"),
        (lambda batch: batch.update(labels=batch["labels"][:-1]), "its labels are not"),
        (lambda batch: batch["labels"].__setitem__(0, 10), "its labels are not"),
        (lambda batch: batch["labels"].__setitem__(0, -1), "its labels are not"),
        (lambda batch: batch["labels"].__setitem__(0, "cat"), "its labels are not"),
        (lambda batch: batch.update(data=batch["data"][:0], labels=[]), "its labels are not"),
        (lambda batch: batch.update(batch_label="training batch 1 of 5"), "belongs neither to CIFAR-10"),
        (lambda batch: batch.pop("batch_label"), "belongs neither to CIFAR-10"),
    ],
)
def test_a_batch_of_another_form_is_named(raw: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    edit(raw / "data_batch_1", change)
    with pytest.raises(ExpectedError, match=f"data_batch_1.*{message}"):
        preprocess.main()


@pytest.mark.parametrize(("name", "part"), [("data_batch_1", "training"), (TEST_BATCH, "test")])
def test_unbalanced_classes_are_refused(raw: Path, name: str, part: str) -> None:
    def relabel(batch: dict[str, Any]) -> None:
        batch["labels"][0] = (batch["labels"][0] + 1) % 10

    edit(raw / name, relabel)
    with pytest.raises(ExpectedError, match=f"the {part} images of the classes are not equally many"):
        preprocess.main()


@pytest.mark.parametrize("names", [None, "cats", ["a"] * 10, [f"class {number}" for number in range(9)]])
def test_ten_classes_are_named(raw: Path, names: Any) -> None:
    edit(raw / META, lambda meta: meta.update(label_names=names))
    with pytest.raises(ExpectedError, match=r"batches\.meta does not name 10 classes"):
        preprocess.main()


@pytest.mark.parametrize("name", sorted(OFFICIAL_SHA256))
def test_a_missing_file_is_named(raw: Path, name: str) -> None:
    (raw / name).unlink()
    with pytest.raises(ExpectedError, match=f"cifar-10-batches-py/{name} is missing; remove"):
        preprocess.main()


def test_only_the_official_bytes_are_called_cifar10(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the tiny files declared the official ones they are CIFAR-10, whose size they then do not have."""
    import hashlib

    for path in raw.iterdir():
        monkeypatch.setitem(OFFICIAL_SHA256, path.name, hashlib.sha256(path.read_bytes()).hexdigest())
    assert preprocess.identify(raw) == "cifar10"
    with pytest.raises(ExpectedError, match=r"50 \+ 10 images instead of 50000 \+ 10000"):
        preprocess.main()
    (raw / "readme.html").write_text("another")
    assert preprocess.identify(raw) == "synthetic"


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
    with pytest.raises(ExpectedError, match=r"belongs neither to CIFAR-10 .* nor to the synthetic stand-in"):
        preprocess.main()
