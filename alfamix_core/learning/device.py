"""The device that models run on, and the settings that make its results repeatable."""

import os

import torch


def choose() -> torch.device:
    """Return the device for models, set up for repeatable results: the first GPU if there is one, else the CPU.

    CUDA uses deterministic algorithms and full float32 (no TF32), and does not search for the fastest convolution. An
    operation without a deterministic version, such as the adaptive pooling of vgg and alexnet in training, runs with a
    warning. The CPU needs no settings.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # cuBLAS reads this when it creates its handle, which happens later
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda", torch.cuda.current_device())


def name(device: torch.device) -> str:
    """Return the name of a device in reports: ``cpu``, or the GPU's product name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def gpu_seconds(device: torch.device, seconds: float, processes: int = 1) -> float:
    """Return the GPU time of a stage in seconds, with one GPU per process; 0 on the CPU."""
    return round(seconds * processes, 3) if device.type == "cuda" else 0.0


def gpu_peak_memory_bytes(device: torch.device) -> int:
    """Return the peak memory that this process has reserved on its GPU, in bytes; 0 on the CPU."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0
