"""Only the official files pass out of an archive, and one line says what is wrong with any other."""

import gzip
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.cifar10 import archive
from stages.cifar10.archive import Unusable, unpack
from stages.cifar10.official import FOLDER
from tests.support.archives import Members, assert_complete, member, packed

ARCHIVE = Path("local.tar.gz")


@pytest.fixture
def folder(workdir: Path) -> Path:
    """Where the files go."""
    folder = workdir / "unpacked" / FOLDER
    folder.mkdir(parents=True)
    return folder


def unpack_bytes(content: bytes, folder: Path) -> None:
    ARCHIVE.write_bytes(content)
    unpack(ARCHIVE, folder)


def test_names_may_begin_with_a_dot_and_other_members_are_left_out(
    official: Path, members: Members, folder: Path
) -> None:
    for info, _ in members:
        info.name = f"./{info.name}"
    others = [
        member("./._x", b"x"),
        member("elsewhere/data_batch_1", b"x"),
        member(f"{FOLDER}/../../climbed", b"x"),
        member(f"{FOLDER}/data_batch_2", kind=tarfile.SYMTYPE, target="/etc/passwd"),
    ]
    unpack_bytes(packed([*others, *members]), folder)
    assert_complete(official, folder)
    assert not Path("climbed").exists()


def without_test_batch(members: Members) -> Members:
    return [entry for entry in members if entry[0].name != f"{FOLDER}/test_batch"]


def wrong_content(members: Members) -> Members:
    info, content = members[4]
    return [*members[:4], (info, content[:-1] + b"x"), *members[5:]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_test_batch, "it lacks test_batch"),
        (wrong_content, r"its data_batch_3 is not the official file \(SHA-256 "),
        (lambda members: [], "it lacks batches.meta, data_batch_1"),
    ],
)
def test_an_archive_without_the_official_files_is_refused(
    members: Members, folder: Path, change: Callable[[Members], Members], message: str
) -> None:
    with pytest.raises(Unusable, match=message):
        unpack_bytes(packed(change(members)), folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[: len(content) // 2], "it is cut short"),
        (lambda content: content[:20], "it is cut short"),
        (lambda content: content[:5000] + bytes(100) + content[5100:], "it is damaged|is not the official file"),
        (lambda content: b"", "it is not a gzipped tar archive"),
        (lambda content: b"junk", "it is not a gzipped tar archive"),
        (lambda content: b"\n<!DOCTYPE html><html>Sign in</html>", "it is a web page, not an archive"),
        (lambda content: gzip.compress(b"<html>Sign in</html>" * 50), "it is damaged"),
        (lambda content: gzip.compress(gzip.decompress(content)[:-30_000]), "it is damaged"),
    ],
)
def test_damage_is_described(members: Members, folder: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    with pytest.raises(Unusable, match=message):
        unpack_bytes(damage(packed(members)), folder)


def test_a_fault_inside_the_compressed_data_is_named(
    members: Members, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "CHUNK_BYTES", 10_000)  # so that it is met in a member, not in a header
    compressor = zlib.compressobj(wbits=31)
    first_half = compressor.compress(gzip.decompress(packed(members))[:100_000]) + compressor.flush(zlib.Z_SYNC_FLUSH)
    with pytest.raises(Unusable, match=r"it is damaged \(Error -3 while decompressing data: invalid block type"):
        unpack_bytes(first_half + b"\x07", folder)  # begins a block of a kind that does not exist


def test_headers_that_tarfile_cannot_read_are_named(members: Members, folder: Path) -> None:
    members[2][0].pax_headers = {"GNU.sparse.size": "junk"}
    with pytest.raises(Unusable, match=r"it is damaged \(invalid literal for int"):
        unpack_bytes(packed(members), folder)
    with pytest.raises(Unusable, match="it is damaged"):
        unpack_bytes(packed([member("x", b"name", tarfile.GNUTYPE_LONGNAME)] * 2000), folder)


@pytest.mark.parametrize("name", ["elsewhere", f"{FOLDER}/data_batch_1"])
def test_an_archive_is_not_unpacked_beyond_the_size_of_the_official_one(
    members: Members, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(archive._BoundedGzip, "_left", 2_000_000)
    monkeypatch.setattr(archive, "CHUNK_BYTES", 100_000)
    with pytest.raises(Unusable, match="it unpacks to far more than"):
        unpack_bytes(packed([member(name, bytes(40_000_000)), *members]), folder)
    assert all(path.stat().st_size <= 2_000_000 for path in folder.iterdir())
