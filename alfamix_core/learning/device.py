"""Where models run, and what makes a run there repeatable."""

import os

import torch


def choose() -> torch.device:
    """Return the device for models, ready for repeatable work: the first GPU where there is one, else the CPU.

    On CUDA: deterministic algorithms, full float32 (no TF32), no search for the fastest convolution. An operation
    that has no deterministic version warns and runs (the adaptive pooling of vgg and alexnet in training). The CPU
    needs no setting.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # cuBLAS reads it when its handle is made, which is later
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda", torch.cuda.current_device())


def name(device: torch.device) -> str:
    """Return what a report calls the device: ``cpu``, or the GPU's product name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def gpu_seconds(device: torch.device, seconds: float, processes: int = 1) -> float:
    """Return the time that GPUs were held, a GPU a process, seconds; 0 on the CPU."""
    return round(seconds * processes, 3) if device.type == "cuda" else 0.0


def gpu_peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory that this process has reserved on its GPU, bytes; 0 on the CPU."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0
