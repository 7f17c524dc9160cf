"""Synthetic data: its files, its label, its bytes, and that a model can learn it."""

import hashlib
import pickle
from pathlib import Path

import numpy as np

from stages.cifar10 import synthetic
from stages.cifar10.official import OFFICIAL_SHA256, SYNTHETIC_LABEL, TEST_BATCH, TRAIN_BATCHES


def load(path: Path) -> dict:
    return pickle.loads(path.read_bytes())


def test_files_have_the_official_names_and_layout(tiny_batches: Path) -> None:
    assert {path.name for path in tiny_batches.iterdir()} == set(OFFICIAL_SHA256)
    for name, count in (("data_batch_1", 10), ("data_batch_5", 10), ("test_batch", 10)):
        batch = load(tiny_batches / name)
        assert list(batch) == ["batch_label", "labels", "data", "filenames"]
        assert batch["data"].shape == (count, 3072)
        assert batch["data"].dtype == np.uint8
        assert len(batch["labels"]) == len(batch["filenames"]) == count
    meta = load(tiny_batches / "batches.meta")
    assert meta == {"num_cases_per_batch": 10, "label_names": list(synthetic.CLASSES), "num_vis": 3072}


def test_every_file_says_that_it_is_not_cifar10(tiny_batches: Path) -> None:
    for name in OFFICIAL_SHA256:
        if name != "batches.meta":  # which has no place for it, but the shapes' names
            assert SYNTHETIC_LABEL.encode() in (tiny_batches / name).read_bytes()
    cifar10 = {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"}
    assert cifar10.isdisjoint(load(tiny_batches / "batches.meta")["label_names"])


def test_the_same_seed_draws_the_same_bytes_on_every_machine(tiny_batches: Path) -> None:
    # Pinned: a change of the drawing would change the demo and the numbers that the tests expect of it.
    batches = [load(tiny_batches / name) for name in (*TRAIN_BATCHES, TEST_BATCH)]
    drawn = b"".join(batch["data"].tobytes() + bytes(batch["labels"]) for batch in batches)
    assert hashlib.sha256(drawn).hexdigest()[:16] == "4de15161ca4223f2"


def test_another_seed_draws_others_and_the_parts_differ() -> None:
    first, labels = synthetic.draw(np.random.default_rng([1, 0]), 50)
    for other in ([2, 0], [1, 1]):
        assert not np.array_equal(synthetic.draw(np.random.default_rng(other), 50)[0], first)
    assert np.bincount(labels).tolist() == [5] * 10
    assert labels.tolist() != sorted(labels)


def test_the_test_part_does_not_depend_on_the_size_of_the_training_part(tiny_batches: Path, tmp_path: Path) -> None:
    synthetic.write_synthetic(tmp_path, seed=1, train_images=100, test_images=10)
    assert (tmp_path / "test_batch").read_bytes() == (tiny_batches / "test_batch").read_bytes()


def test_a_network_learns_it_well_above_chance_but_colour_alone_does_not_tell() -> None:
    import torch
    from torch import nn

    (images, labels), (test_images, test_labels) = (
        (torch.from_numpy(images).float() / 255, torch.from_numpy(labels))
        for images, labels in (
            synthetic.draw(np.random.default_rng([7, part]), count) for part, count in ((0, 2000), (1, 500))
        )
    )

    def accuracy(network: nn.Module, epochs: int) -> float:
        optimiser = torch.optim.Adam(network.parameters(), 0.003)
        for _ in range(epochs):
            for batch in torch.randperm(len(images)).split(32):
                optimiser.zero_grad()
                nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
                optimiser.step()
        with torch.no_grad():
            return (network(test_images).argmax(1) == test_labels).float().mean().item()

    torch.manual_seed(0)
    convolutional = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 49, 10),
    )
    of_mean_colour = nn.Sequential(nn.AvgPool2d(32), nn.Flatten(), nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 10))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a network only waits for a second one
    try:
        assert 0.4 < accuracy(convolutional, epochs=3) < 0.99
        assert accuracy(of_mean_colour, epochs=6) < 0.6
    finally:
        torch.set_num_threads(threads)
