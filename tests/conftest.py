"""What several test modules share: working directories like the repository's root, and the real CIFAR-10."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from stages.batch_files import OFFICIAL_SHA256
from stages.synthetic import write_synthetic
from tests.archives import Members, good_members
from tests.clones import Clone, reproduce_small
from tests.stage_runs import ROOT, change_parameters, run_stage


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, made the current one, with nothing in it but params.yaml, set to a tiny stand-in."""
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
    """The eight files of a stand-in with 50 + 10 images; not to be changed."""
    folder = tmp_path_factory.mktemp("tiny") / "cifar-10-batches-py"
    folder.mkdir()
    write_synthetic(folder, seed=1, train_images=50, test_images=10)
    return folder


@pytest.fixture
def official(workdir: Path, tiny_batches: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of tiny files that count as the official ones in this test; the parameters ask for CIFAR-10."""
    change_parameters({"data.source": "cifar10"})
    for path in tiny_batches.iterdir():
        monkeypatch.setitem(OFFICIAL_SHA256, path.name, hashlib.sha256(path.read_bytes()).hexdigest())
    return tiny_batches


@pytest.fixture
def members(official: Path) -> Members:
    """The members of a good archive, to be changed."""
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
def cifar10_workdir(cifar10_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which download, preprocess and split ran on the real data; not to be changed."""
    work = tmp_path_factory.mktemp("cifar10")
    shutil.copy(ROOT / "params.yaml", work)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(work)
        for name in ("download", "preprocess", "split"):
            result = run_stage(name, CIFAR10_ARCHIVE=str(cifar10_archive))
            assert result.returncode == 0, result.stderr
    return work


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[Clone, str]:
    """A small reproduction, and what `dvc repro` said; who changes something puts it back."""
    return reproduce_small(tmp_path_factory.mktemp("pipeline") / "a clone")


@pytest.fixture
def process_settings() -> Iterator[None]:
    """What a stage sets for the whole process is put back: environment, deterministic operations, generators."""
    import torch  # here, for it takes seconds that the tests of the data do not need

    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    filling = torch.utils.deterministic.fill_uninitialized_memory
    with mock.patch.dict(os.environ), torch.random.fork_rng():
        yield
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    torch.utils.deterministic.fill_uninitialized_memory = filling


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say aloud that the tests on the real data did not run."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if "real_data" in report.keywords]
    if skipped:
        terminalreporter.write_sep("!", f"{len(skipped)} tests on the real CIFAR-10 DID NOT RUN", red=True, bold=True)
        terminalreporter.write_line("CIFAR10_ARCHIVE=/path/to/cifar-10-python.tar.gz make test runs them")
