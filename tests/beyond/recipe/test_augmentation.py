"""Mirroring and shifting: against torch's own padding, and how the flip changes from epoch to epoch."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from beyond.recipe.augmentation import draw, move
from beyond.recipe.settings import AugmentationSettings
from tests.support.beyond import settings


def augmentation(flip: str, translate: int = 2) -> AugmentationSettings:
    return settings(f"augmentation.flip={flip}", f"augmentation.translate={translate}").augmentation


def flips(kind: str, epoch: int, images: int = 400) -> np.ndarray:
    return draw(augmentation(kind), images, seed=3, epoch=epoch).flip


def test_the_alternating_flip_mirrors_each_image_in_every_other_epoch() -> None:
    first = flips("alternating", 1)
    assert 150 < first.sum() < 250
    for epoch in range(2, 6):
        assert np.array_equal(flips("alternating", epoch), first if epoch % 2 else ~first)


def test_a_random_flip_does_not_alternate_and_none_flips_nothing() -> None:
    first, second = flips("random", 1), flips("random", 2)
    assert 150 < first.sum() < 250
    assert 100 < (first == second).sum() < 300
    assert not flips("none", 1).any()


def test_shifts_are_drawn_anew_each_epoch_within_their_bounds() -> None:
    moves = [draw(augmentation("none", 2), 400, seed=3, epoch=epoch) for epoch in (1, 2)]
    for shift in (moves[0].down, moves[0].right):
        assert set(shift) == {-2, -1, 0, 1, 2}
    assert not np.array_equal(moves[0].down, moves[1].down)
    assert not np.array_equal(moves[0].down, moves[0].right)
    still = draw(augmentation("none", 0), 400, seed=3, epoch=1)
    assert not still.down.any()
    assert not still.right.any()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, -1), (-3, 3)])
def test_a_move_is_a_crop_of_the_image_padded_by_reflection(flip: bool, down: int, right: int) -> None:
    pixels = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    padded = functional.pad(pixels.permute(0, 3, 1, 2).float(), (3, 3, 3, 3), mode="reflect")
    crop = padded[:, :, 3 + down : 11 + down, 3 + right : 11 + right]
    expected = (crop.flip(3) if flip else crop).permute(0, 2, 3, 1).to(torch.uint8)
    moved = move(pixels, torch.tensor([flip, False]), torch.tensor([down, 0]), torch.tensor([right, 0]))
    assert torch.equal(moved[0], expected[0])
    assert torch.equal(moved[1], pixels[1])
