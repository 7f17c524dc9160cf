"""The eight official files out of an archive or a folder, each checked on the way.

Nothing goes to a path that the archive gives: only members with one of the eight known names are read.
"""

import gzip
import hashlib
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from stages.cifar10.official import FOLDER, OFFICIAL_SHA256

CHUNK_BYTES = 1 << 20
UNPACKED_BYTES = 256 << 20  # all of them with tar's headers have 186 million


class Unusable(Exception):
    """Why a copy of the data cannot be used."""


def copy_folder(source: Path, folder: Path) -> None:
    """Copy the eight files from an extracted folder, or from the one that holds it.

    Raises:
        Unusable: One is missing or not the official one.
    """
    if (source / FOLDER).is_dir():
        source = source / FOLDER
    for name in OFFICIAL_SHA256:
        if not (source / name).is_file():
            raise Unusable(f"it has no file {name}")
        with (source / name).open("rb") as stream:
            copy_checked(stream, folder / name)


def unpack(archive: Path, folder: Path) -> None:
    """Stream the eight files out of the archive, in one pass.

    Args:
        archive: A gzipped tar.
        folder: Where they go.

    Raises:
        Unusable: It is no such archive, is damaged, or lacks a file, or one is not the official one.
    """
    missing = dict.fromkeys(OFFICIAL_SHA256)
    try:
        with (
            _BoundedGzip(archive) as stream,
            tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK_BYTES) as members,
        ):
            for member in members:
                path = PurePosixPath(member.name)
                if member.isfile() and path.parent == PurePosixPath(FOLDER) and path.name in OFFICIAL_SHA256:
                    content = members.extractfile(member)
                    assert content is not None  # it is a file
                    copy_checked(content, folder / path.name)
                    missing.pop(path.name, None)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, RecursionError) as error:
        raise Unusable(_describe_damage(archive, error)) from None
    if missing:
        raise Unusable(f"it lacks {', '.join(missing)}")


def copy_checked(stream: IO[bytes], target: Path) -> None:
    """Copy one file and check it on the way.

    Raises:
        Unusable: It is not the official file of that name.
    """
    digest = hashlib.sha256()
    with target.open("wb") as file:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != OFFICIAL_SHA256[target.name]:
        raise Unusable(f"its {target.name} is not the official file (SHA-256 {digest.hexdigest()})")


class _BoundedGzip(gzip.GzipFile):
    """Ends with an error where it unpacks to more than the archive can hold, so that no archive fills the disk."""

    _left = UNPACKED_BYTES

    def read(self, size: int | None = -1) -> bytes:
        chunk = super().read(size)
        self._left -= len(chunk)
        if self._left < 0:
            raise Unusable("it unpacks to far more than the official archive does")
        return chunk


def _describe_damage(archive: Path, error: Exception) -> str:
    with archive.open("rb") as file:
        start = file.read(256).lstrip()
    if start.startswith(b"<"):
        return "it is a web page, not an archive"
    if not start.startswith(b"\x1f\x8b"):
        return "it is not a gzipped tar archive"
    return "it is cut short" if isinstance(error, EOFError) else f"it is damaged ({error})"
