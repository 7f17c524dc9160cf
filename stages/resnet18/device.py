"""PyTorch on the device that a parameter names, its operations deterministic."""

import os
from typing import Literal

import torch

from stages.common.errors import BadParameter

Device = Literal["cpu", "cuda"]


def start(device: Device) -> torch.device:
    """Choose deterministic operations, and the device.

    Args:
        device: "cpu" or "cuda".

    Raises:
        BadParameter: There is no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise BadParameter("resnet18.device is cuda, but PyTorch sees no GPU here; use -S resnet18.device=cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # A few CUDA kernels have no deterministic form: PyTorch warns then instead of stopping.
    torch.use_deterministic_algorithms(True, warn_only=device == "cuda")
    # Or each new array is filled with NaN first, to show who reads one unwritten: 4 ms of ResNet-18's step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return torch.device(device)
