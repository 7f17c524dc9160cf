"""PyTorch on the device that a parameter names, its operations deterministic."""

import os

import torch

from beyond.recipe.settings import BadSetting
from stages.training.memory import keep_memory


def start(device: str) -> torch.device:
    """Choose deterministic operations, and the device.

    Raises:
        BadSetting: There is no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise BadSetting("device is cuda, but PyTorch sees no GPU here; use -S beyond/params.yaml:device=cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=device == "cuda")
    # Or each new array is filled with NaN first, to show who reads one unwritten.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    keep_memory()
    return torch.device(device)
