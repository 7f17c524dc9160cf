"""Synthetic data in CIFAR-10's format: ten classes of coloured shapes and patterns, in the same files, from a seed.

For the demo and the tests, where the real data is too large or not available. Every batch is labelled as synthetic,
the classes have the names of the shapes, and nothing computed from it is ever compared with the paper. The arithmetic
is on whole numbers, so that every machine draws the same bytes.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from stages.cifar10.official import META, SYNTHETIC_LABEL, TEST_BATCH, TRAIN_BATCHES

CLASSES = ("circle", "square", "triangle", "diamond", "cross", "ring", "rows", "columns", "checks", "diagonals")
# One colour for two classes, so that colour alone cannot tell them apart.
COLOURS = ((200, 60, 60), (60, 200, 60), (60, 60, 200), (200, 200, 60), (60, 200, 200))
SIDE = 32
NOISE = 30  # the noise is a sum of two draws from -NOISE to NOISE
PICKLE_PROTOCOL = 4  # pinned: the default differs between Pythons, and with it the bytes


def write_synthetic(folder: Path, seed: int, train_images: int, test_images: int) -> None:
    """Write the eight files.

    Args:
        folder: An existing folder.
        seed: Of both parts; each has a stream of its own, so that the size of one does not change the other.
        train_images: How many; a multiple of 50.
        test_images: How many; a multiple of 10.
    """
    images, labels = draw(np.random.default_rng([seed, 0]), train_images)
    for name, batch_images, batch_labels in zip(
        TRAIN_BATCHES, np.split(images, len(TRAIN_BATCHES)), np.split(labels, len(TRAIN_BATCHES)), strict=True
    ):
        _write_batch(folder / name, batch_images, batch_labels)
    _write_batch(folder / TEST_BATCH, *draw(np.random.default_rng([seed, 1]), test_images))
    _write_pickle(
        folder / META,
        {
            "num_cases_per_batch": train_images // len(TRAIN_BATCHES),
            "label_names": list(CLASSES),
            "num_vis": 3 * SIDE * SIDE,
        },
    )
    (folder / "readme.html").write_text(f"<p>{SYNTHETIC_LABEL}</p>\n", encoding="utf-8")


def draw(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw `count` images, equally many of each class, in random order.

    Returns:
        Images, uint8 of shape (count, 3, 32, 32), and labels, int64 of shape (count,).
    """
    labels = rng.permutation(np.arange(count) % len(CLASSES))
    masks = np.stack([draw_mask(rng, CLASSES[label]) for label in labels])
    background = rng.integers(0, 100, size=(count, 3, 1, 1))
    foreground = np.array(COLOURS)[labels // 2].reshape(count, 3, 1, 1) + rng.integers(-50, 51, size=(count, 3, 1, 1))
    noise = rng.integers(-NOISE, NOISE + 1, size=(2, count, 3, SIDE, SIDE)).sum(axis=0)
    images = np.where(masks[:, np.newaxis], foreground, background) + noise
    return np.clip(images, 0, 255).astype(np.uint8), labels


def draw_mask(rng: np.random.Generator, shape: str) -> np.ndarray:
    """Where the foreground is in one image: a shape at a random place and size, or a pattern all over.

    Returns:
        bool of shape (32, 32).
    """
    y, x = np.mgrid[:SIDE, :SIDE]
    radius = rng.integers(6, 13)
    dy, dx = y - rng.integers(11, 21), x - rng.integers(11, 21)  # from the centre
    period = rng.integers(3, 6)  # half of a pattern's
    outer = np.maximum(abs(dy), abs(dx))
    match shape:
        case "circle":
            return dy**2 + dx**2 <= radius**2
        case "square":
            return outer <= radius * 5 // 6
        case "triangle":
            return (abs(dy) <= radius) & (2 * abs(dx) <= dy + radius)
        case "diamond":
            return abs(dy) + abs(dx) <= radius
        case "cross":
            return (outer <= radius) & (np.minimum(abs(dy), abs(dx)) <= radius // 4)
        case "ring":
            return (dy**2 + dx**2 <= radius**2) & (dy**2 + dx**2 >= (radius * 3 // 5) ** 2)
        case "rows":
            return dy // period % 2 == 0
        case "columns":
            return dx // period % 2 == 0
        case "checks":
            return (dy // period + dx // period) % 2 == 0
        case "diagonals":
            return (dy + dx) // (period + 1) % 2 == 0
    raise ValueError(f"no such shape: {shape}")


def _write_batch(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    _write_pickle(
        path,
        {
            "batch_label": SYNTHETIC_LABEL,
            "labels": labels.tolist(),
            "data": images.reshape(len(images), -1),
            "filenames": [f"{CLASSES[label]}_{number:05d}.png" for number, label in enumerate(labels)],
        },
    )


def _write_pickle(path: Path, content: dict[str, Any]) -> None:
    with path.open("wb") as file:
        pickle.dump(content, file, protocol=PICKLE_PROTOCOL)
