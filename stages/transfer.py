"""One large file over HTTP, which goes on where a broken connection or an interrupted run left it."""

import json
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError

TIMEOUT_SECONDS = (10, 60)  # to connect; between two pieces of the answer
ATTEMPTS = 3  # for each address
BACK_OFF_SECONDS = 1.0  # before the second attempt; doubled before each further one
SLOW_BYTES_PER_SECOND = 200_000  # a quarter of an hour for 170 MB: another address may well be faster
SLOW_AFTER_SECONDS = 30.0
CHUNK_BYTES = 1 << 16


class TransferError(Exception):
    """Why an address did not give the file."""


class TooSlow(TransferError):
    """It would, but so slowly that another address is worth a try first."""


class _StartOver(Exception):
    """What was received so far does not fit what the server has."""


class PartialFile:
    """The received part of a file, and beside it in JSON what the server said of the whole.

    The second is written before the first byte, so that bytes never stand beside the description of other bytes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._origin_path = path.with_name(path.name + ".json")

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._origin_path.unlink(missing_ok=True)

    def begin(self, origin: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._origin_path.write_text(json.dumps(origin), encoding="utf-8")

    def state(self) -> tuple[int, dict[str, Any]]:
        """How many bytes are here, and the origin: url, size and validator; 0 and {} where nothing can be used."""
        try:
            origin = json.loads(self._origin_path.read_text(encoding="utf-8"))
            received = self.path.stat().st_size
            if 0 < received <= origin["size"]:
                return received, origin
        except (OSError, ValueError, LookupError, TypeError):
            pass
        self.discard()
        return 0, {}


def fetch(url: str, partial: PartialFile, *, patient: bool) -> None:
    """Receive what is missing of a file, with a progress bar.

    Args:
        url: Where it is.
        partial: Where it goes, and what an earlier call left there, be it from another address.
        patient: Whether to go on however slow it is.

    Raises:
        TransferError: It is not to be had there; what was received is kept.
        TooSlow: Likewise, and `patient` is false.
    """
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            pause = BACK_OFF_SECONDS * 2 ** (attempt - 1)
            print(f"{url}: {reason}; trying again in {pause:.0f} s", flush=True)
            time.sleep(pause)
        try:
            return _receive(url, partial, patient=patient)
        except _StartOver as error:
            partial.discard()
            reason = str(error)
        except requests.HTTPError as error:
            reason = f"HTTP {error.response.status_code} {error.response.reason}"
            if error.response.status_code < 500:
                break
        except requests.Timeout:
            reason = "no answer in time"
        except (requests.RequestException, HTTPError) as error:
            reason = _root_cause(error)
    raise TransferError(reason)


def _receive(url: str, partial: PartialFile, *, patient: bool) -> None:
    """One request; see `fetch`."""
    received, origin = partial.state()
    if received and received == origin["size"]:
        return
    headers = {"Accept-Encoding": "identity"}  # the archive itself, not the server's compression of it
    if received:
        headers["Range"] = f"bytes={received}-"
        if origin["validator"] and origin["url"] == url:
            headers["If-Range"] = origin["validator"]

    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            raise _StartOver("the server has no such part of the file")
        response.raise_for_status()
        if response.headers.get("Content-Type", "").startswith("text/html"):  # a sign-in page, for example
            raise TransferError("it sent a web page instead")
        start, size = _extent(response)
        if start not in (0, received) or (start and size != origin["size"]):
            raise _StartOver("the server sent another part than the one asked for")
        if start == 0:
            partial.discard()
        partial.begin({"url": url, "size": size, "validator": _validator(response)})
        _append(response, partial.path, start, size, patient=patient)

    if size is not None and partial.path.stat().st_size != size:
        raise requests.ConnectionError("the connection ended early")


def _append(response: requests.Response, path: Path, start: int, size: int | None, *, patient: bool) -> None:
    """Write the answer's body at the end of the file."""
    began = time.monotonic()
    received = 0
    progress = tqdm(total=size, initial=start, unit="B", unit_scale=True, desc=str(urlsplit(response.url).hostname))
    with progress, path.open("ab") as file:
        for chunk in response.raw.stream(CHUNK_BYTES, decode_content=False):
            file.write(chunk)
            received += len(chunk)
            progress.update(len(chunk))
            seconds = time.monotonic() - began
            if not patient and seconds > SLOW_AFTER_SECONDS and received / seconds < SLOW_BYTES_PER_SECOND:
                raise TooSlow(f"slow ({received / seconds / 1000:.0f} kB/s)")


def _extent(response: requests.Response) -> tuple[int, int | None]:
    """Where in the file the answer's body starts, and the size of the whole file if the server says it."""
    if response.status_code == requests.codes.partial_content:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if match is None:
            raise _StartOver("the server does not say which part of the file it sent")
        return int(match[1]), int(match[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _validator(response: requests.Response) -> str | None:
    """What If-Range may name: a strong entity tag, or the date."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def _root_cause(error: BaseException) -> str:
    """The end of the chain of requests', urllib3's and the system's errors, in a few words."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
