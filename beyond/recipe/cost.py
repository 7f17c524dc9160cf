"""What a training and a prediction cost, in floating-point operations, counted and not timed.

PyTorch counts the matrix products and convolutions of whole steps: forward, backward, and Muon's products; a multiply
and an add are two. The count is of tensors without content (PyTorch's device "meta"), so it takes no time and no
memory. Validation and test are not part of a training's cost.

`python -m beyond.recipe.cost` prints the cost of beyond/params.yaml.
"""

import torch
from torch.utils.flop_counter import FlopCounterMode

from beyond.recipe.network import Network
from beyond.recipe.predicting import VIEWS
from beyond.recipe.settings import Settings, load
from beyond.recipe.step import optimisers, train_step
from stages.common.errors import run_program

PETA = 1e15
CIFAR10_IMAGES = 50_000


def steps_per_epoch(images: int, settings: Settings) -> int:
    """Whole batches in an epoch."""
    return images // settings.batch_size


def training_flop(images: int, settings: Settings) -> int:
    """Operations of a whole training on `images` images."""
    steps = steps_per_epoch(images, settings)
    with_bias = min(settings.network.whitening_bias_epochs, settings.epochs)
    return steps * (
        with_bias * _step_flop(settings, trains_whitening_bias=True)
        + (settings.epochs - with_bias) * _step_flop(settings, trains_whitening_bias=False)
    )


def prediction_flop(images: int, views: int, settings: Settings) -> int:
    """Operations of predicting `images` images, with so many views of each."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        Network(settings.network).eval()(_pixels(1))
    return counter.get_total_flops() * images * len(VIEWS[views])


def _step_flop(settings: Settings, trains_whitening_bias: bool) -> int:
    with torch.device("meta"):
        model = Network(settings.network)
        if settings.network.whitening and model.whiten.bias is not None:
            model.whiten.bias.requires_grad_(trains_whitening_bias)
        update = optimisers(model, settings)
        labels = torch.empty(settings.batch_size, dtype=torch.int64)
        with FlopCounterMode(display=False) as counter:
            train_step(model, update, _pixels(settings.batch_size), labels, settings.label_smoothing)
    return counter.get_total_flops()


def _pixels(images: int) -> torch.Tensor:
    return torch.empty((images, 32, 32, 3), dtype=torch.uint8)


def main() -> None:
    """Print what a training on all images costs, and the prediction of the test set."""
    settings = load()
    test = prediction_flop(10_000, settings.evaluate.views, settings) / PETA
    print(f"training on 50,000 images: {training_flop(CIFAR10_IMAGES, settings) / PETA:.4f} PFLOP")
    print(f"predicting 10,000 images in {settings.evaluate.views} views: {test:.4f} PFLOP")


if __name__ == "__main__":
    run_program("cost", main)
