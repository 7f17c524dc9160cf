"""The split: the paper's exactly, none at all, and what it refuses."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from stages import preprocess, split
from stages.cifar10.batches import read_classes
from stages.common.errors import ExpectedError
from stages.common.files import read_rows
from stages.common.paths import RAW
from stages.download import main as download
from tests.support.stage_runs import change_parameters, run_stage


@pytest.fixture
def processed(workdir: Path) -> Path:
    """A working directory in which download and preprocess ran on tiny synthetic data."""
    download()
    preprocess.main()
    return workdir


def test_the_papers_split_is_that_of_the_arrays_themselves() -> None:
    """The paper's code splits images and labels; ours splits indices, which gives the same parts in the same order."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (50_000, 2), dtype=np.uint8), rng.integers(0, 10, 50_000)
    train_images, validation_images, train_labels, validation_labels = train_test_split(
        images, labels, test_size=0.2, random_state=7
    )

    train, validation = split.split_indices(50_000, 0.2, 7)

    assert (len(train), len(validation)) == (40_000, 10_000)
    assert train[:5].tolist() == [25164, 37366, 24912, 7345, 28620]
    assert validation[:5].tolist() == [29430, 27750, 47782, 10498, 24747]
    assert np.array_equal(images[train], train_images)
    assert np.array_equal(labels[train], train_labels)
    assert np.array_equal(images[validation], validation_images)
    assert np.array_equal(labels[validation], validation_labels)


def test_fraction_0_keeps_all_images_in_order(processed: Path) -> None:
    change_parameters({"split.validation_fraction": 0})
    split.main()
    with np.load("data/processed/split.npz") as parts:
        assert parts["train"].tolist() == list(range(50))
        assert parts["validation"].shape == (0,)
        assert parts["train"].dtype == parts["validation"].dtype == np.int64
    assert {row["validation"] for row in read_rows(Path("metrics/class_distribution.csv"))} == {"0"}


def test_writes_the_parts_and_the_parameters_that_made_them(processed: Path) -> None:
    change_parameters({"split.validation_fraction": 0.3, "split.random_state": 11})
    split.main()
    with np.load("data/processed/split.npz", allow_pickle=False) as parts:
        assert sorted(parts.files) == ["random_state", "train", "validation", "validation_fraction"]
        train, validation = split.split_indices(50, 0.3, 11)
        assert np.array_equal(parts["train"], train)
        assert np.array_equal(parts["validation"], validation)
        assert parts["train"].dtype == parts["validation"].dtype == np.int64
        assert (parts["validation_fraction"].dtype, parts["validation_fraction"].item()) == (np.float64, 0.3)
        assert (parts["random_state"].dtype, parts["random_state"].item()) == (np.int64, 11)


def test_counts_the_classes_of_each_part(processed: Path) -> None:
    split.main()
    train, validation = split.split_indices(50, 0.2, 7)
    labels = np.load("data/processed/train_labels.npy")
    assert read_rows(Path("metrics/class_distribution.csv")) == [
        {
            "class": name,
            "train": str((labels[train] == label).sum()),
            "validation": str((labels[validation] == label).sum()),
            "test": "1",
        }
        for label, name in enumerate(read_classes(RAW / "batches.meta"))
    ]


def test_two_runs_write_the_same_bytes(processed: Path) -> None:
    split.main()
    first = Path("data/processed/split.npz").read_bytes()
    split.main()
    assert Path("data/processed/split.npz").read_bytes() == first


@pytest.mark.parametrize(
    ("key", "value"),
    [("split.validation_fraction", -0.1), ("split.random_state", 2**32), ("split.stratify", True), ("split", 0.2)],
)
def test_bad_parameters_are_refused_before_anything_is_read(workdir: Path, key: str, value: Any) -> None:
    change_parameters({key: value})
    with pytest.raises(ExpectedError, match=rf"{key.rpartition('.')[2]}.*git restore --staged --worktree params\.yaml"):
        split.main()  # without any input: reading one would be another error


def test_a_fraction_that_leaves_nothing_to_train_is_refused(processed: Path) -> None:
    change_parameters({"split.validation_fraction": 0.99})
    with pytest.raises(ExpectedError, match=r"validation_fraction is 0\.99, which leaves none of the 50 images"):
        split.main()
    assert not Path("data/processed/split.npz").exists()
    change_parameters({"split.validation_fraction": 0.98})
    split.main()  # leaves one


def test_a_missing_input_ends_in_one_line(workdir: Path) -> None:
    result: subprocess.CompletedProcess[str] = run_stage("split")
    assert result.returncode == 1
    restore = "git restore metrics/dataset.json"
    assert result.stderr == f"split: metrics/dataset.json is missing; if git has it: {restore}; else: dvc repro\n"


@pytest.mark.real_data
def test_cifar10_is_split_as_in_the_paper(cifar10_workdir: Path) -> None:
    labels = np.load(cifar10_workdir / "data/processed/train_labels.npy")
    train_labels, validation_labels = train_test_split(labels, test_size=0.2, random_state=7)
    with np.load(cifar10_workdir / "data/processed/split.npz") as parts:
        assert np.array_equal(labels[parts["train"]], train_labels)
        assert np.array_equal(labels[parts["validation"]], validation_labels)
    counts = read_rows(cifar10_workdir / "metrics/class_distribution.csv")
    assert counts[0] == {"class": "airplane", "train": "3991", "validation": "1009", "test": "1000"}
    assert sum(int(row["train"]) for row in counts) == 40_000
    assert [int(row["train"]) + int(row["validation"]) for row in counts] == [5_000] * 10
