"""The features that strategies read, bit-identical wherever a sample lies.

The bits of a sample's features depend only on the sample, the model and the batch size.
"""

import math
import tempfile
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from alfamix_core.errors import InputError
from alfamix_core.learning.batches import SampleImages
from alfamix_core.learning.deepfool import deepfool_norms
from alfamix_core.learning.dropout_passes import dropout_layers, dropout_passes
from alfamix_core.learning.network import Network
from alfamix_core.learning.scaling import scaled

if TYPE_CHECKING:
    # it imports pyarrow, which costs time and belongs to frozen encoders alone
    from alfamix_core.learning.kept_features import KeptFeatures

_DTYPES = {"float16": torch.float16, "float32": torch.float32}
_OF_PIXELS = frozenset({"mc_logits", "deepfool"})
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
    kept: "KeptFeatures | None" = None,
) -> Iterator[EmbeddedBlock]:
    """Compute the embeddings, the logits and the other requested columns of all readable samples, in their order.

    Every pass through the network has the same number of rows: the last batch is padded, a sample that cannot be read
    is a row of zeros, and both are dropped afterwards. The number is a multiple of 32, because with two threads MKL
    computes the rows of a block of 5, 7 or 17 in different ways. So the bits of a sample do not depend on its
    neighbours, nor on where a pool is cut into shards.

    Args:
        network: Network to run; it is moved to the device and put into evaluation mode.
        images: Images of the samples.
        batch_size: Number of rows in every pass, before rounding up; another number may change the last bits.
        dtype: Dtype in which the embeddings will be stored.
        device: Device on which the network runs, in full float32.
        columns: Columns to compute, ``Strategy.columns``; "mc_logits" and "deepfool" are computed if they are among
            them, embeddings and logits always.
        seed: Seed for the dropout masks.
        parameters: ``Strategy.column_parameters()``: ``passes`` for mc_logits, ``classes`` for deepfool.
        kept: Kept outputs of the network's encoder, whose images are not opened; outputs that are missing are computed
            and added, and no bit depends on which these are. mc_logits and deepfool are functions of the pixels: with
            either, every image is opened, and nothing is kept.

    Yields:
        Blocks of at most one batch; unreadable samples are left out (see ``images.quarantined``).

    Raises:
        InputError: An embedding is not finite or too large for float16, or passes with dropout are requested of a
            network without a dropout layer.
        StorageError: The store does not answer.
    """
    network.to(device).eval()
    if "mc_logits" in columns:
        dropout_layers(network)
    rows = math.ceil(batch_size / _ROWS) * _ROWS
    if kept is None or columns & _OF_PIXELS:
        outputs = _computed(network, images, None, rows, _DTYPES[dtype], device)
    else:
        outputs = _kept_or_computed(network, images, kept, rows, _DTYPES[dtype], device)
    for output in outputs:
        rows_m = output.known_n.nonzero()[:, 0]
        if not len(rows_m):
            continue
        with torch.inference_mode():
            exact_bD = scaled(output.stored_bD.float(), network.features)
            stored_bD = exact_bD.to(_DTYPES[dtype])
            logits_bK = network.head(stored_bD.float())
        stored_mD, logits_mK = stored_bD.cpu()[rows_m], logits_bK.cpu()[rows_m]
        _check_finite(exact_bD.cpu()[rows_m], stored_mD, logits_mK)
        mc_logits_mTK = deepfool_m = None
        if "mc_logits" in columns:
            passes = dropout_passes(network, output.images_bCSS, passes=parameters["passes"], seed=seed)
            mc_logits_mTK = passes.cpu()[rows_m]
        if "deepfool" in columns:
            wanted_b = torch.zeros(rows, dtype=torch.bool)
            wanted_b[rows_m] = True
            norms_b = deepfool_norms(network, output.images_bCSS, wanted_b=wanted_b, classes=parameters["classes"])
            deepfool_m = norms_b.cpu()[rows_m]
        yield EmbeddedBlock(output.index_n[rows_m], stored_mD, logits_mK, mc_logits_mTK, deepfool_m)


@dataclass(frozen=True)
class _Outputs:
    """What the encoder gives for a batch of b rows, of which the first n are samples.

    Attributes:
        index_n: (n,) int64 indices of the samples.
        known_n: (n,) bool, False for samples that cannot be read.
        stored_bD: (b, D) on the device, in the dtype in which it is kept.
        images_bCSS: (b, C, size, size) uint8 on the device; empty if no image was opened.
    """

    index_n: Tensor
    known_n: Tensor
    stored_bD: Tensor
    images_bCSS: Tensor


def _computed(
    network: Network,
    images: SampleImages,
    order_n: Tensor | None,
    rows: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Iterator[_Outputs]:
    """Run the encoder over the samples of an order, or over all, ``rows`` at a time."""
    for batch in images.batches(rows, order_n):
        images_bCSS = batch.images_bCSS.to(device)
        with torch.inference_mode():
            exact_bD = network.encode(images_bCSS).float()
            stored_bD = exact_bD.to(dtype)
        rows_m = batch.readable_n.nonzero()[:, 0]
        _check_finite(exact_bD.cpu()[rows_m], stored_bD.cpu()[rows_m])
        yield _Outputs(batch.index_n, batch.readable_n, stored_bD, images_bCSS)


def _kept_or_computed(
    network: Network, images: SampleImages, kept: "KeptFeatures", rows: int, dtype: torch.dtype, device: torch.device
) -> Iterator[_Outputs]:
    """Read the kept outputs, run the encoder over the other samples, and yield each batch when it is complete.

    The outputs wait in a file, so that memory does not grow with the shard.
    """
    sample_ids = [sample_id for sample_id, _ in images.listed()]
    total, size, done = len(sample_ids), network.embedding_size, 0
    if not total:
        return
    with tempfile.TemporaryDirectory() as scratch:
        output_nD = torch.from_file(f"{scratch}/output", shared=True, size=total * size, dtype=dtype).reshape(-1, size)
        known_n = kept.read(sample_ids, output_nD)

        def waiting(start: int) -> _Outputs:
            index_n = torch.arange(start, min(start + rows, total))
            stored_bD = torch.zeros(rows, size, dtype=dtype)
            stored_bD[: len(index_n)] = output_nD[index_n]
            return _Outputs(index_n, known_n[index_n], stored_bD.to(device), torch.empty(0))

        for output in _computed(network, images, (~known_n).nonzero()[:, 0], rows, dtype, device):
            index_m = output.index_n[output.known_n]
            stored_mD = output.stored_bD.cpu()[: len(output.index_n)][output.known_n]
            output_nD[index_m] = stored_mD
            known_n[index_m] = True
            kept.add([sample_ids[index] for index in index_m.tolist()], stored_mD)
            while done + rows <= int(output.index_n[-1]) + 1:
                yield waiting(done)
                done += rows
        kept.close()
        for start in range(done, total, rows):
            yield waiting(start)


def _check_finite(exact_mD: Tensor, stored_mD: Tensor, logits_mK: Tensor | None = None) -> None:
    if exact_mD.isfinite().all() and not stored_mD.isfinite().all():
        largest = exact_mD.abs().max().item()
        raise InputError(
            f"an embedding of {largest:.6g} is too large for float16, which holds at most 65504: "
            "set model.embedding_dtype to float32"
        )
    if not (exact_mD.isfinite().all() and (logits_mK is None or logits_mK.isfinite().all())):
        raise InputError("the model's embeddings or logits are not finite: its weights cannot be used")
