"""The network: shapes, sizes, and what each of its switches changes."""

import pytest
import torch

from beyond.recipe.network import Network
from beyond.recipe.step import parameter_groups
from tests.support.beyond import settings


def network(*overrides: str) -> Network:
    torch.manual_seed(0)
    return Network(settings(*overrides).network)


PIXELS = torch.randint(0, 256, (6, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("widths", "weights"), [([32, 128, 128], 497_960), ([64, 256, 256], 1_972_648)])
def test_it_has_the_published_sizes(widths: list[int], weights: int) -> None:
    """Those of the trial run and of airbench94, where the whitening's 12 filters count without their negatives."""
    built = network(f"network.widths={widths}")
    assert sum(weight.numel() for weight in built.parameters()) == weights + 12 * 12


def test_it_gives_ten_logits_an_image_and_normalises_by_channel() -> None:
    built = network().eval()
    assert built(PIXELS).shape == (6, 10)
    built.mean, built.std = torch.tensor([0.2, 0.4, 0.6]), torch.tensor([0.1, 0.2, 0.5])
    expected = (PIXELS.permute(0, 3, 1, 2) / 255 - built.mean[:, None, None]) / built.std[:, None, None]
    torch.testing.assert_close(built.to_input(PIXELS), expected)


def test_leaving_out_what_the_pooling_drops_is_the_same_function_with_the_same_gradients() -> None:
    losses = []
    for skips in ("true", "false"):
        built = network(f"network.skip_unpooled={skips}").train()
        loss = torch.nn.functional.cross_entropy(built(PIXELS), torch.arange(6))
        loss.backward()
        losses.append([loss.detach(), *(weight.grad for weight in built.parameters() if weight.grad is not None)])
    for one, other in zip(*losses, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_an_identity_start_is_one_and_can_be_turned_off() -> None:
    for on in (True, False):
        convolution = network(f"network.identity_start={str(on).lower()}").features[2].conv1  # 4 to 5 channels
        images = torch.randn(2, 4, 8, 8)
        assert torch.equal(convolution(images)[:, :4], images) is on


def test_without_whitening_the_first_convolution_is_trained() -> None:
    assert not network().whiten.weight.requires_grad
    whitening, plain = (parameter_groups(network(f"network.whitening={on}"))["filters"] for on in ("true", "false"))
    assert [len(whitening), len(plain)] == [6, 7]


@pytest.mark.parametrize("activation", ["gelu", "silu", "relu"])
def test_the_activation_is_the_one_named(activation: str) -> None:
    built = network(f"network.activation={activation}")
    names = {type(module).__name__.lower() for module in built.modules()}
    assert names & {"gelu", "silu", "relu"} == {activation}


def test_batch_norm_keeps_that_part_of_its_statistics() -> None:
    norm = network("network.batch_norm_keeps=0.9").train().features[1].norm1
    norm(torch.full((4, 4, 2, 2), 3.0))
    torch.testing.assert_close(norm.running_mean, torch.full((4,), 0.3))
    assert not norm.weight.requires_grad
