"""Archives to try `download` with: CIFAR-10's official one, of tiny files, and what strangers may make of it."""

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from stages import download
from stages.batch_files import FOLDER

Members = list[tuple[tarfile.TarInfo, bytes]]


def good_members(official: Path) -> Members:
    """The members of a good archive, to be changed."""
    folder = member(FOLDER, kind=tarfile.DIRTYPE)
    return [folder, *(member(f"{FOLDER}/{path.name}", path.read_bytes()) for path in sorted(official.iterdir()))]


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = "") -> tuple[Any, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(content)
    return info, content


def packed(members: Members) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def use_local(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    Path("local.tar.gz").write_bytes(content)
    monkeypatch.setenv("CIFAR10_ARCHIVE", "local.tar.gz")


def assert_complete(official: Path, output: Path = download.OUTPUT) -> None:
    """The output is the eight files, bit for bit, and nothing else was left."""
    assert {path.name: path.read_bytes() for path in output.iterdir()} == {
        path.name: path.read_bytes() for path in official.iterdir()
    }
    assert [path.name for path in output.parent.iterdir()] == [FOLDER]


def assert_nothing_left() -> None:
    assert list(Path("data/raw").iterdir()) == []
