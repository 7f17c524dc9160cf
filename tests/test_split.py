"""The split: the paper's exactly, none at all, and what it refuses."""

import csv
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from stages import preprocess, split
from stages.download import main as download
from stages.errors import ExpectedError
from tests.stage_runs import change_parameters, run_stage


@pytest.fixture
def processed(workdir: Path) -> Path:
    """A working directory in which download and preprocess ran on a tiny stand-in."""
    download()
    preprocess.main()
    return workdir


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


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


def test_every_image_is_in_exactly_one_part() -> None:
    train, validation = split.split_indices(1_001, 0.3, 0)
    assert sorted([*train, *validation]) == list(range(1_001))
    assert len(validation) == 301  # rounded up


def test_another_seed_gives_another_split() -> None:
    assert not np.array_equal(split.split_indices(100, 0.2, 7)[0], split.split_indices(100, 0.2, 8)[0])


def test_fraction_0_keeps_all_images_in_order(processed: Path) -> None:
    change_parameters({"split.validation_fraction": 0})
    split.main()
    with np.load("data/processed/split.npz") as parts:
        assert parts["train"].tolist() == list(range(50))
        assert parts["validation"].shape == (0,)
        assert parts["train"].dtype == parts["validation"].dtype == np.int64
    assert {row["validation"] for row in rows(Path("metrics/class_distribution.csv"))} == {"0"}


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
    assert rows(Path("metrics/class_distribution.csv")) == [
        {
            "class": name,
            "train": str((labels[train] == label).sum()),
            "validation": str((labels[validation] == label).sum()),
            "test": "1",
        }
        for label, name in enumerate(preprocess.read_classes(preprocess.RAW / "batches.meta"))
    ]


def test_two_runs_write_the_same_bytes(processed: Path) -> None:
    split.main()
    first = Path("data/processed/split.npz").read_bytes()
    split.main()
    assert Path("data/processed/split.npz").read_bytes() == first


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("split.validation_fraction", 1, r"split\.validation_fraction is 1; allowed: a number from 0"),
        ("split.validation_fraction", 1.0, r"split\.validation_fraction is 1\.0; allowed: a number from 0"),
        ("split.validation_fraction", -0.1, r"split\.validation_fraction is -0\.1; allowed"),
        ("split.validation_fraction", "0.2", r"split\.validation_fraction is '0\.2'.*write 0\.2"),
        ("split.validation_fraction", True, r"split\.validation_fraction is True; allowed"),
        ("split.validation_fraction", None, r"split\.validation_fraction is None; allowed"),
        ("split.validation_fraction", float("nan"), r"split\.validation_fraction is nan; allowed"),
        ("split.random_state", -1, r"split\.random_state is -1; allowed: a whole number"),
        ("split.random_state", 2**32, r"split\.random_state is 4294967296; allowed"),
        ("split.random_state", 7.5, r"split\.random_state is 7\.5; allowed"),
        ("split.stratify", True, r"unknown key 'split\.stratify'; allowed: validation_fraction, random_state"),
        ("split", 0.2, r"split is 0\.2; allowed: a mapping with the keys validation_fraction, random_state"),
    ],
)
def test_bad_parameters_are_refused_before_anything_is_read(workdir: Path, key: str, value: Any, message: str) -> None:
    change_parameters({key: value})
    with pytest.raises(ExpectedError, match=f"{message}.*git restore --staged --worktree params.yaml"):
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
    counts = rows(cifar10_workdir / "metrics/class_distribution.csv")
    assert counts[0] == {"class": "airplane", "train": "3991", "validation": "1009", "test": "1000"}
    assert sum(int(row["train"]) for row in counts) == 40_000
    assert [int(row["train"]) + int(row["validation"]) for row in counts] == [5_000] * 10
