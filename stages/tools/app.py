"""A local web page that classifies a picture with both models: `make app`. It is no stage.

`python -m stages.tools.app --port 7860` needs only the packages of requirements-app.txt, no TensorFlow and no PyTorch.
The page is Gradio's: it serves only this computer (127.0.0.1), and neither it nor the browser calls another host.
"""

import argparse
import contextlib
import io
import os
import socket
import tempfile
from base64 import b64encode
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from stages.common import paths
from stages.common.errors import ExpectedError, run_program
from stages.common.files import read_array, read_arrays, read_json
from stages.figures.sources import require_same_data
from stages.inference.classifier import Classifier, load_classifier
from stages.inference.pictures import read_picture
from stages.tools.predict import NOTE, answer, content_of

TITLES = {"keras_cnn": "Keras CNN", "resnet18": "ResNet-18"}
HOST, PORT = "127.0.0.1", 7860
LARGEST = "50mb"  # of an uploaded file
SHOWN = 5  # classes of a picture
NEAREST = 6  # test images that are shown
AROUND = 100  # test images that are counted
HERE = Path(__file__).parent
# The browser itself refuses every other host. Gradio's scripts and styles are inline in part.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"


class Known(NamedTuple):
    """A model, and what it predicted for the test images: probabilities (N, 10), and their true classes (N,)."""

    classifier: Classifier
    probabilities: np.ndarray
    labels: np.ndarray


def main() -> None:
    port = arguments().port
    with tempfile.TemporaryDirectory(prefix="cifar10-app-") as folder:
        serve(Path(folder), port)


def arguments() -> argparse.Namespace:
    """What the user asks for."""
    parser = argparse.ArgumentParser(prog="python -m stages.tools.app", description="A page that classifies pictures.")
    parser.add_argument("--port", type=int, default=PORT, help="port of 127.0.0.1; default: %(default)s")
    return parser.parse_args()


def serve(folder: Path, port: int) -> None:
    """Serve the page until Ctrl-C; uploaded files are in `folder`.

    Raises:
        ExpectedError: Gradio is missing, or the port cannot be used.
    """
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]  # one of them would serve other folders of this computer
    # Gradio reads these when it is imported.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "GRADIO_TEMP_DIR": str(folder)}
    try:
        import uvicorn
        from fastapi import FastAPI
        from fastapi.middleware.trustedhost import TrustedHostMiddleware
        from gradio import mount_gradio_app, themes
    except ImportError as error:
        if error.name in ("gradio", "uvicorn", "fastapi"):
            raise ExpectedError("Gradio is missing here; make app installs it, in .venv-app, and runs this") from None
        raise ExpectedError(f"Gradio cannot be loaded ({error}); remove .venv-app, and run make app") from None
    server = FastAPI(openapi_url=None)
    server.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    server.add_middleware(OnlyThisPage)
    # Not Gradio's launch(), which gives up where a proxy is set or the start takes five seconds.
    mount_gradio_app(
        server,
        page(folder),
        path="/",
        server_name=HOST,
        show_error=False,
        max_file_size=LARGEST,
        footer_links=[],
        run_history=False,
        theme=themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css_paths=HERE / "app.css",
        head=f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
    )
    with listening(port) as place:
        print(f"Open http://{HOST}:{place.getsockname()[1]} in a browser. Ctrl-C ends it.", flush=True)
        options = uvicorn.Config(server, log_level="critical", timeout_graceful_shutdown=1)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(options).run(sockets=[place])


async def refused(url: str) -> None:
    """In place of a download.

    Raises:
        ValueError: Always.
    """
    raise ValueError(f"{url}: no other host is called")


class OnlyThisPage:
    """ASGI middleware that refuses what other sites ask for, and files of other hosts, which Gradio would fetch."""

    def __init__(self, server: Any) -> None:
        self.server = server

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and is_foreign(scope):
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b"This page answers only itself."})
            return
        await self.server(scope, receive, send)


def is_foreign(request: Any) -> bool:
    """Whether a request is not of this page, or names another host's file.

    Args:
        request: An ASGI scope of type "http".
    """
    headers = dict(request["headers"])
    own = b"http://" + headers.get(b"host", b"")
    embedded = headers.get(b"sec-fetch-site") == b"cross-site" and headers.get(b"sec-fetch-dest") != b"document"
    path = request["path"].lower()
    return embedded or headers.get(b"origin", own) != own or "=http" in path or "proxy=" in path


def listening(port: int) -> socket.socket:
    """A socket of 127.0.0.1; port 0 takes any that is free.

    Raises:
        ExpectedError: The port cannot be used.
    """
    try:
        return socket.create_server((HOST, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ExpectedError(f"port {port}: {reason}; choose another, as in: make app PORT=8000") from None


def page(folder: Path) -> Any:
    """The page: a picture, examples of them, and what the models say of it."""
    import gradio
    from gradio import processing_utils

    models, images = known_models(), test_images()
    processing_utils.async_ssrf_protected_get = refused  # by which Gradio fetches what a request names
    # The file as it is: Gradio's own reading fails on some pictures and converts others. Of the class, because a click
    # on an example makes a new object; a subclass would make Gradio write a file beside this one.
    gradio.Image.preprocess = lambda _, upload: upload and upload.path

    def classify(file: str | None) -> str:
        return result(Path(file).name, content_of(file), models, images) if file else ""

    with gradio.Blocks(title="Classify a picture", analytics_enabled=False) as blocks:
        gradio.HTML(rendered("intro"), padding=False, apply_default_css=False)
        with gradio.Row():
            with gradio.Column(scale=1, min_width=300):
                picture = gradio.Image(
                    label="Picture", type="filepath", sources=["upload", "clipboard"], buttons=[], height=260
                )
                gradio.Examples(example_files(folder), picture, label="Images of the test set", elem_id="examples")
            with gradio.Column(scale=2, min_width=300):
                shown = gradio.HTML(padding=False, apply_default_css=False)
        picture.change(classify, picture, shown, queue=False, api_visibility="private", show_progress="hidden")
    blocks.has_launched = True  # launch() says so; without it Gradio would read any file that a request names
    return blocks


def known_models() -> dict[str, Known | str]:
    """Both models by title; of one that cannot be used, the line that says why and what to do."""
    found: dict[str, Known | str] = {}
    for name, title in TITLES.items():
        try:
            classifier, stored = load_classifier(paths.onnx(name)), read_arrays(paths.predictions(name))
            require_same_data(name, {classifier.source, str(stored["source"]), read_json(paths.DATASET)["source"]})
            found[title] = Known(classifier, stored["probabilities"], stored["labels"])
        except ExpectedError as error:
            found[title] = str(error)
    return found


def test_images() -> np.ndarray | str:
    """The test images, uint8 (N, 32, 32, 3), or the line that says how to get them."""
    path = paths.images("test")
    if not path.exists():
        return f"Their pictures come with dvc repro preprocess, which needs CIFAR-10 ({path} is missing)."
    try:
        images, known = read_array(path), read_arrays(paths.SAMPLES)["test_images"]
    except ExpectedError as error:
        return str(error)
    if not np.array_equal(images[: len(known)], known):
        return f"{path} is of other data than {paths.SAMPLES}; run dvc repro preprocess"
    return images


def example_files(folder: Path) -> list[str]:
    """PNG files of the test images that are in git, written to `folder`."""
    files = []
    samples = read_arrays(paths.SAMPLES)["test_images"]
    for number, pixels in enumerate(samples):
        file = folder / f"test image {number}.png"
        Image.fromarray(pixels).save(file)
        files.append(str(file))
    return files


def result(name: str, content: bytes, models: dict[str, Known | str], images: np.ndarray | str) -> str:
    """What the page says of a picture, as HTML.

    Args:
        name: Of the picture.
        content: Its file's.
        models: As `known_models` gives them.
        images: As `test_images` gives them.
    """
    try:
        pixels = read_picture(content, name)
    except ExpectedError as error:
        return rendered("fault", fault=str(error))
    found = {
        title: model if isinstance(model, str) else prediction(pixels, model, images) for title, model in models.items()
    }
    missing = images if isinstance(images, str) else ""
    return rendered("result", name=name, seen=address(pixels), models=found, missing=missing)


def prediction(pixels: np.ndarray, model: Known, images: np.ndarray | str) -> dict[str, Any]:
    """What a model says of a picture, and the test images of which it says nearly the same."""
    probabilities = model.classifier.probabilities(pixels[np.newaxis])[0]
    order, distances = nearest(probabilities, model.probabilities)
    classes, right = model.classifier.classes, model.probabilities.argmax(axis=1) == model.labels
    neighbours = [
        {
            "index": int(index),
            "distance": float(distances[index]),
            "true": classes[model.labels[index]],
            "predicted": classes[model.probabilities[index].argmax()],
            "right": bool(right[index]),
            "picture": address(images[index]) if isinstance(images, np.ndarray) else None,
        }
        for index in order[:NEAREST]
    ]
    around = order[:AROUND]
    return answer(probabilities, classes) | {
        "source": model.classifier.source,
        "nearest": neighbours,
        "around": len(around),
        "right": int(right[around].sum()),
    }


def nearest(probabilities: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order of `others`, (N, 10), by their Euclidean distance from `probabilities`, (10,), and the distances."""
    distances = np.linalg.norm(others.astype(np.float64) - probabilities, axis=1)
    return np.argsort(distances, kind="stable"), distances


def address(pixels: np.ndarray) -> str:
    """An image as a PNG that is its own address."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="png")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"


def rendered(part: str, **content: Any) -> str:
    """A part of the page: a macro of app.html.jinja."""
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    template = environment.get_template("app.html.jinja", globals={"NOTE": NOTE.strip(), "SHOWN": SHOWN})
    return str(getattr(template.module, part)(**content))


if __name__ == "__main__":
    run_program("app", main, again="begins anew")
