"""Matrix products of float32 in full precision, whatever the process allows for speed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def true_float32() -> Iterator[None]:
    """Keep all 24 bits of the factors in matrix products of float32 within the block, then restore the settings.

    ``torch.set_float32_matmul_precision``, ``allow_tf32`` and ``fp32_precision`` let a GPU round factors to 11 bits
    (TF32) and a CPU to 8 (bfloat16). A bound made for float32 would not hold then. The settings belong to the process.
    """
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
