"""Averaged weights: an exponential moving average, or Lookahead, in which the training continues from the average.

Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back" (2019); its form with a growing average is
airbench94's (Jordan 2024, arXiv 2404.00498, section 3.4). Batch-norm statistics are averaged like the weights.
"""

import copy
from collections.abc import Iterator
from typing import Generic, TypeVar

import torch
from torch import nn

from beyond.recipe.settings import AveragingSettings

M = TypeVar("M", bound=nn.Module)


class Average(Generic[M]):
    """The average of a model's weights, taken while it is trained.

    `scored` is the model to score and keep: the average for "ema", the trained model itself for "none" and "lookahead".
    """

    def __init__(self, model: M, settings: AveragingSettings) -> None:
        self.model, self.settings = model, settings
        self.average = None if settings.kind == "none" else copy.deepcopy(model).requires_grad_(False)
        self.scored: M = self.average if self.average is not None and settings.kind == "ema" else model

    @torch.no_grad()
    def step(self, step: int, steps: int) -> None:
        """Take the weights into the average, every `every` steps; for lookahead, continue from it.

        Args:
            step: Steps of the training that are done, from 1.
            steps: Those of the whole training.
        """
        if self.average is None or step % self.settings.every:
            return
        keeps = self.settings.keeps**self.settings.every
        if self.settings.kind == "lookahead":
            keeps *= (step / steps) ** 3
        for old, new in zip(_floats(self.average), _floats(self.model), strict=True):
            old.lerp_(new, 1 - keeps)
            if self.settings.kind == "lookahead":
                new.copy_(old)

    @torch.no_grad()
    def finish(self) -> None:
        """The training is done: lookahead's model takes the average, as published."""
        if self.average is not None and self.settings.kind == "lookahead":
            for old, new in zip(_floats(self.average), _floats(self.model), strict=True):
                new.copy_(old)


def _floats(model: nn.Module) -> Iterator[torch.Tensor]:
    return (value for value in model.state_dict().values() if value.is_floating_point())
