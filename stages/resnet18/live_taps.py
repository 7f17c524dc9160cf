"""Convolutions on maps so small that most of their products only ever meet padding: the same results from fewer.

At 32x32 pixels, ResNet-18's fourth layer works on a single pixel: of most of its 3x3 kernels only the middle tap ever
meets it, and the gradient of the others is exactly zero. So 6.9 of the network's 11.2 million weights take no part in
products, gradients and Adam's update. On the third layer's 2x2 pixels every tap is alive, but only 16 of the 36
products of a tap and an output pixel meet an input pixel.
"""

from typing import Any

import torch
from torch import nn

MOST_PIXELS = 4  # of a map; from 4x4 pixels on, PyTorch's own convolution is as fast

Pixel = tuple[int, int]
Pair = tuple[Pixel, Pixel, int]  # a pixel of the input, one of the output, and the number of the tap that joins them


def leave_out_padding(model: nn.Module, image_size: int, keep_dead_taps: bool) -> None:
    """Replace, in place, each convolution of a network that works on at most 2x2 pixels.

    Its outputs and gradients stay what they were, but for the order of sums; its state dict, too, in names, shapes
    and values, so that what is saved is the network as it was built. `parameters()` holds the live taps alone: make
    the optimiser afterwards.

    Args:
        model: The network, on the CPU, for square colour images.
        image_size: Their side, in pixels.
        keep_dead_taps: Leave convolutions alone that have taps without a gradient: an optimiser with weight decay
            changes these, too.
    """
    sizes: dict[str, tuple[int, int]] = {}  # sides of the input and of the output

    def measure(name: str) -> Any:
        return lambda _, inputs, output: sizes.update({name: (inputs[0].shape[-1], output.shape[-1])})

    convolutions = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    hooks = [module.register_forward_hook(measure(name)) for name, module in convolutions.items()]
    training = model.training
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, image_size, image_size))
    model.train(training)
    for hook in hooks:
        hook.remove()

    for name, convolution in convolutions.items():
        before, after = sizes[name]
        plain = convolution.bias is None and convolution.groups == 1 and convolution.dilation == (1, 1)
        if not plain or convolution.kernel_size == (1, 1) or max(before, after) ** 2 > MOST_PIXELS:
            continue
        smaller = LiveTaps(convolution, before, after)
        if keep_dead_taps and smaller.dead_taps:
            continue
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, smaller)


class LiveTaps(nn.Module):
    """A convolution without bias, dilation or groups for maps of one size, holding only the taps that matter there.

    `weight` is float (taps, inputs, outputs); the state dict has it as a kernel, (outputs, inputs, height, width).
    """

    live: torch.Tensor
    kernel: torch.Tensor

    def __init__(self, convolution: nn.Conv2d, before: int, after: int) -> None:
        super().__init__()
        stride, side = convolution.stride[0], convolution.kernel_size[0]
        padding = int(convolution.padding[0])
        self.size = after
        joined = {}
        for output in _pixels(after):
            for given in _pixels(before):
                row, column = (i - o * stride + padding for i, o in zip(given, output, strict=True))
                if 0 <= row < side and 0 <= column < side:
                    joined[given, output] = row * side + column
        if len({given for given, _ in joined}) < before**2 or len({output for _, output in joined}) < after**2:
            raise ValueError(f"{convolution} leaves out a pixel of {before}x{before} or of {after}x{after}")
        live = sorted(set(joined.values()))
        self.dead_taps = side * side - len(live)
        self.pairs = [(given, output, live.index(tap)) for (given, output), tap in joined.items()]

        kernel = convolution.weight.detach()
        self.register_buffer("live", torch.tensor(live), persistent=False)
        self.register_buffer("kernel", kernel.clone(), persistent=False)  # what it keeps of the dead taps
        self.weight = nn.Parameter(self._taps(kernel), requires_grad=convolution.weight.requires_grad)
        self.register_state_dict_post_hook(_as_kernel)
        self.register_load_state_dict_pre_hook(_as_taps)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Float (N, inputs, before, before) to (N, outputs, after, after), channels last."""
        outputs: torch.Tensor = _Products.apply(images, self.weight, self.pairs, self.size)
        return outputs

    def _taps(self, kernel: torch.Tensor) -> torch.Tensor:
        return kernel.flatten(2).permute(2, 1, 0)[self.live].contiguous()


def _as_kernel(module: LiveTaps, state: dict[str, Any], prefix: str, _: Any) -> None:
    kernel = module.kernel.flatten(2).clone()
    kernel[:, :, module.live] = state[prefix + "weight"].permute(2, 1, 0)
    state[prefix + "weight"] = kernel.view_as(module.kernel)


def _as_taps(module: LiveTaps, state: dict[str, Any], prefix: str, *_: Any) -> None:
    kernel = state.get(prefix + "weight")
    if kernel is not None and kernel.shape == module.kernel.shape:  # what does not fit, PyTorch names
        module.kernel.copy_(kernel)
        state[prefix + "weight"] = module._taps(kernel)


class _Products(torch.autograd.Function):
    """One matrix product for each pair of pixels, with the gradients by hand: autograd's would fill zeros for each."""

    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, weight: torch.Tensor, pairs: list[Pair], size: int) -> torch.Tensor:
        outputs = images.new_empty((len(images), size, size, weight.shape[2])).permute(0, 3, 1, 2)
        started: set[Pixel] = set()
        for given, output, tap in pairs:
            _add(_at(outputs, output), _at(images, given), weight[tap], output in started)
            started.add(output)
        ctx.save_for_backward(images, weight)
        ctx.pairs = pairs
        return outputs

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_images = of_weight = None
        if ctx.needs_input_grad[0]:
            of_images = torch.empty_like(images, memory_format=torch.channels_last)
            pixels: set[Pixel] = set()
            for given, output, tap in ctx.pairs:
                _add(_at(of_images, given), _at(gradient, output), weight[tap].T, given in pixels)
                pixels.add(given)
        if ctx.needs_input_grad[1]:
            of_weight = torch.empty_like(weight)
            taps: set[int] = set()
            for given, output, tap in ctx.pairs:
                _add(of_weight[tap], _at(images, given).T, _at(gradient, output), tap in taps)
                taps.add(tap)
        return of_images, of_weight, None, None


def _pixels(size: int) -> list[Pixel]:
    return [(row, column) for row in range(size) for column in range(size)]


def _at(maps: torch.Tensor, pixel: Pixel) -> torch.Tensor:
    """One pixel of all maps: (N, channels)."""
    return maps[:, :, pixel[0], pixel[1]]


def _add(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor, started: bool) -> None:
    """Add a matrix product; what a total holds before it is started does not count."""
    total.addmm_(left, right, beta=int(started))
