"""The features that strategies read, bit-identical wherever a sample lies.

The bits of a sample's features depend only on the sample, the model and the batch size.
"""

import math
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from alfamix_core.errors import InputError
from alfamix_core.learning.batches import SampleImages
from alfamix_core.learning.deepfool import deepfool_norms
from alfamix_core.learning.dropout_passes import dropout_layers, dropout_passes
from alfamix_core.learning.network import Network
from alfamix_core.learning.scaling import scaled

_DTYPES = {"float16": torch.float16, "float32": torch.float32}
_ROWS = 32


@dataclass(frozen=True)
class EmbeddedBlock:
    """The readable samples of one batch, on the CPU.

    Attributes:
        index_n: (n,) int64, ascending indices in the list of samples; n >= 1.
        embeddings_nD: (n, D), float16 or float32.
        logits_nK: (n, K) float32, computed from exactly these embeddings.
        mc_logits_nTK: (n, T, K) float32, logits of T passes with dropout, or None if not requested.
        deepfool_n: (n,) float32, as in ``acquisition.types.Features``, or None; the unit is that of pixels, 0 to 255.
    """

    index_n: Tensor
    embeddings_nD: Tensor
    logits_nK: Tensor
    mc_logits_nTK: Tensor | None = None
    deepfool_n: Tensor | None = None

    def columns(self) -> dict[str, Tensor]:
        """Return the computed columns, by the names that strategies and files use."""
        columns = {"embeddings": self.embeddings_nD, "logits": self.logits_nK}
        if self.mc_logits_nTK is not None:
            columns["mc_logits"] = self.mc_logits_nTK
        if self.deepfool_n is not None:
            columns["deepfool"] = self.deepfool_n
        return columns


def embed(
    network: Network,
    images: SampleImages,
    *,
    batch_size: int,
    dtype: Literal["float16", "float32"],
    device: torch.device,
    columns: Set[str] = frozenset(),
    seed: int = 0,
    parameters: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[EmbeddedBlock]:
    """Compute the embeddings, the logits and the other requested columns of all readable samples, in their order.

    Every pass through the network has the same number of rows: the last batch is padded, a sample that cannot be read
    is a row of zeros, and both are dropped afterwards. The number is a multiple of 32, because with two threads MKL
    computes the rows of a block of 5, 7 or 17 in different ways. So the bits of a sample do not depend on its
    neighbours, nor on where a pool is cut into shards.

    Args:
        network: network to run; it is moved to the device and put into evaluation mode.
        images: images of the samples.
        batch_size: number of rows in every pass, before rounding up; another number may change the last bits.
        dtype: dtype in which the embeddings will be stored.
        device: device on which the network runs, in full float32.
        columns: columns to compute, ``Strategy.columns``; "mc_logits" and "deepfool" are computed if they are among
            them, embeddings and logits always.
        seed: seed for the dropout masks.
        parameters: ``Strategy.column_parameters()``: ``passes`` for mc_logits, ``classes`` for deepfool.

    Yields:
        Blocks of at most one batch; unreadable samples are left out (see ``images.quarantined``).

    Raises:
        InputError: an embedding is not finite or too large for float16, or passes with dropout are requested of a
            network without a dropout layer.
        StorageError: the store does not answer.
    """
    network.to(device).eval()
    if "mc_logits" in columns:
        dropout_layers(network)
    for batch in images.batches(math.ceil(batch_size / _ROWS) * _ROWS):
        images_bCSS = batch.images_bCSS.to(device)
        with torch.inference_mode():
            exact_bD = network.encode(images_bCSS).float()
            stored_bD = exact_bD.to(_DTYPES[dtype])
            if network.features is not None:
                # a frozen encoder's output is kept as it is, and the kept numbers are scaled
                exact_bD = scaled(stored_bD.float(), network.features)
                stored_bD = exact_bD.to(_DTYPES[dtype])
            logits_bK = network.head(stored_bD.float())
        rows_m = batch.readable_n.nonzero()[:, 0]
        if not len(rows_m):
            continue
        exact_mD, stored_mD = exact_bD.cpu()[rows_m], stored_bD.cpu()[rows_m]
        logits_mK = logits_bK.cpu()[rows_m]
        _check_finite(exact_mD, stored_mD, logits_mK)
        mc_logits_mTK = deepfool_m = None
        if "mc_logits" in columns:
            mc_logits_mTK = dropout_passes(network, images_bCSS, passes=parameters["passes"], seed=seed).cpu()[rows_m]
        if "deepfool" in columns:
            wanted_b = torch.zeros(len(images_bCSS), dtype=torch.bool)
            wanted_b[rows_m] = True
            norms_b = deepfool_norms(network, images_bCSS, wanted_b=wanted_b, classes=parameters["classes"])
            deepfool_m = norms_b.cpu()[rows_m]
        yield EmbeddedBlock(batch.index_n[rows_m], stored_mD, logits_mK, mc_logits_mTK, deepfool_m)


def _check_finite(exact_mD: Tensor, stored_mD: Tensor, logits_mK: Tensor) -> None:
    if exact_mD.isfinite().all() and not stored_mD.isfinite().all():
        largest = exact_mD.abs().max().item()
        raise InputError(
            f"an embedding of {largest:.6g} is too large for float16, which holds at most 65504: "
            "set model.embedding_dtype to float32"
        )
    if not (exact_mD.isfinite().all() and logits_mK.isfinite().all()):
        raise InputError("the model's embeddings or logits are not finite: its weights cannot be used")
