"""The augmentation has exactly the outcomes of the paper's torchvision transforms, each as likely as theirs."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torchvision.transforms import functional

from stages.training.augmentation import Augmentation, Choices, augment, draw
from stages.training.randomness import generator

# Every flip with every place of the crop: what RandomHorizontalFlip and RandomCrop(32, padding=4) can choose.
ALL_CHOICES = np.array([(flip, top, left) for flip in (0, 1) for top in range(9) for left in range(9)])
UNLIKELY = 1e-4  # the draws below are fixed by their seeds: a right distribution was checked once to lie above it


def choices_of(rows: np.ndarray) -> Choices:
    """Rows of (flip, top, left) as Choices."""
    return Choices(rows[:, 0].astype(bool), rows[:, 1], rows[:, 2])


def with_torchvision(image: np.ndarray, flip: bool, top: int, left: int) -> np.ndarray:
    """The same choices, carried out by torchvision on one image (32, 32, 3), in its transforms' order."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    if flip:
        pixels = functional.hflip(pixels)
    pixels = functional.crop(functional.pad(pixels, [4]), top, left, 32, 32)
    return pixels.permute(1, 2, 0).numpy()


def cell(choices: Choices) -> np.ndarray:
    """The number, 0 to 161, of each image's row in ALL_CHOICES."""
    return (choices.flip * 81 + choices.top * 9 + choices.left).astype(int)


def test_every_outcome_is_torchvisions_to_the_pixel() -> None:
    images = np.random.default_rng(0).integers(0, 256, (len(ALL_CHOICES), 32, 32, 3), dtype=np.uint8)
    augmented = augment(images, choices_of(ALL_CHOICES))
    assert (augmented.shape, augmented.dtype) == (images.shape, np.uint8)
    for image, ours, (flip, top, left) in zip(images, augmented, ALL_CHOICES, strict=True):
        expected = with_torchvision(image, bool(flip), int(top), int(left))
        assert np.array_equal(ours, expected), f"flip {flip}, top {top}, left {left}"


def test_no_two_choices_give_the_same_picture() -> None:
    image = np.random.default_rng(0).integers(1, 256, (1, 32, 32, 3), dtype=np.uint8)
    pictures = augment(np.repeat(image, len(ALL_CHOICES), axis=0), choices_of(ALL_CHOICES))
    assert len({picture.tobytes() for picture in pictures}) == 162


def test_the_middle_crop_without_a_flip_changes_nothing_and_the_input_stays() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    before = images.copy()
    rows = np.array([(0, 4, 4), (1, 0, 8), (1, 4, 4)])
    augmented = augment(images, choices_of(rows))
    assert np.array_equal(augmented[0], images[0])
    assert np.array_equal(augmented[2], images[2, :, ::-1])
    assert np.array_equal(images, before)
    assert not np.shares_memory(augmented, images)


def test_what_a_crop_takes_from_beyond_the_edge_is_black() -> None:
    white = np.full((1, 32, 32, 3), 255, dtype=np.uint8)
    corner = augment(white, choices_of(np.array([(0, 0, 8)])))[0]  # 4 pixels beyond the top and the right
    assert not corner[:4].any()
    assert not corner[:, 28:].any()
    assert (corner[4:, :28] == 255).all()


def test_a_batch_of_an_epochs_choices_is_that_part_of_the_whole() -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
    choices = draw("flip_crop", 10, generator(7, 1, "augmentation"))
    parts = [augment(images[rows], choices[rows]) for rows in (slice(0, 4), slice(4, 8), slice(8, 12))]
    assert np.array_equal(np.concatenate(parts), augment(images, choices))


def test_flip_and_crop_are_uniform_over_all_outcomes_and_independent() -> None:
    """Chi-square over the 162 joint outcomes, 1,000 expected of each, and sharper of flip, top and left alone.

    A chance of 0.49 to flip would lie eight standard deviations off.
    """
    choices = draw("flip_crop", 162_000, generator(7, 1, "augmentation"))
    counts = np.bincount(cell(choices), minlength=162)
    assert len(counts) == 162
    assert chisquare(counts).pvalue > UNLIKELY
    for drawn, outcomes in ((choices.flip, 2), (choices.top, 9), (choices.left, 9)):
        counts = np.bincount(drawn, minlength=outcomes)
        assert len(counts) == outcomes
        assert chisquare(counts).pvalue > UNLIKELY


def test_flip_alone_leaves_every_crop_in_the_middle() -> None:
    choices = draw("flip", 10_000, generator(7, 1, "augmentation"))
    assert (choices.top == 4).all()
    assert (choices.left == 4).all()
    assert chisquare(np.bincount(choices.flip)).pvalue > UNLIKELY


def test_none_changes_no_image() -> None:
    images = np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)
    choices = draw("none", 100, generator(7, 1, "augmentation"))
    assert not choices.flip.any()
    assert np.array_equal(augment(images, choices), images)


@pytest.mark.parametrize("kind", ["none", "flip", "flip_crop"])
def test_choices_are_one_for_each_image(kind: Augmentation) -> None:
    choices = draw(kind, 7, generator(7, 1, "augmentation"))
    assert choices.flip.shape == choices.top.shape == choices.left.shape == (7,)
    assert choices.flip.dtype == bool


def test_flips_are_the_same_with_and_without_the_crop() -> None:
    """So runs with `flip` and with `flip_crop` differ by the crop alone."""
    flip = draw("flip", 1000, generator(7, 1, "augmentation")).flip
    assert np.array_equal(flip, draw("flip_crop", 1000, generator(7, 1, "augmentation")).flip)
