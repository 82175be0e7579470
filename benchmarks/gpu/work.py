"""The rates of a device, and the work of a call on it."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from alfamix_core.acquisition.precision import true_float32

T = TypeVar("T")


def wait(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(call: Callable[[], T], device: torch.device, repeats: int, limit: float = 10.0) -> tuple[T, float]:
    """Return a call's result and the median of its seconds after one call that warms up.

    Args:
        call: Call to measure.
        device: Device on which it computes.
        repeats: Largest number of calls that count.
        limit: Seconds after which no further call begins.
    """
    result, times, started = call(), [], time.perf_counter()
    wait(device)
    while not times or (len(times) < repeats and time.perf_counter() - started < limit):
        before = time.perf_counter()
        result = call()
        wait(device)
        times.append(time.perf_counter() - before)
    return result, statistics.median(times)


@dataclass
class Work:
    """The work of a call on the device.

    Attributes:
        flops: Operations of matrix products by dtype, two for each multiplication with its addition.
        moved: Bytes that kernels read and write, summed over operators and wherever they lie; views move nothing.
        calls: Number of operators that compute something.
    """

    flops: dict[torch.dtype, int] = field(default_factory=dict)
    moved: int = 0
    calls: int = 0


class _Counter(TorchDispatchMode):
    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work = work

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if any(value.alias_info is not None and not value.alias_info.is_write for value in func._schema.returns):
            return result
        inputs = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        outputs = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
        self.work.calls += 1
        self.work.moved += sum(_bytes(value) for value in inputs + outputs)
        count = flop_registry.get(func._overloadpacket)
        if count is not None and inputs:
            dtype = inputs[-1].dtype
            self.work.flops[dtype] = self.work.flops.get(dtype, 0) + count(*args, **kwargs, out_val=result)
        return result


def _bytes(value: Tensor) -> int:
    """Return the part of a tensor that is read: repeated elements of an expanded tensor count once."""
    return min(value.numel() * value.element_size(), value.untyped_storage().nbytes())


def counted(call: Callable[[], object]) -> Work:
    """Return the work of one call on the device."""
    work = Work()
    with _Counter(work):
        call()
    return work


@dataclass(frozen=True)
class Rates:
    """The best rates of the device, measured.

    Attributes:
        float32: operations a second of a product of two large float32 matrices, all 24 bits.
        float64: likewise of float64.
        bandwidth: Bytes per second of a copy, read and written.
    """

    float32: float
    float64: float
    bandwidth: float

    def of_products(self, work: Work) -> float:
        """Return the seconds that a call's products take at the device's own rates."""
        other = sum(count for dtype, count in work.flops.items() if dtype != torch.float64)
        return other / self.float32 + work.flops.get(torch.float64, 0) / self.float64

    def of_moves(self, work: Work) -> float:
        """Return the seconds that a call's bytes take at the device's own bandwidth."""
        return work.moved / self.bandwidth


def measure(device: torch.device, side: int, copied: int) -> Rates:
    """Measure a device.

    Args:
        device: Device to measure.
        side: Number of rows and columns of the square matrices.
        copied: Number of bytes that are copied.
    """

    def product(dtype: torch.dtype) -> float:
        random = torch.Generator(device).manual_seed(0)
        left, right = (torch.randn(side, side, generator=random, device=device, dtype=dtype) for _ in range(2))
        with true_float32():
            _, seconds = timed(lambda: left @ right, device, 7)
        return 2 * side**3 / seconds

    source = torch.empty(copied, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    _, seconds = timed(lambda: target.copy_(source), device, 7)
    return Rates(product(torch.float32), product(torch.float64), 2 * copied / seconds)
