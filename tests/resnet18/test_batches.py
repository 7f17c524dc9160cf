"""Batches on the device: NumPy's augmentation to the pixel, and frozen features that are computed once."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from stages.resnet18 import architecture as resnet18
from stages.resnet18 import batches as torch_batches
from stages.resnet18.batches import Batches
from stages.training.augmentation import Augmentation, augment, draw, places
from stages.training.images import Images
from stages.training.randomness import generator

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]


@pytest.fixture
def images() -> Images:
    rng = np.random.default_rng(0)
    return Images(rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8), np.arange(40, dtype=np.uint8) % 10)


def batches(images: Images, augmentation: Augmentation, frozen: nn.Sequential, rows: Any = None) -> Batches:
    rows = np.arange(len(images.labels)) if rows is None else rows
    return Batches(images, rows, augmentation, MEAN, STD, frozen, torch.device("cpu"))


def counting(calls: list[int]) -> nn.Sequential:
    """A frozen layer that notes how many images it sees each time."""

    class Counting(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            calls.append(len(inputs))
            return inputs[:, :, :2] * 2

    return nn.Sequential(Counting())


@pytest.mark.parametrize("kind", ["flip", "flip_crop"])
def test_augments_as_numpy_does(kind: Augmentation, images: Images) -> None:
    choices = draw(kind, 40, generator(7, 1, "augmentation"))
    rows, columns = (torch.from_numpy(place) for place in places(choices, 32, 32))
    ours = torch_batches.augment(torch.from_numpy(images.pixels), rows, columns)
    assert np.array_equal(ours.numpy(), augment(images.pixels, choices))


@pytest.mark.parametrize("kind", ["none", "flip_crop"])
def test_batches_are_normalised_augmented_images_in_the_given_order(kind: Augmentation, images: Images) -> None:
    order = np.random.default_rng(1).permutation(40)[:19]
    choices = draw(kind, 19, generator(7, 1, "augmentation"))
    made = list(batches(images, kind, nn.Sequential())(order, choices, 8))
    assert [len(labels) for _, labels in made] == [8, 8, 3]
    inputs, labels = (torch.cat(parts) for parts in zip(*made, strict=True))
    assert torch.equal(inputs, resnet18.to_input(augment(images.pixels[order], choices), MEAN, STD))
    assert labels.tolist() == images.labels[order].tolist()
    assert labels.dtype == torch.int64


def test_frozen_features_are_computed_once_where_nothing_augments(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_batches, "FEATURE_BATCH", 7)
    calls: list[int] = []
    rows = np.arange(5, 25)
    given = batches(images, "none", counting(calls), rows)
    computed = len(calls)
    assert sum(calls) == 1 + len(rows)  # one image tells how large the features are
    for epoch in (1, 2):
        order = generator(7, epoch, "order").permutation(rows)
        made = list(given(order, draw("none", len(rows), generator(7, epoch, "augmentation")), 8))
        inputs = torch.cat([inputs for inputs, _ in made])
        assert torch.equal(inputs, resnet18.to_input(images.pixels[order], MEAN, STD)[:, :, :2] * 2)
        assert torch.cat([labels for _, labels in made]).tolist() == images.labels[order].tolist()
    assert len(calls) == computed


def test_augmented_images_features_are_computed_for_each_batch(images: Images) -> None:
    calls: list[int] = []
    given = batches(images, "flip", counting(calls))
    assert calls == []
    list(given(np.arange(40), draw("flip", 40, generator(7, 1, "augmentation")), 16))
    assert calls == [16, 16, 8]


def test_features_that_would_take_too_much_memory_are_computed_for_each_batch(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_batches, "MOST_FEATURES", 40 * 3 * 2 * 32 * 4 - 1)
    calls: list[int] = []
    given = batches(images, "none", counting(calls))
    list(given(np.arange(40), draw("none", 40, generator(7, 1, "augmentation")), 20))
    assert calls == [1, 20, 20]


def test_what_is_frozen_has_no_gradient_and_normalises_by_its_own_statistics(images: Images) -> None:
    torch.manual_seed(7)
    model = resnet18.build().train()
    frozen, _ = resnet18.divide(model, ["conv1", "bn1"])
    statistics = model.bn1.running_mean.clone()
    for kind in ("none", "flip"):
        given = batches(images, kind, frozen)
        inputs, _ = next(given(np.arange(40), draw(kind, 40, generator(7, 1, "augmentation")), 16))
        assert inputs.shape == (16, 64, 8, 8)
        assert not inputs.requires_grad
    assert torch.equal(model.bn1.running_mean, statistics)
