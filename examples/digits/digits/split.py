"""scikit-learn's digits, each also shifted by a pixel in four directions, scaled to [0, 1] and split.

The page calls this a perturbation of the training data, but it shifts before it splits: most test images are shifted
copies of training images. We do the same.
"""

import numpy as np
from scipy.ndimage import shift
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import minmax_scale

from digits.parameters import load
from stages.common import paths
from stages.common.files import write_json, write_rows
from stages.common.paths import DATASET, DISTRIBUTION, PROCESSED, SAMPLES
from stages.common.process import run_stage

SHIFTS = ((-1, 0), (0, -1), (0, 1), (1, 0))  # (rows, columns), in the page's order
SHOWN = 25


def main() -> None:
    given = load().split
    digits = load_digits()
    originals = digits.images.astype(np.float32)
    shifted = [np.stack([shift(image, by, order=0) for image in originals]) for by in SHIFTS]
    images = minmax_scale(np.concatenate([originals, *shifted]).reshape(-1, 64))  # each pixel over all images
    labels = np.tile(digits.target, 1 + len(SHIFTS)).astype(np.uint8)
    parts = train_test_split(images, labels, test_size=given.test_fraction, random_state=given.random_state)
    train_images, test_images, train_labels, test_labels = parts

    PROCESSED.mkdir(parents=True, exist_ok=True)
    for part, pixels, classes in (("train", train_images, train_labels), ("test", test_images, test_labels)):
        np.save(paths.images(part), pixels)
        np.save(paths.labels(part), classes)
    names = [str(digit) for digit in digits.target_names]
    counts = {"train_images": len(train_labels), "test_images": len(test_labels)}
    write_json(DATASET, {"source": "digits", "classes": names} | counts)
    shown = (255 * (1 - test_images[:SHOWN].reshape(-1, 8, 8))).astype(np.uint8)  # black on white
    np.savez(SAMPLES, test_images=np.stack([shown] * 3, axis=-1), test_labels=test_labels[:SHOWN])
    write_rows(
        DISTRIBUTION,
        [
            {"class": name, "train": int(train), "validation": 0, "test": int(test)}
            for name, train, test in zip(names, np.bincount(train_labels), np.bincount(test_labels), strict=True)
        ],
    )


if __name__ == "__main__":
    run_stage("split", main)
