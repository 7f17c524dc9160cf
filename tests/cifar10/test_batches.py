"""Unpickling that runs nothing, and one line for what is not a batch of CIFAR-10's format."""

import hashlib
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.cifar10.batches import identify, read_batch, read_classes, unpickle
from stages.cifar10.official import META, OFFICIAL_SHA256, SYNTHETIC_LABEL, TEST_BATCH, TRAIN_BATCHES
from stages.common.errors import ExpectedError
from tests.support.batches import edit, load


@pytest.fixture
def raw(workdir: Path, tiny_batches: Path) -> Path:
    """A copy of the tiny synthetic data."""
    return Path(shutil.copytree(tiny_batches, "cifar-10-batches-py"))


def read_all(raw: Path) -> None:
    source = identify(raw)
    read_classes(raw / META)
    for name in (*TRAIN_BATCHES, TEST_BATCH):
        read_batch(raw / name, source)


def test_only_the_official_bytes_are_called_cifar10(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in raw.iterdir():
        monkeypatch.setitem(OFFICIAL_SHA256, path.name, hashlib.sha256(path.read_bytes()).hexdigest())
    assert identify(raw) == "cifar10"
    (raw / "readme.html").write_text("another")
    assert identify(raw) == "synthetic"


@pytest.mark.parametrize("protocol", [3, 4])
def test_reads_the_protocols_that_ask_for_arrays_alone(raw: Path, protocol: int) -> None:
    expected = load(raw / TEST_BATCH)["data"]
    edit(raw / TEST_BATCH, lambda batch: None, protocol)
    assert np.array_equal(unpickle(raw / TEST_BATCH)["data"], expected)


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

    data = unpickle(path)["data"]
    assert data.dtype == np.uint8
    assert data.tolist() == [[250, 251, 252], [253, 254, 255]]


class Payload:
    """What a hostile pickle does when it is read."""

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
        read_all(raw)
    assert not Path("ran").exists()


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
        read_all(raw)


@pytest.mark.parametrize("names", [None, "cats", ["a"] * 10, [f"class {number}" for number in range(9)]])
def test_ten_classes_are_named(raw: Path, names: Any) -> None:
    edit(raw / META, lambda meta: meta.update(label_names=names))
    with pytest.raises(ExpectedError, match=r"batches\.meta does not name 10 classes"):
        read_all(raw)


@pytest.mark.parametrize("name", sorted(OFFICIAL_SHA256))
def test_a_missing_file_is_named(raw: Path, name: str) -> None:
    (raw / name).unlink()
    with pytest.raises(ExpectedError, match=f"cifar-10-batches-py/{name} is missing; remove"):
        read_all(raw)
