"""ResNet-18 without the products that only meet padding trains as with PyTorch's own convolutions."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from stages import train_resnet18
from stages.common.config import load
from stages.resnet18 import architecture as resnet18
from stages.resnet18.live_taps import LiveTaps, leave_out_padding
from stages.train_resnet18 import Parameters
from tests.support.stage_runs import ROOT

STEPS, BATCH = 25, 8


def section(**changes: Any) -> train_resnet18.ResNet18:
    return load(Parameters, ROOT / "params.yaml").resnet18.model_copy(update=changes)


def pair(**changes: Any) -> tuple[nn.Module, nn.Module]:
    """A network of PyTorch's own convolutions, and the same network as the stage trains it; both in float64."""
    torch.manual_seed(7)
    plain = train_resnet18.starting_model(section(**changes))
    return plain.double(), train_resnet18.faster(copy.deepcopy(plain).float(), section(**changes)).double()


def trained(model: nn.Module, **changes: Any) -> list[float]:
    """The losses of 25 steps of the stage's Adam, in float64: there rounding does not grow to a real difference."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn((STEPS, BATCH, 3, 32, 32), generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 10, (STEPS, BATCH), generator=generator)
    optimiser = train_resnet18.adam(model, section(**changes))
    losses = []
    for inputs, targets in zip(images, labels, strict=True):
        loss = functional.cross_entropy(model(inputs), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def furthest(one: nn.Module, other: nn.Module) -> float:
    """The largest difference of two state dicts, relative to the largest value of each array."""
    states = [model.state_dict() for model in (one, other)]
    assert list(states[0]) == list(states[1])
    return max(
        float((value - states[1][name]).abs().max() / value.abs().max().clamp(min=1e-30))
        for name, value in states[0].items()
    )


def replaced(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, LiveTaps)]


def test_25_steps_give_pytorchs_own_losses_and_weights_and_1_percent_of_learning_rate_does_not() -> None:
    plain, ours = pair()
    start = copy.deepcopy(plain.state_dict())
    another = copy.deepcopy(ours)
    losses = trained(plain)
    assert trained(ours) == pytest.approx(losses, rel=1e-9)
    assert furthest(plain, ours) < 1e-7
    middle = plain.state_dict()["layer4.1.conv2.weight"] != start["layer4.1.conv2.weight"]
    assert middle[:, :, 1, 1].all()  # the taps that matter have learned, the others have not moved at all
    assert middle.sum() == middle[:, :, 1, 1].numel()

    other = trained(another, learning_rate=0.00101)
    assert abs(other[1] / losses[1] - 1) > 1e-5
    assert furthest(plain, another) > 1e-3


def test_the_third_and_fourth_layers_small_maps_are_replaced_and_6_9_million_weights_left_out() -> None:
    plain, ours = pair()
    assert replaced(ours) == [
        *("layer3.0.conv2", "layer3.1.conv1", "layer3.1.conv2"),
        *("layer4.0.conv1", "layer4.0.conv2", "layer4.1.conv1", "layer4.1.conv2"),
    ]
    left_out = sum(weight.numel() for weight in plain.parameters()) - sum(
        weight.numel() for weight in ours.parameters()
    )
    assert left_out == 3 * 8 * 512 * 512 + 5 * 512 * 256  # eight of nine dead taps three times, five once


def test_with_weight_decay_dead_taps_stay_for_they_decay() -> None:
    plain, ours = pair(weight_decay=0.01)
    assert replaced(ours) == ["layer3.0.conv2", "layer3.1.conv1", "layer3.1.conv2"]
    losses = trained(plain, weight_decay=0.01)
    assert trained(ours, weight_decay=0.01) == pytest.approx(losses, rel=1e-9)
    assert furthest(plain, ours) < 1e-7


def test_frozen_weights_stay_frozen_and_get_no_gradient() -> None:
    frozen = ["conv1", "bn1", "layer1", "layer2", "layer3"]
    plain, ours = pair(frozen=frozen)
    trained(ours)
    gradients = {name.split(".")[0] for name, weight in ours.named_parameters() if weight.grad is not None}
    assert gradients == {"layer4", "fc"}
    assert {name for name, weight in ours.named_parameters() if weight.requires_grad} == {
        name for name, weight in plain.named_parameters() if weight.requires_grad
    }


def test_the_state_dict_is_that_of_the_plain_network_both_ways() -> None:
    plain, ours = pair()
    assert furthest(plain, ours) == 0
    torch.manual_seed(8)
    other = resnet18.build().double()
    ours.load_state_dict(other.state_dict())
    assert furthest(other, ours) == 0
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(ours.eval()(images), other.eval()(images), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("broken", ["missing", "misshapen"])
def test_a_state_that_does_not_fit_is_refused_in_pytorchs_words(broken: str) -> None:
    _, ours = pair()
    state = ours.state_dict()
    name = "layer4.1.conv2.weight"
    if broken == "missing":
        del state[name]
    else:
        state[name] = torch.zeros(3, 3)
    with pytest.raises(RuntimeError, match=name):
        ours.load_state_dict(state)


@pytest.mark.parametrize(
    ("size", "stride", "padding", "side"), [(1, 1, 1, 3), (2, 1, 1, 3), (2, 2, 1, 3), (2, 1, 2, 5)]
)
def test_any_small_convolution_and_its_gradients(size: int, stride: int, padding: int, side: int) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(3, 5, side, stride, padding, bias=False).double()
    inputs = torch.randn(4, 3, size, size, dtype=torch.float64, requires_grad=True)
    expected = plain(inputs)
    ours = LiveTaps(plain, size, expected.shape[-1])
    assert torch.allclose(ours(inputs), expected)
    assert torch.autograd.gradcheck(ours, inputs)
    direction = torch.randn_like(expected)
    (given,) = torch.autograd.grad(expected, inputs, direction, retain_graph=True)
    (ours_given,) = torch.autograd.grad(ours(inputs), inputs, direction)
    assert torch.allclose(ours_given, given)
    (of_weight,) = torch.autograd.grad(ours(inputs), ours.weight, direction)
    (of_kernel,) = torch.autograd.grad(expected, plain.weight, direction)
    assert torch.allclose(of_weight, of_kernel.flatten(2).permute(2, 1, 0)[ours.live])
    assert of_kernel.abs().sum() == pytest.approx(of_weight.abs().sum().item())  # what is left out has no gradient


@pytest.mark.parametrize(
    "convolution",
    [nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False)],
    ids=["bias", "groups"],
)
def test_what_it_does_not_know_stays(convolution: nn.Conv2d) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), convolution)
    leave_out_padding(model, 1, keep_dead_taps=False)
    assert model[1] is convolution


def test_a_convolution_that_leaves_out_a_pixel_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves out a pixel"):
        LiveTaps(nn.Conv2d(3, 4, 1, stride=2, bias=False), 2, 1)


def test_measuring_the_maps_leaves_the_network_as_it_was() -> None:
    model = resnet18.build().train()
    before = copy.deepcopy(model.state_dict())
    leave_out_padding(model, 32, keep_dead_taps=False)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    larger = resnet18.build()
    leave_out_padding(larger, 224, keep_dead_taps=False)
    assert replaced(larger) == []  # at ImageNet's size, no map is small
