"""The whitening filters: what they make of the patches is white."""

import torch

from beyond.recipe.network import Network
from beyond.recipe.whitening import EPS, patch_moments, whitening_filters
from tests.support.beyond import settings


def correlated_images() -> torch.Tensor:
    """Images whose neighbouring pixels and channels are much alike, as in photographs."""
    noise = torch.randn(40, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.avg_pool2d(noise, 2, stride=1) + 0.1 * noise[:, :1, 1:, 1:]


def test_the_filters_make_the_patches_white() -> None:
    images = correlated_images()
    outputs = torch.nn.functional.conv2d(images, whitening_filters(images, eps=0.0))
    rows = outputs.permute(0, 2, 3, 1).reshape(-1, 12).double()
    moments = rows.T @ rows / len(rows)
    torch.testing.assert_close(moments, torch.eye(12, dtype=torch.float64), atol=1e-4, rtol=0)
    before = patch_moments(images)
    assert (before - before.diag().diag()).abs().max() > 0.05  # they were not


def test_eps_keeps_faint_directions_from_being_amplified() -> None:
    images = correlated_images()
    images[:, 2] = images[:, 1]  # four directions of no variance at all
    filters = whitening_filters(images)
    assert torch.isfinite(filters).all()
    assert filters.flatten(1).norm(dim=1).max() <= EPS**-0.5 * 1.001


def test_the_network_takes_each_filter_and_its_negative() -> None:
    filters = whitening_filters(correlated_images())
    network = Network(settings().network)
    network.start_whitening(filters)
    assert torch.equal(network.whiten.weight, torch.cat([filters, -filters]))
