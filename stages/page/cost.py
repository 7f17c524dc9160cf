"""What a training takes in floating-point operations, counted from the shapes of the network's layers.

A multiplication and an addition are two operations. Counted are convolutions and dense layers of the plain networks, as
Keras and torchvision build them; activations, batch norms, pooling and the optimiser are less than a percent. Training
takes a layer's product three times: forward, for the gradient of its weights, and for that of its input (Kaplan et al.,
2020, section 2.1). The first trained layer needs no gradient of its input, and a frozen one needs none.
"""

from typing import NamedTuple

from stages.common.files import Json

IMAGE, COLOURS, CLASSES = 32, 3, 10  # pixels a side; channels of the input; outputs


class Layer(NamedTuple):
    """A convolution, or a dense layer, which is one of a single pixel."""

    part: str  # of the network, as `frozen` names it
    is_first: bool  # of its part: its input is what the part before gives
    side: int  # of the output, in pixels
    kernel_size: int
    inputs: int
    outputs: int

    @property
    def operations(self) -> int:
        """Of the forward pass of an image."""
        return 2 * (self.side * self.kernel_size) ** 2 * self.inputs * self.outputs


def keras_cnn_layers(parameters: Json) -> list[Layer]:
    """The Keras CNN's, by its parameters (dotted keys)."""
    layers: list[Layer] = []
    side, channels = IMAGE, COLOURS
    for block, outputs in enumerate(parameters["keras_cnn.filters"], start=1):
        for _ in range(parameters.get("keras_cnn.convolutions_per_block", 1)):
            kernel_size = parameters["keras_cnn.kernel_size"]
            layers.append(Layer(f"block{block}", not layers, side, kernel_size, channels, outputs))
            channels = outputs
        side //= 2
    units = parameters["keras_cnn.dense_units"]
    return [*layers, Layer("dense", True, 1, 1, side**2 * channels, units), Layer("dense", False, 1, 1, units, CLASSES)]


def resnet18_layers(parameters: Json) -> list[Layer]:
    """ResNet-18's (He et al., 2016, table 1), with ImageNet's stem on images of 32x32 pixels."""
    side = IMAGE // 4  # the stem's convolution halves it, and so does its pooling
    layers, channels = [Layer("conv1", True, IMAGE // 2, 7, COLOURS, 64)], 64
    for part, outputs in (("layer1", 64), ("layer2", 128), ("layer3", 256), ("layer4", 512)):
        side = side if outputs == channels else side // 2
        layers.append(Layer(part, True, side, 3, channels, outputs))
        layers += [Layer(part, False, side, 3, outputs, outputs)] * 3
        if outputs != channels:  # the shortcut
            layers.append(Layer(part, True, side, 1, channels, outputs))
        channels = outputs
    return [*layers, Layer("fc", True, 1, 1, channels, CLASSES)]


LAYERS = {"keras_cnn": keras_cnn_layers, "resnet18": resnet18_layers}


def predicting_operations(model: str, parameters: Json) -> int:
    """Operations of predicting one image.

    Args:
        model: "keras_cnn" or "resnet18".
        parameters: A run's, by dotted keys.
    """
    return sum(layer.operations for layer in LAYERS[model](parameters))


def training_operations(model: str, parameters: Json) -> int:
    """Operations of training on one image once, as `predicting_operations`."""
    layers, frozen = LAYERS[model](parameters), parameters.get(f"{model}.frozen") or []
    first = next((layer.part for layer in layers if layer.part not in frozen), None)
    total, is_trained = 0, False
    for layer in layers:
        is_trained = is_trained or layer.part == first
        products = 1 + is_trained + (is_trained and not (layer.part == first and layer.is_first))
        total += products * layer.operations
    return total
