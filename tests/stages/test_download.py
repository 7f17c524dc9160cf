"""Where the eight files come from, that a user's own copy survives, and that nothing half-done looks finished.

tests/cifar10/ has the archive (test_archive.py) and the network (test_source.py).
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from stages import download
from stages.cifar10.official import FOLDER, OFFICIAL_SHA256, holds_cifar10
from stages.common.errors import ExpectedError
from stages.common.paths import RAW
from tests.support.archives import Members, assert_complete, assert_nothing_left, contents, packed, use_local
from tests.support.clones import SMALL, new_repository, stages_run
from tests.support.stage_runs import ROOT, change_parameters, files_limited_to, run_stage


def renamed(number: int) -> Path:
    return RAW.with_name(f"{FOLDER}.{number}")


# --- synthetic data ---


def test_synthetic_data_is_drawn_with_its_parameters(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR10_ARCHIVE", "/nowhere")  # is not looked at
    download.main()
    drawn = contents(RAW)
    assert set(drawn) == set(OFFICIAL_SHA256)

    download.main()  # over what is there
    assert contents(RAW) == drawn
    change_parameters({"data.synthetic.seed": 8})
    download.main()
    assert contents(RAW)["data_batch_1"] != drawn["data_batch_1"]
    assert [path.name for path in RAW.parent.iterdir()] == [FOLDER]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.sorce", "cifar10"),
        ("data.synthetic.train_images", 0),
        ("data.synthetic.test_images", 15),
        ("data.synthetic.seed", -1),
        ("data.synthetic", None),
    ],
)
def test_bad_parameters_are_refused_before_anything_is_written(workdir: Path, key: str, value: Any) -> None:
    change_parameters({key: value})
    with pytest.raises(ExpectedError, match=rf"{key.rpartition('.')[2]}.*git restore --staged --worktree params\.yaml"):
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


def test_a_relative_path_starts_here_or_at_the_main_repository(
    official: Path, members: Members, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In `dvc exp run --temp` the current folder is a copy elsewhere, and DVC_ROOT is the main repository."""
    shutil.copytree(official, tmp_path / "mine/cifar")
    temporary = tmp_path / "elsewhere/copy"
    temporary.mkdir(parents=True)
    shutil.copy("params.yaml", temporary)
    monkeypatch.setenv("CIFAR10_ARCHIVE", "../mine/cifar")
    download.main()
    assert_complete(official)

    monkeypatch.setenv("DVC_ROOT", str(Path.cwd()))
    monkeypatch.chdir(temporary)
    download.main()
    assert_complete(official)
    monkeypatch.delenv("DVC_ROOT")
    shutil.rmtree(RAW)
    with pytest.raises(ExpectedError, match=f"CIFAR10_ARCHIVE=../mine/cifar: no such file or folder.*{temporary}"):
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


def test_a_damaged_archive_is_refused_in_one_line(members: Members, monkeypatch: pytest.MonkeyPatch) -> None:
    use_local(monkeypatch, packed(members)[:-1000])
    with pytest.raises(ExpectedError) as caught:
        download.main()
    assert str(caught.value) == (
        "CIFAR10_ARCHIVE=local.tar.gz: it is cut short; give an intact copy of the official archive, or unset the "
        "variable to download it"
    )
    assert_nothing_left()


# --- a user's own copy where the output goes ---


@pytest.fixture
def own(official: Path) -> Path:
    """A user's intact copy where `download` writes, with a file of the user's own in it."""
    shutil.copytree(official, RAW)
    (RAW / "notes.txt").write_text("mine")
    return RAW


def facts(folder: Path) -> dict[Path, tuple[int, ...]]:
    """What a change of a folder or of a file in it would change, apart from the contents and the time of access."""
    stats = {path: path.stat() for path in (folder, *folder.iterdir())}
    return {path: (*stat[:-3], stat.st_mtime_ns) for path, stat in stats.items()}


@pytest.mark.parametrize("variable", [None, str(RAW), str(RAW.parent), "/nowhere"])
def test_an_intact_copy_stays_as_it_is(own: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None) -> None:
    if variable is not None:
        monkeypatch.setenv("CIFAR10_ARCHIVE", variable)
    monkeypatch.setattr(download, "ADDRESSES", ())
    before, held = facts(own), contents(own)
    download.main()
    assert (facts(own), contents(own)) == (before, held)
    assert [path.name for path in own.parent.iterdir()] == [FOLDER]


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_copy_is_kept_under_another_name(
    own: Path, official: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    (own / "test_batch").write_bytes(b"damaged") if damage == "changed" else (own / "test_batch").unlink()
    damaged = contents(own)
    monkeypatch.setenv("CIFAR10_ARCHIVE", str(own))
    with pytest.raises(ExpectedError, match=f"CIFAR10_ARCHIVE={own}: it"):
        download.main()
    assert contents(own) == damaged

    monkeypatch.setenv("CIFAR10_ARCHIVE", str(official))
    download.main()
    assert contents(RAW) == contents(official)
    assert contents(renamed(1)) == damaged
    assert capsys.readouterr().out == (
        f"{RAW} is not the official CIFAR-10 (a file of it is missing or differs): it is kept as {renamed(1)}\n"
    )


def test_changing_the_source_and_back_keeps_one_copy(own: Path, official: Path) -> None:
    """The copy that makes room for synthetic data gets its name back, without the network or CIFAR10_ARCHIVE."""
    copy = contents(own)
    change_parameters({"data.synthetic.train_images": 100})  # not as many as `official` has
    for seed in (7, 8):
        change_parameters({"data.source": "synthetic", "data.synthetic.seed": seed})
        download.main()
        assert contents(RAW)["data_batch_1"] != copy["data_batch_1"]
        assert contents(renamed(1)) == copy
    shutil.rmtree(RAW)
    shutil.copytree(official, RAW)  # as `dvc checkout` does
    download.main()
    assert contents(renamed(1)) == copy
    change_parameters({"data.source": "cifar10"})
    download.main()
    assert contents(RAW) == copy
    assert [path.name for path in RAW.parent.iterdir()] == [FOLDER]


def test_a_link_or_a_file_in_the_outputs_place_is_kept(workdir: Path, tiny_batches: Path) -> None:
    RAW.parent.mkdir(parents=True)
    RAW.symlink_to(tiny_batches)
    before = contents(tiny_batches)
    download.main()
    assert renamed(1).readlink() == tiny_batches
    assert contents(tiny_batches) == before
    assert not RAW.is_symlink()

    shutil.rmtree(RAW)
    RAW.write_text("mine")
    download.main()
    assert renamed(2).read_text() == "mine"


def test_dvc_leaves_what_is_there_to_the_stage(tmp_path: Path) -> None:
    clone = new_repository(tmp_path / "clone", SMALL)
    clone.commit("small")
    own = clone.folder / RAW
    own.mkdir(parents=True)
    (own / "data_batch_1").write_text("a user's own")
    assert "it is kept as" in clone.ok("dvc", "repro", "download")
    assert (clone.folder / renamed(1) / "data_batch_1").read_text() == "a user's own"
    assert stages_run(clone.ok("dvc", "repro", "download")) == []
    assert "cifar-10" not in clone.ok("git", "status", "--porcelain")


# --- interruptions and the machine's faults ---


def test_what_a_killed_run_left_is_removed(official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL in the middle of writing: nothing looks finished, and the next run begins cleanly."""
    script = (
        "import sys, os, signal; from stages import download\n"
        "def copy(*_):\n"
        "    (download.INCOMPLETE / 'data_batch_1').write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "download.copy_folder = copy; download.main()"
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


def test_a_full_disk_ends_in_one_line(workdir: Path) -> None:
    with files_limited_to(10_000):
        result = run_stage("download")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("download: ")
    assert "File too large" in result.stderr
    assert_nothing_left()


def test_a_folder_that_cannot_be_written_ends_in_one_line(workdir: Path) -> None:
    """No permission stops root, so where root runs the tests another user runs the stage, outside pytest's folders."""
    script = (
        "import os\n"
        "from stages import download\n"
        "from stages.common.process import run_stage\n"
        "if os.getuid() == 0:\n"
        "    os.setuid(65534)\n"
        "run_stage('download', download.main)"
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
    assert "Permission denied; correct this" in result.stderr


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

    output = cifar10_workdir / RAW
    assert {path.name for path in output.iterdir()} == set(OFFICIAL_SHA256)
    for name, expected in OFFICIAL_SHA256.items():
        assert hashlib.sha256((output / name).read_bytes()).hexdigest() == expected
    for train, count in ((True, 50_000), (False, 10_000)):  # its own check of the files' MD5 sums is in this call
        assert len(CIFAR10(root=str(output.parent), train=train, download=False)) == count


@pytest.mark.real_data
def test_dvc_uses_a_users_own_copy_and_keeps_it(cifar10_workdir: Path, tmp_path: Path) -> None:
    clone = new_repository(tmp_path / "clone", {})
    clone.commit("CIFAR-10")
    own = Path(shutil.copytree(cifar10_workdir / RAW, clone.folder / RAW))
    (own / "notes.txt").write_text("mine")
    assert f"{RAW} holds CIFAR-10 already" in clone.ok("dvc", "repro", "download")
    assert clone.lock()["download"]["outs"][0]["nfiles"] == 8  # the user's own file does not count
    assert stages_run(clone.ok("dvc", "repro", "download")) == []

    clone.ok("git", "commit", "--all", "--allow-empty", "--quiet", "--message", "downloaded")
    clone.ok("dvc", "exp", "run", "-S", "data.source=synthetic", "download")
    assert (clone.folder / renamed(1) / "notes.txt").exists()
    clone.ok("dvc", "exp", "run", "-S", "data.source=cifar10", "download")
    assert set(contents(own)) == {*OFFICIAL_SHA256, "notes.txt"}
    assert holds_cifar10(own)
    assert "up to date" in clone.ok("dvc", "status", "download")
