"""The page of `make app` says what `make predict` says, of both models, and nothing leaves the computer."""

import base64
import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.common import paths
from stages.common.errors import ExpectedError
from stages.common.files import read_arrays, write_json
from stages.inference.classifier import load_classifier
from stages.inference.pictures import read_picture
from stages.tools import app
from stages.tools.predict import answer
from tests.support.browser import PROGRAMS, Browser, chromium
from tests.support.made_up_results import CLASSES
from tests.support.onnx_models import write_colour_model
from tests.support.stage_runs import ROOT

ALONE = {"numpy", "PIL", "onnxruntime", "jinja2", "markupsafe", "_distutils_hack"}
SURE, LESS_SURE = 0.978, 0.7  # of the colour model for a plain red picture; of some test images
RESNET18_IS_MISSING = "models/resnet18.onnx is missing; dvc pull models/resnet18.onnx fetches it where a remote has it"
PICTURES_ARE_MISSING = "Their pictures come with dvc repro preprocess"


def encoded(picture: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


RED = encoded(Image.new("RGB", (50, 40), (255, 0, 0)))
GREY = encoded(Image.new("RGB", (50, 40), (200, 200, 200)))


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a Keras CNN that tells three colours apart, and its predictions for 20 test images."""
    monkeypatch.chdir(tmp_path)
    write_model("cifar10")
    write_json(paths.DATASET, {"source": "cifar10", "classes": CLASSES})
    # Airplanes: the first ten are as red as RED and all right, the others less so, of which four are wrong.
    probabilities = np.full((20, 10), (1 - LESS_SURE) / 9, np.float32)
    probabilities[:, 0] = LESS_SURE
    probabilities[:10] = (1 - SURE) / 9
    probabilities[:10, 0] = SURE
    labels = np.array([0] * 16 + [8] * 4, np.uint8)
    paths.predictions("keras_cnn").parent.mkdir()
    np.savez(paths.predictions("keras_cnn"), probabilities=probabilities, labels=labels, source="cifar10")
    return tmp_path


def write_model(source: str) -> None:
    weights = np.zeros((3, 10), np.float32)
    weights[range(3), [CLASSES.index(name) for name in ("airplane", "cat", "ship")]] = 6 / 255
    write_colour_model(paths.onnx("keras_cnn"), weights, {"classes": json.dumps(CLASSES), "source": source})


def shown(content: bytes, name: str = "x.png") -> str:
    """What the page says of a picture."""
    return app.result(name, content, app.known_models(), app.test_images())


def pictures(page: str) -> list[np.ndarray]:
    """The pixels of the pictures in a page."""
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))) for content in found]


@pytest.mark.usefixtures("work")
def test_it_says_what_predict_says() -> None:
    page = shown(RED)
    classifier = load_classifier(paths.onnx("keras_cnn"))
    said = answer(classifier.probabilities(read_picture(RED, "x")[np.newaxis])[0], CLASSES)
    rows = re.findall(r'data-class="(\w+)" data-probability="([^"]+)"', page)
    assert rows == [(name, str(value)) for name, value in list(said["probabilities"].items())[: app.SHOWN]]
    assert rows[0][0] == "airplane"
    assert f"{100 * SURE:.1f} %" in page
    assert f"entropy {said['entropy']:.2f} nats" in page
    assert "Unsure" not in page
    (seen,) = pictures(page)
    assert np.array_equal(seen, read_picture(RED, "x"))


@pytest.mark.usefixtures("work")
def test_an_unsure_model_is_called_so() -> None:
    page = shown(GREY)
    assert re.search(r'class="verdict">Unsure<small>most likely airplane; entropy', page)


@pytest.mark.usefixtures("work")
def test_without_the_files_that_are_not_in_git_it_says_how_to_get_them() -> None:
    page = shown(RED)
    assert RESNET18_IS_MISSING in page
    assert page.count(PICTURES_ARE_MISSING) == 1
    assert len(re.findall(r"<figure", page)) == app.NEAREST


@pytest.mark.usefixtures("work")
def test_the_nearest_test_images_are_right_or_wrong() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    paths.images("test").parent.mkdir(parents=True)
    np.save(paths.images("test"), pixels)
    np.savez(paths.SAMPLES, test_images=pixels[:10])
    model = app.known_models()["Keras CNN"]
    assert isinstance(model, app.Known)
    first = shown(RED)
    assert [int(index) for index in re.findall(r'data-index="(\d+)"', first)] == list(range(6))
    assert all(np.array_equal(picture, pixels[index]) for index, picture in enumerate(pictures(first)[1:]))
    assert "Of the 20 nearest, Keras CNN is right on 16." in first
    assert "✗ wrong" not in first
    assert PICTURES_ARE_MISSING not in first
    np.savez(paths.predictions("keras_cnn"), probabilities=model.probabilities, labels=[8] * 20, source="cifar10")
    wrong = shown(RED)
    assert wrong.count("<b>✗ wrong</b> ship, taken for airplane") == app.NEAREST
    assert "✓ right" not in wrong


@pytest.mark.usefixtures("work")
def test_test_images_of_other_data_are_not_shown() -> None:
    paths.images("test").parent.mkdir(parents=True)
    np.save(paths.images("test"), np.zeros((20, 32, 32, 3), np.uint8))
    np.savez(paths.SAMPLES, test_images=np.ones((10, 32, 32, 3), np.uint8))
    page = shown(RED)
    assert "data/processed/test_images.npy is of other data than metrics/samples.npz; run dvc repro preprocess" in page
    assert len(pictures(page)) == 1  # what the model sees


HOST_HEADER = (b"host", b"127.0.0.1:7860")


@pytest.mark.parametrize(
    ("path", "headers", "foreign"),
    [
        ("/", [], False),
        ("/", [(b"sec-fetch-site", b"cross-site"), (b"sec-fetch-dest", b"document")], False),  # a link to the page
        ("/gradio_api/upload", [(b"origin", b"http://127.0.0.1:7860")], False),
        ("/gradio_api/upload", [(b"origin", b"https://example.org")], True),
        ("/gradio_api/upload", [(b"origin", b"null")], True),
        ("/gradio_api/file=/x.png", [(b"sec-fetch-site", b"cross-site"), (b"sec-fetch-dest", b"image")], True),
        ("/gradio_api/file=http://example.org/x.png", [], True),
        ("/gradio_api/proxy=HTTP://example.org/x.png", [], True),
    ],
)
def test_only_the_page_itself_is_answered(path: str, headers: list[tuple[bytes, bytes]], foreign: bool) -> None:
    assert app.is_foreign({"type": "http", "path": path, "headers": [HOST_HEADER, *headers]}) is foreign


def test_nearest_is_by_the_euclidean_distance() -> None:
    others = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0], [1, 0, 0]], np.float32)
    order, distances = app.nearest(np.array([0.9, 0.1, 0], np.float32), others)
    assert order.tolist() == [0, 3, 2, 1]
    assert distances == pytest.approx([0.1 * 2**0.5, 0.9 * 2**0.5, 0.4 * 2**0.5, 0.1 * 2**0.5])


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize("content", [b"", b"hello", RED[:60], b"GIF89a"], ids=["empty", "text", "cut", "cut GIF"])
def test_a_bad_picture_gets_predict_s_line(content: bytes) -> None:
    with pytest.raises(ExpectedError) as error:
        read_picture(content, "<b>.png")
    page = shown(content, "<b>.png")
    said = re.sub(r"<[^>]+>", "", page).strip()
    assert said.replace("&lt;", "<").replace("&gt;", ">") == str(error.value)


@pytest.mark.usefixtures("work")
def test_synthetic_data_is_named_and_never_mixed_with_cifar_10() -> None:
    write_model("synthetic")
    assert "results of keras_cnn and the samples are of different data (cifar10, synthetic)" in shown(RED)
    stored = read_arrays(paths.predictions("keras_cnn"))
    np.savez(paths.predictions("keras_cnn"), **(stored | {"source": np.array("synthetic")}))
    write_json(paths.DATASET, {"source": "synthetic", "classes": CLASSES})
    assert "This model was trained on synthetic data, not on CIFAR-10." in shown(RED)


@pytest.mark.usefixtures("work")
def test_damaged_files_are_said_in_one_line() -> None:
    paths.images("test").parent.mkdir(parents=True)
    paths.images("test").write_bytes(b"junk")
    paths.predictions("keras_cnn").write_bytes(b"junk")
    page = shown(RED)
    assert "data/processed/test_images.npy cannot be read (" in page
    assert "metrics/predictions/keras_cnn.npz cannot be read (" in page


def test_only_this_computer_reaches_it() -> None:
    with app.listening(0) as place:
        assert place.getsockname()[0] == "127.0.0.1"


def test_a_port_that_cannot_be_used_is_said_in_one_line() -> None:
    with socket.create_server((app.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ExpectedError, match=f"port {port}: .*in use.*make app PORT=8000"):
            app.listening(port)
    with pytest.raises(ExpectedError, match=r"port 99999: .*make app PORT=8000"):
        app.listening(99_999)


def test_it_imports_no_framework_and_without_gradio_says_what_to_do() -> None:
    code = (
        "import sys, stages.tools.app; "
        "print(*{name.split('.')[0] for name, module in sys.modules.items() if 'site-packages' in "
        "(getattr(module, '__file__', None) or '')}); "
        "sys.modules['gradio'] = sys.modules['uvicorn'] = None; "
        "sys.argv = ['app']; from stages.common.errors import run_program; run_program('app', stages.tools.app.main)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert {"numpy", "PIL", "onnxruntime", "jinja2"} <= set(run.stdout.split()) <= ALONE
    assert (run.returncode, run.stderr) == (
        1,
        "app: Gradio is missing here; make app installs it, in .venv-app, and runs this\n",
    )


# The app, with a line in the file "calls" for every other host that it looks up or connects to.
WATCHED = """
import runpy, socket, sys
def watch(event, values):
    if event in ("socket.connect", "socket.getaddrinfo"):
        host = values[1] if event == "socket.connect" else values[0]
        host = host[0] if isinstance(host, tuple) else host
        if host not in ("127.0.0.1", b"127.0.0.1", None):
            print(event, host, file=open("calls", "a"), flush=True)
sys.addaudithook(watch)
runpy.run_module("stages.tools.app", run_name="__main__")
"""
PROBABILITIES = """Object.fromEntries([...document.querySelectorAll('[data-model="Keras CNN"] [data-class]')]
    .map(row => [row.dataset.class, Number(row.dataset.probability)]))"""
TEXT = "document.body.innerText"
CLEAR = "[...document.querySelectorAll('button')].find(one => /clear|remove/i.test(one.ariaLabel + one.title)).click()"
# A picture of another host; the browser answers with the directive that forbids it.
BLOCKED = """new Promise(done => {
    document.addEventListener('securitypolicyviolation', event => done(event.effectiveDirective));
    new Image().src = 'http://127.0.0.1:9/x.png'; })"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """The app in a folder that has what a plain clone has."""
    python = ROOT / ".venv-app/bin/python"
    if not python.exists() and find_spec("gradio") is None:
        pytest.skip("no Gradio: THE PAGE WAS NOT OPENED; make .venv-app/ready installs it")
    if chromium() is None:
        pytest.skip(f"no Chromium: THE PAGE WAS NOT OPENED; install one of {', '.join(PROGRAMS)}, or set CHROMIUM")
    for path in (paths.onnx("keras_cnn"), paths.predictions("keras_cnn"), paths.SAMPLES, paths.DATASET):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    for folder in ("temporary", "home"):
        (tmp_path / folder).mkdir()
    process = subprocess.Popen(
        [python if python.exists() else sys.executable, "-c", WATCHED, "--port", "0"],
        cwd=tmp_path,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "temporary"), "HOME": str(tmp_path / "home")}
        | {"GRADIO_SHARE": "True"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with process:
        yield process
        process.kill()


def test_nothing_is_read_that_was_not_uploaded(served: "subprocess.Popen[str]", tmp_path: Path) -> None:
    """Other programs of this computer can ask the page's functions for any file, or for one of another host."""
    assert served.stdout
    (address,) = re.findall(r"Open (\S+) in a browser", served.stdout.readline())
    secret = tmp_path / "home/secret.png"
    Image.new("RGB", (40, 40), (12, 34, 56)).save(secret)
    for _ in range(100):  # until it listens
        with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(f"{address}/config") as config:
            functions = [one["id"] for one in json.load(config)["dependencies"]]
            break
        time.sleep(0.1)
    assert functions

    def shown(place: str) -> bool:
        """Whether one of the functions shows the picture at a place."""
        data = [{"path": place, "meta": {"_type": "gradio.FileData"}}]
        replies = []
        for function in functions:
            asked = json.dumps({"fn_index": function, "data": data}).encode()
            request = urllib.request.Request(f"{address}/gradio_api/run/x", asked, {"Content-Type": "application/json"})
            with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(request) as reply:
                replies.append(reply.read().decode())
        return any("base64" in reply for reply in replies)

    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="red.png"\r\n\r\n' + RED + b"\r\n--x--\r\n"
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    with urllib.request.urlopen(urllib.request.Request(f"{address}/gradio_api/upload", part, form)) as reply:
        (uploaded,) = json.load(reply)
    assert shown(uploaded)
    assert not shown(str(secret))
    assert not shown("http://127.0.0.1:9/x.png")
    assert not [file for file in (tmp_path / "temporary").rglob("*") if file.name == secret.name]
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{address}/gradio_api/file=http://127.0.0.1:9/x.png")
    assert not (tmp_path / "calls").exists()


def test_the_page_in_a_browser_without_a_network(served: "subprocess.Popen[str]", tmp_path: Path) -> None:
    program = chromium()
    assert program
    samples = read_arrays(tmp_path / paths.SAMPLES)["test_images"]
    classifier = load_classifier(tmp_path / paths.onnx("keras_cnn"))
    expected = [answer(row, classifier.classes)["probabilities"] for row in classifier.probabilities(samples)]
    Image.fromarray(samples[3]).save(tmp_path / "picture.png")
    (tmp_path / "bad.png").write_text("hello")
    assert served.stdout
    address = re.findall(r"Open (\S+) in a browser", line := served.stdout.readline())
    assert address, line

    def shown() -> dict[str, float]:
        browser.wait_for("document.querySelectorAll('[data-class]').length == 5", 60)
        found: dict[str, float] = browser.evaluate(PROBABILITIES)
        return found

    with Browser(program, tmp_path / "profile", local=True) as browser:
        for width, scheme in ((1280, "light"), (390, "dark")):
            browser.open(address[0], width, scheme=scheme)
            browser.wait_for("document.querySelectorAll('#examples button').length == 10", 60)
            browser.upload("input[type=file]", tmp_path / "picture.png")
            assert shown() == dict(list(expected[3].items())[: app.SHOWN])
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
        text = browser.evaluate(TEXT)
        assert RESNET18_IS_MISSING in text
        assert PICTURES_ARE_MISSING in text
        best = f"document.querySelector('[data-class]').dataset.probability == {max(expected[0].values())}"
        browser.evaluate("document.querySelector('#examples button').click()")
        browser.wait_for(best)
        assert shown() == dict(list(expected[0].items())[: app.SHOWN])
        browser.evaluate(CLEAR)
        browser.wait_for("!!document.querySelector('input[type=file]') && !document.querySelector('[data-class]')")
        browser.upload("input[type=file]", tmp_path / "bad.png")
        browser.wait_for("!!document.querySelector('[role=alert]')")
        assert "bad.png is no picture that Pillow reads" in browser.evaluate(TEXT)
        # Gradio's own event stream warns so when it is closed.
        assert [said for said in browser.complaints if "Method not implemented." not in said] == []
        assert [asked for asked in browser.requests if not asked.startswith((address[0], "data:", "blob:"))] == []
        assert browser.evaluate(BLOCKED) == "img-src"
        other = urllib.request.Request(address[0], headers={"Host": "example.org"})
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(other)
        os.killpg(served.pid, signal.SIGINT)
        output, _ = served.communicate(timeout=60)
    assert (served.returncode, output) == (0, "")
    assert not (tmp_path / "calls").exists()
    assert list((tmp_path / "temporary").iterdir()) == list((tmp_path / "home").iterdir()) == []
    left = {"models", "metrics", "temporary", "home", "picture.png", "bad.png", "profile"}
    assert {path.name for path in tmp_path.iterdir()} == left
