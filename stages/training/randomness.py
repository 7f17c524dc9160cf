"""Random choices derived from (seed, epoch, purpose), never from a generator's history.

A training that stops after any epoch can therefore resume with exactly the choices that it would have made, and one
purpose (the order of the data) never shifts another (its augmentation).
"""

import zlib

import numpy as np


def generator(seed: int, epoch: int, purpose: str) -> np.random.Generator:
    """A NumPy generator of its own for each (seed, epoch, purpose).

    Args:
        seed: The run's `seed`, 0 to 2**32 - 1.
        epoch: The epoch counted from 1, or the number of a draw; 0 for what happens once, before training.
        purpose: What the numbers are for, such as "order" or "augmentation".
    """
    return np.random.default_rng(np.random.SeedSequence([seed, epoch, zlib.crc32(purpose.encode())]))


def derived_seed(seed: int, epoch: int, purpose: str) -> int:
    """A seed from 0 to 2**31 - 1 for a framework's own generator, derived in the same way."""
    return int(generator(seed, epoch, purpose).integers(2**31))
