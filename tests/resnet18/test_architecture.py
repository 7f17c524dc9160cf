"""ResNet-18's architecture is torchvision's, and its input the notebook's normalisation."""

import copy

import numpy as np
import pytest
import torch
from torchvision import models, transforms

from stages.resnet18 import architecture as resnet18

MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]


def test_has_the_notebooks_number_of_weights() -> None:
    model = resnet18.build()
    assert sum(weight.numel() for weight in model.parameters()) == 11_181_642
    assert all(weight.requires_grad for weight in model.parameters())


def test_is_torchvisions_with_ten_outputs_to_the_bit() -> None:
    """The same seed gives the same weights and the same logits, in training and in evaluation mode."""
    images = torch.randn(4, 3, 32, 32)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        ours = resnet18.build()
        torch.manual_seed(7)
        theirs = models.resnet18(num_classes=10)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))
        assert torch.equal(ours.eval()(images), theirs.eval()(images))


def test_keeps_the_imagenet_stem() -> None:
    """A 7x7 convolution with stride 2 and max pooling: 8x8 before the first block, 1x1 after the last."""
    model = resnet18.build().eval()
    assert (model.conv1.kernel_size, model.conv1.stride, model.conv1.padding) == ((7, 7), (2, 2), (3, 3))
    assert model.maxpool.kernel_size == 3
    with torch.no_grad():
        stem = model.maxpool(model.relu(model.bn1(model.conv1(torch.zeros(1, 3, 32, 32)))))
        assert stem.shape == (1, 64, 8, 8)
        assert model.layer4(model.layer3(model.layer2(model.layer1(stem)))).shape == (1, 512, 1, 1)
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_its_layers_are_those_that_can_be_frozen() -> None:
    """Together they hold every weight, so that freezing all of them but one leaves that one to train."""
    model = resnet18.build()
    assert {name.split(".")[0] for name in model.state_dict()} == set(resnet18.LAYERS)


def test_the_number_of_outputs_is_a_parameter() -> None:
    assert resnet18.build(outputs=7).fc.out_features == 7


def test_input_is_torchvisions_to_tensor_and_normalize() -> None:
    """To 1e-6, a few units in the last place: ours folds the two steps into one multiplication."""
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    images[0, :, :, 0] = np.arange(256, dtype=np.uint8).repeat(4).reshape(32, 32)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    ours = resnet18.to_input(images, MEAN, STD)
    assert (ours.shape, ours.dtype) == ((8, 3, 32, 32), torch.float32)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(ours, torch.stack([transform(image) for image in images]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("frozen", "leading"),
    [
        ([], []),
        (["conv1"], ["conv1"]),
        (["bn1", "conv1"], ["conv1", "bn1"]),
        (["layer1", "fc"], []),
        (["conv1", "bn1", "layer2"], ["conv1", "bn1"]),
        (["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"], list(resnet18.LAYERS[:-1])),
    ],
)
def test_its_two_parts_are_the_whole_and_share_its_layers(frozen: list[str], leading: list[str]) -> None:
    torch.manual_seed(7)
    model = resnet18.build().eval()
    first, rest = resnet18.divide(model, frozen)
    weights = {id(weight) for name in leading for weight in getattr(model, name).parameters()}
    assert {id(weight) for weight in first.parameters()} == weights
    assert {id(weight) for weight in [*first.parameters(), *rest.parameters()]} == {
        id(weight) for weight in model.parameters()
    }
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(rest(first(images)), copy.deepcopy(model)(images))
