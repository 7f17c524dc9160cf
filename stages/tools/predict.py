"""Classify pictures with an exported model: `make predict IMAGE=picture.jpg`. It is no stage.

`python -m stages.tools.predict PICTURE...`, where a picture may be a folder of them, or - for standard input. It needs
ONNX Runtime, NumPy and Pillow alone.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from stages.common import paths
from stages.common.errors import ExpectedError, run_program
from stages.inference.classifier import MODELS, load_classifier
from stages.inference.pictures import files_in, read_picture

SHOWN = 3  # classes of a picture
SURE = 0.5  # a lower highest probability is called unsure
NOTE = f"""
The model knows ten classes alone, and sees the centre square of a picture in 32x32 pixels. A picture of anything else
gets one of the ten too. "unsure": no class has {SURE:.0%}. The entropy is from 0 (sure) to {np.log(10):.2f} nats."""


def main() -> None:
    chosen = arguments()
    classifier = load_classifier(paths.onnx(chosen.model))
    answers, faults = [], []
    for file in files_in(chosen.pictures):
        try:
            probabilities = classifier.probabilities(read_picture(content_of(file), file)[np.newaxis])[0]
        except ExpectedError as error:
            faults.append(str(error))
            continue
        answers.append({"picture": file, "model": chosen.model} | answer(probabilities, classifier.classes))
    if chosen.json:
        print(json.dumps(answers, indent=2))
    elif answers:
        for found in answers:
            print(line(found))
        print(NOTE)
    if classifier.source != "cifar10":
        print(f"predict: this model was trained on {classifier.source} data, not on CIFAR-10", file=sys.stderr)
    if faults:
        *others, last = faults
        for fault in others:
            print(f"predict: {fault}", file=sys.stderr)
        raise ExpectedError(last)


def arguments() -> argparse.Namespace:
    """What the user asks for."""
    parser = argparse.ArgumentParser(prog="python -m stages.tools.predict", description="Classify pictures.")
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="a file, a folder, or - for standard input")
    parser.add_argument("--model", choices=MODELS, default=MODELS[0], help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="all probabilities, as JSON")
    return parser.parse_args()


def content_of(file: str) -> bytes:
    """A file's content, or standard input's.

    Raises:
        ExpectedError: It cannot be read.
    """
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise ExpectedError(f"{file}: {error.strerror}") from None


def answer(probabilities: np.ndarray, classes: list[str]) -> dict[str, Any]:
    """What is shown of a picture: its classes by probability, the entropy in nats, and whether the model is unsure."""
    order = np.argsort(-probabilities, kind="stable")
    positive = probabilities[probabilities > 0].astype(np.float64)
    return {
        "probabilities": {classes[index]: round(float(probabilities[index]), 6) for index in order},
        "entropy": round(float(-(positive * np.log(positive)).sum()) + 0.0, 4),
        "unsure": bool(probabilities.max() < SURE),
    }


def line(found: dict[str, Any]) -> str:
    """One picture in one line."""
    shown = list(found["probabilities"].items())[:SHOWN]
    classes = ", ".join(f"{name} {probability:.1%}" for name, probability in shown)
    return f"{found['picture']}: {'unsure: ' if found['unsure'] else ''}{classes} (entropy {found['entropy']:.2f})"


if __name__ == "__main__":
    run_program("predict", main)
