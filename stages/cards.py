"""Write a card for each model: what it is for, what it can do, and how to load it (Mitchell et al., 2019).

Everything in models/<model>.md follows from the metrics. The code that loads a model is run by the tests.
"""

from pathlib import Path

import numpy as np

from stages.common import paths
from stages.common.files import Json, read_arrays, read_json, read_rows, write_whole
from stages.common.paths import DATASET
from stages.common.process import run_stage
from stages.page.predictions import BINS, calibration
from stages.paper.markdown import table, templates

DESCRIBED = {
    "keras_cnn": (
        "Keras CNN",
        "Blocks of convolution, batch normalisation, max pooling and dropout, and a dense layer, in Keras.",
    ),
    "resnet18": ("ResNet-18", "torchvision's ResNet-18 with ten outputs, in PyTorch."),
}

# `images` is uint8 (N, 32, 32, 3), RGB; each snippet ends with `probabilities`, (N, 10).
LOADING = {
    "keras_cnn": {
        "Keras": """
            import keras
            model = keras.saving.load_model("models/keras_cnn.keras", compile=False)
            probabilities = model.predict(images.astype("float32") / 255)
            """,
    },
    "resnet18": {
        "PyTorch": """
            import torch, torchvision
            model = torchvision.models.resnet18(num_classes=10)
            model.load_state_dict(torch.load("models/resnet18.pt", weights_only=True))
            mean, std = torch.tensor({mean}), torch.tensor({std})
            pixels = ((torch.from_numpy(images) / 255 - mean) / std).permute(0, 3, 1, 2)
            probabilities = model.eval()(pixels).softmax(dim=1).detach().numpy()
            """,
    },
}
ONNX = """
            import onnxruntime
            session = onnxruntime.InferenceSession("models/{model}.onnx")
            (probabilities,) = session.run(None, {{"pixels": images}})
            """


def main() -> None:
    """Write both cards."""
    for model in DESCRIBED:
        write_whole(paths.card(model), card(model).encode("utf-8"))


def card(model: str) -> str:
    """The card of a model, Markdown, from the files of metrics."""
    run, dataset = read_json(paths.run(model)), read_json(DATASET)
    predictions = read_arrays(paths.predictions(model))
    title, described = DESCRIBED[model]
    template = templates(Path(__file__).parent / "page").get_template("card.md.jinja")
    return template.render(
        model=model,
        title=title,
        described=described,
        source=run["source"],
        run=run,
        dataset=dataset,
        classes=dataset["classes"],
        validated_on_test=run["parameters"].get(model, {}).get("validation") == "test",
        images=len(predictions["labels"]),
        bins=BINS,
        scores=scores_table(model, predictions["probabilities"], predictions["labels"]),
        per_class=per_class_table(model),
        loading=loading(model, run),
    )


def scores_table(model: str, probabilities: np.ndarray, labels: np.ndarray) -> str:
    """The model's scores on the test set."""
    test = read_json(paths.scores(model))["test"]
    lines = [
        ["accuracy", f"{test['accuracy']:.2%}".replace("%", " %")],
        ["loss (nats)", f"{test['loss']:.3f}"],
        ["macro F1", f"{test['f1_macro']:.3f}"],
        ["expected calibration error", f"{calibration(probabilities, labels).error:.3f}"],
    ]
    return table(["Score", "Value"], lines, right=1)


def per_class_table(model: str) -> str:
    """Precision, recall and F1 of each class."""
    numbers = ("precision", "recall", "f1")
    lines = [
        [row["class"], row["support"], *(f"{float(row[name]):.2f}" for name in numbers)]
        for row in read_rows(paths.per_class(model))
    ]
    return table(["Class", "Images", "Precision", "Recall", "F1"], lines, right=4)


def loading(model: str, run: Json) -> str:
    """How to load the model with its framework, and with ONNX Runtime."""
    export, texts = read_json(paths.export(model)), []
    for what, code in {**LOADING[model], "ONNX Runtime": ONNX}.items():
        values = run["parameters"]["resnet18"] if model == "resnet18" else {}
        lines = code.format(model=model, **values).strip("\n").splitlines()
        texts.append(
            f"{what}:\n\n```python\n" + "".join(f"{line.strip()}\n" for line in lines if line.strip()) + "```\n"
        )
    note = (
        f"`images` is a NumPy array of uint8, (N, 32, 32, 3). The columns of `probabilities`, (N, 10), are\n"
        f"the classes in the order above. Over {export['images']:,} test images, the ONNX file's\n"
        f"probabilities differ from those of the framework by at most {export['largest_difference']:g}.\n"
    )
    return "\n".join([*texts, note])


if __name__ == "__main__":
    run_stage("cards", main)
