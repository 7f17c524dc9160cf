"""Classify pictures with an exported model: `make predict IMAGE=picture.jpg`. It is no stage.

`python -m stages.tools.predict PICTURE...`, where a picture may be a folder of them, or - for standard input. It needs
only ONNX Runtime, NumPy and Pillow.
"""

import argparse
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stages.common import paths
from stages.common.errors import ExpectedError, run_program
from stages.inference.classifier import MODELS, Classifier, load_classifier
from stages.inference.pictures import files_in, read_picture

SHOWN = 3  # classes of a picture
SURE = 0.5  # a lower highest probability is called unsure
NOTE = f"""
The model knows only ten classes, and sees the centre square of a picture in 32x32 pixels. A picture of anything else
gets one of the ten too. "unsure": no class has {SURE:.0%}. The entropy is from 0 (sure) to {np.log(10):.2f} nats."""


def main() -> None:
    chosen = arguments()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # or a name that is not UTF-8 could not be printed
    try:
        classify(load_classifier(paths.onnx(chosen.model)), chosen)
    except BrokenPipeError:  # of `| head`; Python would complain again when it closes its output
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def classify(classifier: Classifier, chosen: argparse.Namespace) -> None:
    """Print what the model says of each picture, and which ones it cannot read.

    Raises:
        ExpectedError: There was such a picture.
    """
    answers: list[dict[str, Any]] = []
    faults: list[str] = []
    for file in files(chosen.pictures, faults):
        try:
            probabilities = classifier.probabilities(read_picture(content_of(file), file)[np.newaxis])[0]
        except ExpectedError as error:
            faults.append(str(error))
            continue
        answers.append({"picture": file, "model": chosen.model} | answer(probabilities, classifier.classes))
        if not chosen.json:
            print(line(answers[-1]), flush=True)
    if chosen.json:
        print(json.dumps(answers, indent=2))
    elif answers:
        print(NOTE)
    sys.stdout.flush()
    if classifier.source != "cifar10":
        print(f"predict: this model was trained on {classifier.source} data, not on CIFAR-10", file=sys.stderr)
    if faults:
        *others, last = faults
        for fault in others:
            print(f"predict: {fault}", file=sys.stderr)
        raise ExpectedError(last)


def files(places: list[str], faults: list[str]) -> Iterator[str]:
    """The files that are meant; what is wrong with a folder is added to `faults`."""
    for place in places:
        try:
            yield from files_in([place])
        except ExpectedError as error:
            faults.append(str(error))


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
    run_program("predict", main, again="begins anew")
