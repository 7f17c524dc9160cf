"""Test-time augmentation equals its definition, and what is no model is refused in one line."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from beyond.recipe.network import Network
from beyond.recipe.predicting import VIEWS, load_model, predict, save
from stages.common.errors import ExpectedError
from tests.support.beyond import settings

PIXELS = torch.randint(0, 256, (7, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def model() -> Network:
    torch.manual_seed(1)
    return Network(settings().network).eval()


def test_six_views_are_the_published_definition(model: Network) -> None:
    """Half the image and its mirror; a quarter each its shifts to two corners of its reflection, and their mirrors."""
    with torch.no_grad():
        padded = functional.pad(PIXELS.permute(0, 3, 1, 2).float(), (1, 1, 1, 1), mode="reflect")
        padded = padded.permute(0, 2, 3, 1).to(torch.uint8)

        def both(pixels: torch.Tensor) -> torch.Tensor:
            return (model(pixels) + model(pixels.flip(2))) / 2

        shifted = (both(padded[:, :32, :32]) + both(padded[:, 2:, 2:])) / 2
        torch.testing.assert_close(predict(model, PIXELS, 6), (both(PIXELS) + shifted) / 2)
        torch.testing.assert_close(predict(model, PIXELS, 2), both(PIXELS))
        torch.testing.assert_close(predict(model, PIXELS, 1), model(PIXELS))


def test_the_views_weights_are_a_mean() -> None:
    for count, views in VIEWS.items():
        assert len(views) == count
        assert sum(weight for weight, *_ in views) == 1


def test_a_saved_model_predicts_the_same_and_another_is_refused(model: Network, tmp_path: Path) -> None:
    save(model, tmp_path / "model.pt")
    torch.testing.assert_close(predict(load_model(tmp_path / "model.pt", settings().network), PIXELS), model(PIXELS))
    with pytest.raises(ExpectedError, match="is not a model that this pipeline trained"):
        load_model(tmp_path / "model.pt", settings("network.widths=[4, 5, 7]").network)
    (tmp_path / "model.pt").write_bytes(b"junk")
    with pytest.raises(ExpectedError, match="is not a model that this pipeline trained"):
        load_model(tmp_path / "model.pt", settings().network)
