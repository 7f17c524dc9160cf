"""Early stopping, and a learning rate that falls on a plateau of the validation loss (section 2.5).

For both models the rule of Keras's `EarlyStopping(restore_best_weights=True)` and `ReduceLROnPlateau`, in plain Python:
what it counts can be saved with a checkpoint, which Keras's callbacks and their `fit` do not offer.
"""

import math
from typing import Any, Protocol

MIN_DELTA = 1e-4  # Keras's, in nats: for the learning rate, a loss that falls by less has not fallen


class Settings(Protocol):
    """The fields of a model's section of params.yaml that the rule reads; a patience of None turns its part off."""

    early_stopping_patience: int | None
    reduce_lr_patience: int | None
    reduce_lr_factor: float
    min_learning_rate: float


class Plateau:
    """What the validation losses so far mean for the weights that are kept and for the learning rate.

    `best_epoch` counts from 1; `best_weights` is what the training puts there, in its framework's own form.
    """

    def __init__(self, settings: Settings) -> None:
        self.stopping_patience, self.rate_patience = settings.early_stopping_patience, settings.reduce_lr_patience
        self.factor, self.lowest_rate = settings.reduce_lr_factor, settings.min_learning_rate
        self.best_epoch, self.best_loss = 0, math.inf
        self.best_weights: Any = None
        self.lowest, self.waited = math.inf, 0  # for the learning rate

    def is_best(self, epoch: int, loss: float | None) -> bool:
        """Whether the weights after this epoch are to be kept until a better epoch; asked once an epoch.

        Without early stopping, or where nothing validates (no loss), the last epoch counts as the best and needs no
        copy of its weights.
        """
        if self.stopping_patience is None or loss is None:
            self.best_epoch = epoch
            return False
        if loss >= self.best_loss:
            return False
        self.best_epoch, self.best_loss = epoch, loss
        return True

    def stops_before(self, epoch: int) -> bool:
        """Whether so many epochs without a lower loss have passed that this one does not run."""
        return self.stopping_patience is not None and epoch - 1 - self.best_epoch >= self.stopping_patience

    def next_rate(self, rate: float, loss: float | None) -> float:
        """The next epoch's learning rate, given this one's and its loss; asked once an epoch."""
        if self.rate_patience is None or loss is None:
            return rate
        if loss < self.lowest - MIN_DELTA:
            self.lowest, self.waited = loss, 0
            return rate
        self.waited += 1
        if self.waited < self.rate_patience:
            return rate
        self.waited = 0
        return min(rate, max(rate * self.factor, self.lowest_rate))

    def state(self) -> dict[str, Any]:
        """What `resume` needs, the best weights apart: JSON."""
        names = ("best_epoch", "best_loss", "lowest", "waited")
        return {name: getattr(self, name) for name in names}

    def resume(self, state: dict[str, Any], best_weights: Any) -> None:
        """Continue from a `state` and its best weights."""
        vars(self).update(state, best_weights=best_weights)
