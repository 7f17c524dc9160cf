"""How far a training step is from the least time that the machine could take for it.

The least time is the number of floating-point operations of a step (a multiplication and an addition are two) over the
rate at which the same framework multiplies large matrices. It is an estimate, not a bound: a convolution may take fewer
operations (Winograd), and batch norms, pooling and the optimiser, which memory limits, are not counted. The time that
the framework takes for a step's convolutions and dense layers is measured as well: the median of many, as for the
steps, while the rate of large products is the best of many.

`python -m benchmarks.limit torch 2048 64 128` measures one framework with matrices of this side, and its model with
these batch sizes, and prints JSON.
"""

import importlib
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

from stages.common.config import read
from stages.common.errors import ExpectedError, run_program
from stages.common.files import flat
from stages.common.paths import PARAMETERS
from stages.keras_cnn import backend as keras_backend
from stages.page.cost import CLASSES, IMAGE, keras_cnn_layers, training_operations

SIDE = 2048  # of the matrices: float32 takes 16 MB, more than a core's cache
QUICK_SIDE = 256
REPEATS = 20
WARM_UP = 3
# PyTorch's operations on the CPU; the slow ones are where it has no oneDNN.
CONVOLUTION = r"mkldnn_convolution|convolution_backward|_slow_conv2d_forward|_slow_conv2d_backward"
PRODUCTS = re.compile(rf"::(mm|addmm_?|{CONVOLUTION})$")


def main() -> None:
    """Print the rates of one framework, and the time of its model's products in a step, for each batch size.

    torch's answer holds ResNet-18's operations and the GPU as well.
    """
    framework, side, *batch_sizes = sys.argv[1:]
    product = {"torch": torch_product, "tensorflow": tensorflow_product}[framework]
    answer: dict[str, Any] = {"gflops_per_second": round(rate(product, int(side)), 1)}
    products_ms = {"torch": resnet18_products_ms, "tensorflow": keras_cnn_products_ms}[framework]
    answer["products_ms"] = {size: round(products_ms(int(size)), 3) for size in batch_sizes}
    if framework == "torch":
        import torch

        answer["operations"] = resnet18_operations()
        answer["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    print(json.dumps(answer))


def seconds(compute: Callable[[], Any]) -> list[float]:
    """The seconds of many calls, after a few to warm up."""
    times = []
    for _ in range(WARM_UP + REPEATS):
        began = time.perf_counter()
        compute()  # an operation of TensorFlow on the CPU is done when it returns
        times.append(time.perf_counter() - began)
    return times[WARM_UP:]


def rate(product: Callable[[int], Callable[[], Any]], side: int) -> float:
    """The best of several products of two square matrices, in 1e9 operations a second: other work only slows them."""
    return 2 * side**3 / min(seconds(product(side))) / 1e9


def torch_product(side: int) -> Callable[[], Any]:
    """The product in PyTorch, on the CPU."""
    import torch

    left, right = torch.rand(2, side, side)
    return lambda: left @ right


def tensorflow_product(side: int) -> Callable[[], Any]:
    """The product in TensorFlow, on the CPU; `numpy` waits for it."""
    tf = tensorflow()
    left, right = (tf.random.uniform((side, side)) for _ in range(2))
    return lambda: (left @ right)[0, 0].numpy()


def tensorflow() -> Any:
    """TensorFlow, on the CPU, set up as the training stage does, where random numbers need a seed."""
    keras_backend.start("tensorflow", "cpu").utils.set_random_seed(0)
    return importlib.import_module("tensorflow")


def keras_cnn_operations() -> int:
    """Operations a training image in the convolutions and dense layers of the Keras CNN, with params.yaml's values."""
    return training_operations("keras_cnn", flat(read(PARAMETERS)))


def keras_cnn_products_ms(batch_size: int) -> float:
    """Milliseconds of TensorFlow's convolutions and dense products in a step of the Keras CNN, each by itself."""
    tf = tensorflow()
    total = 0.0
    for number, layer in enumerate(keras_cnn_layers(flat(read(PARAMETERS)))):
        side, kernel_size, inputs, outputs = layer.side, layer.kernel_size, layer.inputs, layer.outputs
        if side > 1:
            maps, gradient = (tf.random.uniform((batch_size, side, side, depth)) for depth in (inputs, outputs))
            kernel = tf.random.uniform((kernel_size, kernel_size, inputs, outputs))
            sizes, same = (tf.shape(kernel), tf.shape(maps)), {"strides": [1, 1, 1, 1], "padding": "SAME"}
            conv = tf.raw_ops
            products = [
                partial(conv.Conv2D, input=maps, filter=kernel, **same),
                partial(conv.Conv2DBackpropFilter, input=maps, filter_sizes=sizes[0], out_backprop=gradient, **same),
                partial(conv.Conv2DBackpropInput, input_sizes=sizes[1], filter=kernel, out_backprop=gradient, **same),
            ]
        else:
            maps, gradient = (tf.random.uniform((batch_size, width)) for width in (inputs, outputs))
            kernel = tf.random.uniform((inputs, outputs))
            products = [
                partial(tf.matmul, maps, kernel),
                partial(tf.matmul, maps, gradient, transpose_a=True),
                partial(tf.matmul, gradient, kernel, transpose_b=True),
            ]
        total += sum(
            median(seconds(product)) for product in products[: None if number else -1]
        )  # images need no gradient
    return 1000 * total


def resnet18_products_ms(batch_size: int) -> float:
    """Milliseconds of PyTorch's convolutions and matrix products in a step of ours, by its profiler.

    Raises:
        ExpectedError: The profiler shows fewer convolutions than the network has: their names are not those known here.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile

    from benchmarks.worker import ours_resnet18_model

    model = ours_resnet18_model("cpu")[1].train()
    images = torch.rand(batch_size, 3, IMAGE, IMAGE).to(memory_format=torch.channels_last)
    times = []
    for _ in range(WARM_UP + REPEATS):
        model.zero_grad()
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            model(images).sum().backward()
        products = [event for event in profiler.key_averages() if PRODUCTS.search(event.key)]
        times.append(sum(event.self_cpu_time_total for event in products) / 1000)
    convolutions = sum(isinstance(layer, torch.nn.Conv2d) for layer in model.modules())
    if (found := sum(event.count for event in products if "conv" in event.key)) < 2 * convolutions:
        raise ExpectedError(f"{found} of {2 * convolutions} convolutions found in PyTorch's profile")
    return median(times[WARM_UP:])


def resnet18_operations() -> dict[str, int]:
    """Operations a training image, counted by PyTorch: of torchvision's network, and of ours as it is trained."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from torchvision.models import resnet18

    from benchmarks.worker import ours_resnet18_model

    def product(_: Any, left: Sequence[int], right: Sequence[int], **__: Any) -> int:
        return 2 * left[0] * left[1] * right[1]

    counts, images = {}, 2
    for name, model in (("network", resnet18(num_classes=CLASSES)), ("ours", ours_resnet18_model("cpu")[1])):
        counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: product})
        with counter:
            model(torch.rand(images, 3, IMAGE, IMAGE)).sum().backward()
        counts[name] = counter.get_total_flops() // images
    return counts


def share(operations: int, gflops_per_second: float, milliseconds: float) -> dict[str, float]:
    """The least time of a step, in milliseconds, and its share of the measured time."""
    least = operations / gflops_per_second / 1e6
    return {"least_ms": round(least, 3), "share_of_step": round(least / milliseconds, 4)}


if __name__ == "__main__":
    run_program("benchmarks.limit", main)
