"""Embeddings and logits of samples, with bits that depend on nothing but the sample, the model and the batch size."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from alfamix_core.errors import InputError
from alfamix_core.learning.batches import SampleImages
from alfamix_core.learning.network import Network

_DTYPES = {"float16": torch.float16, "float32": torch.float32}
_ROWS = 32


@dataclass(frozen=True)
class EmbeddedBlock:
    """The readable samples of one batch, on the CPU.

    Attributes:
        index_n: (n,) int64, ascending: places in the list of samples; n >= 1.
        embeddings_nD: (n, D), float16 or float32.
        logits_nK: (n, K) float32, computed from exactly these embeddings.
    """

    index_n: Tensor
    embeddings_nD: Tensor
    logits_nK: Tensor


def embed(
    network: Network,
    images: SampleImages,
    *,
    batch_size: int,
    dtype: Literal["float16", "float32"],
    device: torch.device,
) -> Iterator[EmbeddedBlock]:
    """Compute the embeddings and logits of all samples that can be read, in their order.

    Every pass through the network has the same number of rows: the last batch is padded, a sample that cannot be read
    is a row of zeros, and both are dropped afterwards. The number is a multiple of 32: with two threads MKL computes
    the rows of a block of 5, 7 or 17 in different ways. So the bits of a sample do not change with its neighbours, nor
    with the place where a pool is cut into shards.

    Args:
        network: moved to the device and put into evaluation mode.
        images: the samples.
        batch_size: rows of every pass, before rounding up; another number may change the last bits.
        dtype: of the embeddings, as they will be stored.
        device: where the network runs, in full float32.

    Yields:
        Blocks of at most so many rows; unreadable samples are missing (see ``images.quarantined``).

    Raises:
        InputError: an embedding is not finite, or is too large for float16.
        StorageError: the store does not answer.
    """
    network.to(device).eval()
    for batch in images.batches(math.ceil(batch_size / _ROWS) * _ROWS):
        with torch.inference_mode():
            exact_bD = network.embed(batch.images_bCSS.to(device)).float()
            stored_bD = exact_bD.to(_DTYPES[dtype])
            logits_bK = network.head(stored_bD.float())
        rows_m = batch.readable_n.nonzero()[:, 0]
        if not len(rows_m):
            continue
        exact_mD, stored_mD = exact_bD.cpu()[rows_m], stored_bD.cpu()[rows_m]
        logits_mK = logits_bK.cpu()[rows_m]
        _check_finite(exact_mD, stored_mD, logits_mK)
        yield EmbeddedBlock(batch.index_n[rows_m], stored_mD, logits_mK)


def _check_finite(exact_mD: Tensor, stored_mD: Tensor, logits_mK: Tensor) -> None:
    if exact_mD.isfinite().all() and not stored_mD.isfinite().all():
        largest = exact_mD.abs().max().item()
        raise InputError(
            f"an embedding of {largest:.6g} is too large for float16, which ends at 65504: set model.embedding_dtype "
            "to float32"
        )
    if not (exact_mD.isfinite().all() and logits_mK.isfinite().all()):
        raise InputError("the model's embeddings or logits are not finite: its weights are of no use")
