"""CIFAR-10 as its authors pack it: the eight files of its "python version", from the first of these that applies:

- `data.source: synthetic`: synthetic data, drawn by stages/cifar10/synthetic.py;
- an intact copy that is already in data/raw, where torchvision looks for it; it stays as it is;
- the environment variable CIFAR10_ARCHIVE: a local archive or extracted folder (an environment variable because where
  the bytes come from must not change the result, nor dvc.lock);
- the official archive over the network.

Each file is checked against its official SHA-256 sum before anything in it is read: the batches are pickles, and an
unpickler runs what it is given. The output is `persist` in dvc.yaml, so that DVC does not remove a user's copy before
the stage starts. The stage itself replaces only what it can make again; it renames everything else. (In a clone where
`dvc repro download` has not run yet, `dvc exp run` is another matter: DVC itself then removes what its cache lacks.)
"""

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import Field

from stages.cifar10.archive import Unusable, copy_folder, unpack
from stages.cifar10.official import FOLDER, holds_cifar10, holds_synthetic
from stages.cifar10.source import ADDRESSES, NotReceived, TooSlow, check_certificates, fetch
from stages.cifar10.synthetic import write_synthetic
from stages.common.config import Section, Seed, load
from stages.common.errors import ExpectedError
from stages.common.paths import RAW, main_repository
from stages.common.process import run_stage

INCOMPLETE = RAW.with_name(".incomplete")
VARIABLE = "CIFAR10_ARCHIVE"
WAYS_OUT = f"{VARIABLE}=/path/to/cifar-10-python.tar.gz make repro uses a local copy; make demo needs none"


class Synthetic(Section):
    seed: Seed
    train_images: int = Field(ge=50, le=50_000, multiple_of=50)  # five batches of ten classes
    test_images: int = Field(ge=10, le=10_000, multiple_of=10)


class Data(Section):
    source: Literal["cifar10", "synthetic"]
    synthetic: Synthetic


class Parameters(Section):
    data: Data


def main() -> None:
    data = load(Parameters).data
    if data.source == "cifar10" and use_present():
        return
    with whole_or_nothing() as folder:
        if data.source == "synthetic":
            write_synthetic(folder, data.synthetic.seed, data.synthetic.train_images, data.synthetic.test_images)
        elif os.environ.get(VARIABLE):
            take_local(locate(os.environ[VARIABLE]), folder)
        else:
            download(folder)


def use_present() -> bool:
    """Whether the output is CIFAR-10 already; a copy that `make_room` renamed gets its name back."""
    if holds_cifar10(RAW):
        print(f"{RAW} holds CIFAR-10 already")
        return True
    renamed = next(filter(holds_cifar10, renamed_copies()), None)
    if renamed is not None:
        make_room()
        renamed.rename(RAW)
        print(f"{renamed} is CIFAR-10: it is {RAW} again")
    return renamed is not None


def other_names() -> Iterator[Path]:
    """The names that `make_room` gives, in turn."""
    return (RAW.with_name(f"{RAW.name}.{number}") for number in itertools.count(1))


def renamed_copies() -> list[Path]:
    return list(itertools.takewhile(os.path.lexists, other_names()))


def make_room() -> None:
    """Remove what stands at the output if the stage can make it again, and rename it if not: it may be a user's own."""
    if not os.path.lexists(RAW):
        return
    is_second_copy = holds_cifar10(RAW, alone=True) and any(map(holds_cifar10, renamed_copies()))
    if not RAW.is_symlink() and (is_second_copy or holds_synthetic(RAW)):
        shutil.rmtree(RAW)
        return
    what = "CIFAR-10" if holds_cifar10(RAW) else "not the official CIFAR-10 (a file of it is missing or differs)"
    free = next(itertools.filterfalse(os.path.lexists, other_names()))
    RAW.rename(free)
    print(f"{RAW} is {what}: it is kept as {free}")


@contextmanager
def whole_or_nothing() -> Iterator[Path]:
    """An empty folder to fill, which becomes the output when, and only when, all went well."""
    if INCOMPLETE.exists():  # of a run that was killed
        shutil.rmtree(INCOMPLETE)
    INCOMPLETE.mkdir(parents=True)
    try:
        yield INCOMPLETE
        make_room()
        INCOMPLETE.replace(RAW)
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
    """Receive the archive from the first address that sends it, and unpack it.

    Raises:
        ExpectedError: None does.
    """
    check_certificates(WAYS_OUT)
    failures = []
    addresses = [(url, False) for url in ADDRESSES]
    for url, patient in addresses:  # grows: a slow address gets a second turn, without a limit, after the others
        try:
            archive = fetch(url, folder, patient=patient)
            unpack(archive, folder)
            archive.unlink()
            return
        except TooSlow as error:
            print(f"{url} is slow ({error}); trying the next address", flush=True)
            addresses.append((url, True))
        except (NotReceived, Unusable) as error:
            failures.append(f"{url} ({error})")
    raise ExpectedError(f"CIFAR-10 could not be downloaded from {' nor '.join(failures)}; {WAYS_OUT}")


if __name__ == "__main__":
    run_stage("download", main)
