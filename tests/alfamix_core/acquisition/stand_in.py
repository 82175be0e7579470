"""A device for machines without a GPU: the numbers are computed on the CPU, but placement has the rules of CUDA.

A tensor on it holds a tensor of the CPU and does not say so: an operator refuses it beside a tensor of the CPU, as on
CUDA, where all work happens, but that mixing is what a machine without a GPU cannot show. What also fails on CUDA
alone fails here: ``numpy``, a generator of the CPU, products of whole numbers, and sums whose order is not defined
while deterministic algorithms are asked for. Speed, memory, streams and other last bits are not shown.
"""

from collections.abc import Iterable, Iterator
from functools import cache, partial
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "stand_in"

_INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}
"""Their indices may lie on the CPU, unlike all other arguments."""

_MOVES = {"aten::copy_", "aten::_to_copy", "aten::_copy_from", "aten::_copy_from_and_resize"}

_PRODUCTS = {f"aten::{name}" for name in ("mm", "addmm", "addmm_", "bmm", "baddbmm", "mv", "addmv", "dot", "vdot")}

_WITHOUT_ORDER = {f"aten::{name}" for name in ("histc", "kthvalue", "median.dim", "nanmedian.dim", "put", "put_")}
"""Not repeatable on CUDA whatever the arguments; ``cumsum`` and ``bincount`` are for some of them."""

_MADE_HERE = (
    *("empty.memory_format", "empty_strided", "copy_"),
    *("arange", "arange.start", "arange.start_step", "eye", "eye.m", "linspace", "randperm", "randperm.generator"),
)
"""What torch asks of the device itself: all other operators have a tensor of it among their arguments."""


class StandIn(Tensor):
    """A tensor on the stand-in device; views share the memory of what is held, so writing to one writes to all."""

    held: Tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> "StandIn":
        """Return a tensor of the device with the numbers of one of the CPU, not copied."""
        wrapper: StandIn = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=torch.device(NAME, 0),
        )
        wrapper.held = held
        return wrapper

    @classmethod
    def __torch_dispatch__(
        cls,
        func: torch._ops.OpOverload,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return _compute(func, *args, **(kwargs or {}))

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"stand-in: {self.held!r}"

    def tolist(self) -> Any:
        """Return the numbers: torch has no ``tolist`` for subclasses."""
        return self.detach().held.tolist()  # type: ignore[attr-defined]

    def data_ptr(self) -> int:
        """Return where the numbers lie."""
        return self.held.data_ptr()

    def numpy(self, *, force: bool = False) -> NoReturn:
        """Refuse, as CUDA does."""
        raise TypeError(f"can't convert {NAME} device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, *arguments: object, **named: object) -> NoReturn:
        self.numpy()


def device() -> torch.device:
    """Return the device; the first call registers it with torch, for as long as the process lives."""
    if torch._C._get_privateuse1_backend_name() != NAME:
        _setup_privateuseone_for_python_backend(NAME)
        for name in _MADE_HERE:
            packet, _, overload = name.partition(".")
            func = getattr(getattr(torch.ops.aten, packet), overload or "default")
            _kernels.impl(name, partial(_compute, func), "PrivateUse1")
    return torch.device(NAME, 0)


_kernels = torch.library.Library("aten", "IMPL")


@cache
def _signature(func: torch._ops.OpOverload) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the names of an operator's arguments, and of those that it writes to."""
    arguments = func._schema.arguments
    written = (entry.name for entry in arguments if entry.alias_info is not None and entry.alias_info.is_write)
    return tuple(argument.name for argument in arguments), frozenset(written)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _held(value: Any) -> Any:
    if isinstance(value, StandIn):
        return value.held
    return type(value)(map(_held, value)) if type(value) in (list, tuple) else value


def _compute(func: torch._ops.OpOverload, *args: Any, **kwargs: Any) -> Any:
    """Run one operator on the numbers held, if CUDA would run it; the result is on the device unless told otherwise."""
    names, written = _signature(func)
    named = dict(zip(names, args, strict=False)) | kwargs
    _check(func, named, written)
    wanted = kwargs.get("device")
    away = wanted is not None and torch.device(wanted).type != NAME
    if wanted is not None and not away:
        kwargs["device"] = torch.device("cpu")
    kwargs.pop("pin_memory", None)
    result = func(*_held(args), **{key: _held(value) for key, value in kwargs.items()})
    targets = list(_tensors(named[name] for name in written if name in named))
    for target in targets:
        if isinstance(target, StandIn) and target.shape != target.held.shape:
            held = target.held
            with torch._C._DisableTorchDispatch():
                torch.ops.aten.as_strided_(target, held.size(), held.stride(), held.storage_offset())
    if away or not all(isinstance(target, StandIn) for target in targets):
        return result
    # an operator in place returns its argument
    own = {id(target.held): target for target in targets if isinstance(target, StandIn)}

    def wrapped(value: Any) -> Any:
        if isinstance(value, Tensor):
            return own[id(value)] if id(value) in own else StandIn(value)
        return type(value)(map(wrapped, value)) if type(value) in (list, tuple) else value

    return wrapped(result)


def _check(func: torch._ops.OpOverload, named: dict[str, Any], written: frozenset[str]) -> None:
    """Refuse what CUDA refuses.

    Raises:
        RuntimeError: as on CUDA, with other words.
    """
    name = func._schema.name
    if name not in _MOVES:
        free = {"indices"} if name in _INDEXED else set()
        beside = [
            value
            for key, argument in named.items()
            if key not in free
            for value in _tensors([argument])
            if not isinstance(value, StandIn) and (value.ndim or key in written)
        ]
        if beside:
            shape = tuple(beside[0].shape)
            raise RuntimeError(f"{name}: expected all tensors on one device, found {NAME} and cpu, the latter {shape}")
    generator = named.get("generator")
    if generator is not None and generator.device.type != NAME:
        raise RuntimeError(f"{name}: expected a generator of {NAME}, found one of {generator.device}")
    if name in _PRODUCTS and not all(value.is_floating_point() for value in _tensors(named.values())):
        raise RuntimeError(f"{name}: not implemented on CUDA for whole numbers")
    if torch.are_deterministic_algorithms_enabled() and _without_order(func, named):
        raise RuntimeError(f"{name} does not have a deterministic implementation on CUDA")


def _without_order(func: torch._ops.OpOverload, named: dict[str, Any]) -> bool:
    """Tell whether the operator adds up, or picks among equals, in no defined order."""
    name = func._schema.name
    if name in ("aten::cumsum", "aten::cumsum_"):
        return bool((named.get("dtype") or named["self"].dtype).is_floating_point)
    if name == "aten::bincount":
        return named.get("weights") is not None
    return name in _WITHOUT_ORDER or f"{name}.{func._schema.overload_name}" in _WITHOUT_ORDER
