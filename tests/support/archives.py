"""Archives to try `download` with: CIFAR-10's official one, of tiny files, and variations of it."""

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from stages.cifar10.official import FOLDER
from stages.common.paths import RAW

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


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_complete(official: Path, output: Path = RAW) -> None:
    """The output is the eight files, bit for bit, and nothing else was left."""
    assert contents(output) == contents(official)
    assert [path.name for path in output.parent.iterdir()] == [FOLDER]


def assert_nothing_left() -> None:
    assert not RAW.parent.exists() or list(RAW.parent.iterdir()) == []
