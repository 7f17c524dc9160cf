"""Small ONNX models with the inputs and outputs of those that `export` writes."""

from pathlib import Path

import numpy as np
import onnx

from stages.inference.classifier import INPUT, OPSET, OUTPUT


def write_constant_model(path: Path, probabilities: np.ndarray, facts: dict[str, str]) -> None:
    """A model that gives these probabilities, (N, 10), whatever it is shown."""
    _write(path, [onnx.helper.make_node("Identity", ["stored"], [OUTPUT])], {"stored": probabilities}, facts)


def write_colour_model(path: Path, weights: np.ndarray, facts: dict[str, str]) -> None:
    """A softmax regression on the mean of each channel, (3, 10)."""
    nodes = [
        onnx.helper.make_node("Cast", [INPUT], ["numbers"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("ReduceMean", ["numbers", "axes"], ["means"], keepdims=0),
        onnx.helper.make_node("MatMul", ["means", "weights"], ["logits"]),
        onnx.helper.make_node("Softmax", ["logits"], [OUTPUT]),
    ]
    _write(path, nodes, {"axes": np.array([1, 2]), "weights": weights}, facts)


def _write(path: Path, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], facts: dict[str, str]) -> None:
    graph = onnx.helper.make_graph(
        nodes,
        "made_up",
        [onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.UINT8, ["images", 32, 32, 3])],
        [onnx.helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, ["answers", 10])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.helper.set_model_props(model, facts)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(model.SerializeToString())
