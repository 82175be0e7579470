"""A head that is somebody's function: what it returns is checked, and whatever it raises is one line."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alfamix_core.errors import InputError

_CUT_OFF = (
    "head: this choice needs the gradient of the logits with respect to the embeddings, and there is none; "
    "no_grad, detach, numpy, constants and buffers that are used again cut it off"
)


def gradient(total: Tensor, rows_nD: Tensor) -> Tensor:
    """Return the gradient of a number with respect to the rows that a head was given.

    Args:
        total: Scalar that was computed from the head's logits.
        rows_nD: (n, D) leaf that the head was given.

    Returns:
        (n, D).

    Raises:
        InputError: The head cannot be differentiated.
    """
    try:
        (gradient_nD,) = torch.autograd.grad(total, rows_nD)
    except RuntimeError as error:
        raise InputError(f"{_CUT_OFF} ({one_line(error)})") from error
    return gradient_nD


def one_line(error: BaseException) -> str:
    """Return the kind of an error and its message, in one line of at most 200 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200].removesuffix(":")


@dataclass(frozen=True)
class ForeignHead:
    """A function from embeddings to logits that is not trusted.

    It gets rows of its own and its logits are copied, so it may work in place and return a buffer that it uses again.

    Attributes:
        function: The function.
        classes: Number of classes K that it must return; None if any number is fine.
    """

    function: Callable[[Tensor], Any]
    classes: int | None = None

    def __call__(self, embeddings_nD: Tensor) -> Tensor:
        """Return the logits (n, K), in the dtype of the embeddings but at least float32.

        Args:
            embeddings_nD: (n, D), of any floating dtype; the function receives float32.

        Raises:
            InputError: The function raises, or returns anything but dense floating-point logits of these rows.
        """
        dtype = torch.promote_types(embeddings_nD.dtype, torch.float32)
        n = len(embeddings_nD)
        try:
            logits = self.function(embeddings_nD.to(torch.float32, copy=True))
        except Exception as error:
            shape = f"({n}, {embeddings_nD.shape[1]})"
            raise InputError(f"head: must take {shape} float32 embeddings, but raises {one_line(error)}") from error
        if not isinstance(logits, Tensor):
            raise InputError(f"head: must return a tensor (n, K), not {type(logits).__name__}")
        if logits.layout != torch.strided or logits.device != embeddings_nD.device:
            came = logits.layout if logits.layout != torch.strided else f"on {logits.device}"
            raise InputError(f"head: must return dense logits on {embeddings_nD.device}, not {came}")
        K = self.classes if self.classes is not None else logits.shape[-1] if logits.dim() else 0
        if tuple(logits.shape) != (n, K):
            wanted = f"({n}, {'K' if self.classes is None else K})"
            raise InputError(f"head: must return logits {wanted} for {n} embeddings, not {tuple(logits.shape)}")
        if not logits.is_floating_point():
            raise InputError(f"head: must return floating-point logits, not {logits.dtype}")
        if embeddings_nD.requires_grad and torch.is_grad_enabled() and not logits.requires_grad:
            raise InputError(_CUT_OFF)
        return logits.to(dtype, copy=True)
