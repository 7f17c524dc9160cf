"""Keras on the backend that a parameter names; the settings of each backend are here."""

import importlib
import os
from typing import Any, Literal

from stages.common.errors import BadParameter
from stages.training.machine import cores
from stages.training.memory import keep_memory

Backend = Literal["tensorflow", "torch", "jax"]
Device = Literal["cpu", "cuda"]


def start(backend: Backend, device: Device) -> Any:
    """Import Keras on one backend and one device, its operations deterministic; once in a process.

    Args:
        backend: The framework that computes; it changes each sum's last digits, and so in the end all results.
        device: "cpu" or "cuda".

    Returns:
        The `keras` module.

    Raises:
        BadParameter: The backend is not installed, or there is no such device.
    """
    keep_memory()
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # nothing below an error
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["KERAS_TORCH_DEVICE"] = device
    try:
        framework = importlib.import_module(backend)
    except ImportError as error:
        raise BadParameter(
            f"keras_cnn.backend is {backend}, which cannot be imported here ({error}); "
            f"pip install {backend}, or choose another"
        ) from None
    if device == "cuda" and not _has_gpu(backend, framework):
        raise BadParameter(f"keras_cnn.device is cuda, but {backend} sees no GPU here; use -S keras_cnn.device=cpu")
    if backend == "tensorflow":
        framework.config.experimental.enable_op_determinism()
    elif backend == "torch":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # A few CUDA kernels have no deterministic form: PyTorch warns then instead of stopping.
        framework.use_deterministic_algorithms(True, warn_only=device == "cuda")
    keras = importlib.import_module("keras")
    # A user's ~/.keras/keras.json or environment may say otherwise; they are no parameters of this pipeline.
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)
    return keras


def threads(backend: Backend) -> int:
    """How many threads an operation may use: they change the order of sums, so a run records them."""
    if backend == "torch":
        return int(importlib.import_module("torch").get_num_threads())
    configured = 0
    if backend == "tensorflow":
        given = os.environ.get("TF_NUM_INTRAOP_THREADS", "")  # the next line leaves it out
        configured = importlib.import_module("tensorflow").config.threading.get_intra_op_parallelism_threads()
        configured = configured or (int(given) if given.isdecimal() else 0)
    return int(configured or cores())  # 0 is TensorFlow's word for all that the process may use


def _has_gpu(backend: Backend, framework: Any) -> bool:
    if backend == "tensorflow":
        return bool(framework.config.list_physical_devices("GPU"))
    if backend == "torch":
        return bool(framework.cuda.is_available())
    try:
        return bool(framework.devices("gpu"))
    except RuntimeError:
        return False
