"""Checks of the arrays and numbers that a caller of the library passes: one line says what is wrong."""

import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alfamix_core.errors import InputError, one_line

Array = Any
"""A numpy array, a torch tensor, or anything that numpy makes an array of."""

_LONGEST = 60
_LARGEST = 2**63


def shown(value: object) -> str:
    """Return a value as one short line."""
    if getattr(value, "shape", ()):
        return f"a {type(value).__name__} of the shape {tuple(value.shape)}"  # type: ignore[attr-defined]
    text = one_line(repr(value))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def whole(value: Any, what: str, least: int) -> int:
    """Return a Python integer, from numpy's integers too.

    Raises:
        InputError: It is not a whole number, or too small.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool | np.bool_) or not least <= number < _LARGEST:
        raise InputError(f"{what}: must be a whole number from {least} on, not {shown(value)}")
    return number


def dense(values: Array, what: str) -> Array:
    """Return a numpy array or a tensor that is neither sparse nor masked, of any type.

    Raises:
        InputError: It is neither, and numpy cannot make an array of it.
    """
    if isinstance(values, Tensor):
        if values.layout != torch.strided:
            raise InputError(f"{what}: must be dense, not {values.layout}")
        return values.detach()
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise InputError(f"{what}: must have no masked value; it has {int(np.ma.getmaskarray(values).sum())}")
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{what}: cannot be made an array: {' '.join(str(error).split())[:120]}") from None


def numbers(values: Array, what: str) -> Array:
    """Return a dense array or tensor of real numbers.

    Raises:
        InputError: It holds anything else.
    """
    array = dense(values, what)
    if isinstance(array, Tensor):
        is_real = not (array.dtype == torch.bool or array.dtype.is_complex or array.is_quantized)
    else:
        is_real = array.dtype.kind in "fiu"
    if not is_real:
        raise InputError(f"{what}: must be numbers, not {array.dtype}")
    return array


def column(values: Array, what: str, shape: tuple[int | str, ...]) -> Array:
    """Return a dense array or tensor of real numbers of a shape.

    Args:
        values: Array of the caller.
        what: Name of the argument.
        shape: Required sizes; a name stands for any size but 0.

    Raises:
        InputError: Another shape, or no numbers.
    """
    array = numbers(values, what)
    fits = array.ndim == len(shape) and all(
        size > 0 if isinstance(wanted, str) else size == wanted for size, wanted in zip(array.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
        raise InputError(f"{what}: must have the shape ({wanted}), one row per label, not {tuple(array.shape)}")
    return array


def whole_numbers(values: Array, what: str) -> Tensor:
    """Return (n,) int64 on the CPU.

    Raises:
        InputError: Another shape, or values that are not whole numbers.
    """
    array = dense(values, what)
    if isinstance(array, Tensor):
        array = array.cpu()
        array = (array.to(torch.float64) if array.dtype.is_floating_point else array).numpy()
    if array.ndim != 1:
        raise InputError(f"{what}: must have one dimension, not the shape {tuple(array.shape)}")
    bad_n = np.ones(len(array), dtype=bool)
    if array.dtype.kind in "fiu":
        with np.errstate(invalid="ignore"):
            bad_n = ~((array == np.floor(array)) & (array < _LARGEST) & (array >= -_LARGEST))
    if bad_n.any():
        listed = array.tolist()
        row = next((row for row in np.flatnonzero(bad_n).tolist() if not _is_whole(listed[row])), 0)
        raise InputError(f"{what}: must be whole numbers; row {row} has {shown(listed[row])}")
    return torch.from_numpy(array.astype(np.int64))


def _is_whole(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return float(value).is_integer() and -_LARGEST <= value < _LARGEST


def some_rows(array: Array, rows_n: Tensor) -> Array:
    """Return rows of an array, as a copy."""
    return array[rows_n.to(array.device)] if isinstance(array, Tensor) else array[rows_n.numpy()]


def floats(array: Array, device: torch.device) -> Tensor:
    """Return an array as a tensor on the device: float16 and float32 as they are, everything else in float32."""
    if not isinstance(array, Tensor):
        if array.dtype not in (np.float16, np.float32):
            with np.errstate(over="ignore"):
                array = array.astype(np.float32)
        # a mapped file, a broadcast array and one that is read backwards cannot be shared
        is_shared = array.flags.writeable and array.dtype.isnative and min(array.strides, default=0) >= 0
        array = torch.from_numpy(array if is_shared else array.astype(array.dtype.newbyteorder("=")).copy())
    tensor: Tensor = array.to(device)
    return tensor if tensor.dtype in (torch.float16, torch.float32) else tensor.to(torch.float32)
