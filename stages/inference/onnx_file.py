"""models/<model>.onnx: how it is written and checked; the stages export_keras_cnn and export_resnet18 share this.

Preprocessing is part of the model: uint8 images (N, 32, 32, 3) go in, probabilities (N, 10) come out. The metadata
names the classes and the data. PyTorch's exporter writes both models; Keras runs on its PyTorch backend for that.
"""

import json

import numpy as np
import onnx
import torch
from torch import nn

from stages.common import paths
from stages.common.errors import ExpectedError
from stages.common.files import Json, read_arrays, read_json, write_json, write_whole
from stages.common.paths import DATASET
from stages.inference.classifier import INPUT, OPSET, OUTPUT, load_classifier
from stages.inference.pictures import SIDE
from stages.training.images import load_images

LARGEST_DIFFERENCE = 1e-3  # of a probability; the frameworks differ by about 1e-6 in their sums


def export(model: str, network: nn.Module, source: str) -> None:
    """Write a model's ONNX file, and how near its probabilities are to those of `evaluate`.

    Args:
        model: Its name.
        network: From uint8 images (N, 32, 32, 3) to probabilities (N, 10).
        source: The data that it was trained on, "cifar10" or "synthetic".

    Raises:
        ExpectedError: As `compared`.
    """
    facts = {"model": model, "source": source, "classes": json.dumps(read_json(DATASET)["classes"])}
    content = exported(network, facts)
    write_whole(paths.onnx(model), content)
    try:
        found = compared(model)
    except BaseException:  # Ctrl-C too
        paths.onnx(model).unlink(missing_ok=True)  # or `make predict` would use it
        raise
    write_json(paths.export(model), {"opset": OPSET, "bytes": len(content), **found})


def exported(module: nn.Module, facts: dict[str, str]) -> bytes:
    """The content of an ONNX file; the same bytes for the same module.

    Args:
        module: From uint8 images (N, 32, 32, 3) to probabilities (N, 10).
        facts: Its metadata.
    """
    example = torch.zeros(2, SIDE, SIDE, 3, dtype=torch.uint8)
    program = torch.onnx.export(
        module.eval(),
        (example,),
        dynamo=True,
        verbose=False,
        opset_version=OPSET,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: torch.export.Dim("images", min=1)},),
    )
    assert program is not None
    model = program.model_proto
    # Names of source files, and with them the folder that this runs in.
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def compared(model: str) -> Json:
    """How far ONNX Runtime's probabilities are from those of `evaluate`, over all test images.

    Raises:
        ExpectedError: They are further apart than rounding explains.
    """
    expected = read_arrays(paths.predictions(model))["probabilities"]
    found = load_classifier(paths.onnx(model)).probabilities(load_images("test").pixels)
    difference = float(np.abs(found - expected).max())
    if not difference <= LARGEST_DIFFERENCE:
        raise ExpectedError(
            f"{paths.onnx(model)} gives other probabilities than {paths.predictions(model)}, by {difference:.2g}; run "
            f"dvc repro evaluate@{model}"
        )
    return {
        "images": len(found),
        "largest_difference": float(f"{difference:.1e}"),
        "other_classes": int((found.argmax(axis=1) != expected.argmax(axis=1)).sum()),
    }
