"""Fixtures of several test modules: working directories like the repository's root, and the real CIFAR-10."""

import hashlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from tests.support.clones import Clone, drop_own_settings, reproduce_small
from tests.support.stage_runs import ROOT, change_parameters, process_settings, run_stage

# Several files are tested at a time. PyTorch's threads would keep a core busy while they wait for each other, which is
# four times as slow. OpenMP reads this when PyTorch is loaded, here and in the processes that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
drop_own_settings()

if TYPE_CHECKING:
    from tests.support.archives import Members

SharedFolder = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> SharedFolder:
    """A function that returns a folder by its name. The first worker of pytest-xdist that asks for it fills it."""
    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == "master" else base.parent

    def folder_of(name: str, fill: Callable[[Path], None]) -> Path:
        folder, filled = base / name, base / f"{name}.filled"
        with FileLock(base / f"{name}.lock"):
            if not filled.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                filled.touch()
        return folder

    return folder_of


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new current directory that holds only params.yaml, set to tiny synthetic data."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    for variable in ("CIFAR10_ARCHIVE", "DVC_ROOT"):
        monkeypatch.delenv(variable, raising=False)
    shutil.copy(ROOT / "params.yaml", work)
    change_parameters({"data.source": "synthetic", "data.synthetic.train_images": 50, "data.synthetic.test_images": 10})
    return work


@pytest.fixture(scope="session")
def tiny_batches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The eight files of synthetic data with 50 + 10 images; tests do not change them."""
    from stages.cifar10.synthetic import write_synthetic  # here, as below, because a fork removes it

    folder = tmp_path_factory.mktemp("tiny") / "cifar-10-batches-py"
    folder.mkdir()
    write_synthetic(folder, seed=1, train_images=50, test_images=10)
    return folder


@pytest.fixture
def official(workdir: Path, tiny_batches: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of tiny files that count as the official ones in this test; the parameters ask for CIFAR-10."""
    from stages.cifar10.official import OFFICIAL_SHA256

    change_parameters({"data.source": "cifar10"})
    for path in tiny_batches.iterdir():
        monkeypatch.setitem(OFFICIAL_SHA256, path.name, hashlib.sha256(path.read_bytes()).hexdigest())
    return tiny_batches


@pytest.fixture
def members(official: Path) -> "Members":
    """The members of a good archive, for a test to change."""
    from tests.support.archives import good_members

    return good_members(official)


@pytest.fixture(scope="session")
def cifar10_archive() -> Path:
    """The real archive, or extracted folder, that CIFAR10_ARCHIVE names; a relative path starts at the root."""
    given = os.environ.get("CIFAR10_ARCHIVE")
    if not given:
        pytest.skip("CIFAR10_ARCHIVE is not set: it names the real CIFAR-10 (cifar-10-python.tar.gz)")
    path = ROOT / given
    assert path.exists(), f"CIFAR10_ARCHIVE={given} does not exist"
    return path.resolve()


@pytest.fixture(scope="session")
def cifar10_workdir(cifar10_archive: Path, shared_folder: SharedFolder) -> Path:
    """A working directory in which download, preprocess and split ran on the real data; tests do not change it."""

    def fill(work: Path) -> None:
        shutil.copy(ROOT / "params.yaml", work)
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.chdir(work)
            for name in ("download", "preprocess", "split"):
                result = run_stage(name, CIFAR10_ARCHIVE=str(cifar10_archive))
                assert result.returncode == 0, result.stderr

    return shared_folder("cifar10", fill)


@pytest.fixture(scope="session")
def repository(shared_folder: SharedFolder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Clone, str]:
    """A small reproduction, and the output of `dvc repro`; a test that changes something restores it."""

    def fill(folder: Path) -> None:
        clone, output = reproduce_small(folder)
        clone.folder.rename(folder / "a clone")  # the folder's name was of the hostile surroundings
        (folder / "output").write_text(output)

    made = shared_folder("pipeline", fill)
    own = tmp_path_factory.mktemp("pipeline")  # of this process
    subprocess.run(["cp", "-a", made / "a clone", own], check=True)
    return Clone(own / "a clone"), (made / "output").read_text()


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """Restore the handlers of signals that a program has set, after the test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def own_process_settings() -> Iterator[None]:
    """Restore what a stage sets for the whole process, after the test."""
    with process_settings():
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow files first, so that no worker has one left at the end."""
    slow = {item.path for item in items if item.path.parent.name == "pipeline" or item.get_closest_marker("pipeline")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report that the tests on the real data, or those that need Ray, did not run."""
    for marker, what, how in (
        ("real_data", "on the real CIFAR-10", "CIFAR10_ARCHIVE=/path/to/cifar-10-python.tar.gz make test"),
        ("cluster", "of the cluster and of S3", "make .venv/ready-cluster test"),
    ):
        skipped = [report for report in terminalreporter.stats.get("skipped", []) if marker in report.keywords]
        if skipped:
            terminalreporter.write_sep("!", f"{len(skipped)} tests {what} DID NOT RUN", red=True, bold=True)
            terminalreporter.write_line(f"{how} runs them")
