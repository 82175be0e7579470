"""Batches of pixels, read and decoded by loader workers; a sample that cannot be read never stops them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from alfamix_core.errors import SampleError, StorageError
from alfamix_core.learning.images import channels, decode
from alfamix_core.records.image_file import MAX_SCANS
from alfamix_core.records.project import ImageSettings
from alfamix_core.records.stage import Quarantined


class Reader(Protocol):
    """A source of sample files; picklable, because each loader worker gets a copy."""

    def read(self, uri: str) -> bytes:
        """Return the content of a sample's file.

        Raises:
            SampleError: This sample cannot be read.
            StorageError: The store does not answer.
        """
        ...


@dataclass(frozen=True)
class Batch:
    """A fixed number b of images, of which the first n are samples; the rest is padding.

    Attributes:
        index_n: (n,) int64 indices of the samples, in the requested order; n <= b.
        images_bCSS: (b, C, size, size) uint8; zero for padding and for samples that cannot be read.
        readable_n: (n,) bool, False for samples that cannot be read.
    """

    index_n: Tensor
    images_bCSS: Tensor
    readable_n: Tensor


class SampleImages:
    """The images of a list of samples, in batches of any order, for any number of passes.

    Decoded images stay in memory if all of them fit into ``cache_bytes``; later passes then cost nothing. A sample
    that cannot be read or decoded is marked in its batches, and the reason is kept.
    """

    def __init__(
        self,
        reader: Reader,
        sample_ids: Sequence[str],
        uris: Sequence[str],
        image: ImageSettings,
        *,
        max_pixels: int,
        max_scans: int = MAX_SCANS,
        workers: int = 0,
        cache_bytes: int = 0,
    ) -> None:
        """Prepare to read; nothing is read yet.

        Args:
            reader: Source of the files.
            sample_ids: n sample ids, for the quarantine.
            uris: n URIs; indices of samples refer to this list.
            image: Size and colour to which every image is converted.
            max_pixels: Greatest number of pixels of one image, see ``decode``.
            max_scans: Greatest number of scans of one JPEG, see ``decode``.
            workers: Number of processes that read and decode; with 0, this process does.
            cache_bytes: Memory for decoded images, in bytes; with 0, none are kept.
        """
        self._ids = sample_ids
        self._files = _Files(reader, uris, image, max_pixels, max_scans)
        self._workers = workers
        shape = (len(uris), channels(image), image.size, image.size)
        keep = 0 < torch.Size(shape).numel() <= cache_bytes
        self._kept: Tensor | None = torch.empty(shape, dtype=torch.uint8) if keep else None
        self._decoded_n = torch.zeros(len(uris), dtype=torch.bool)
        self._readable_n = torch.ones(len(uris), dtype=torch.bool)
        self._reasons: dict[int, str] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def channels(self) -> int:
        """Number of channels of an image, 1 or 3."""
        return channels(self._files.image)

    def listed(self) -> list[tuple[str, str]]:
        """Return (sample_id, uri) of all samples, in the order of the list."""
        return list(zip(self._ids, self._files.uris, strict=True))

    @property
    def bytes_read(self) -> int:
        """Number of bytes read from files so far."""
        return self._bytes

    @property
    def readable_n(self) -> Tensor:
        """(n,) bool, False for the samples known to be unreadable so far."""
        return self._readable_n

    def quarantined(self) -> tuple[Quarantined, ...]:
        """Return the samples known to be unreadable so far, with the reasons, in the order of the list."""
        return tuple(
            Quarantined(sample_id=self._ids[index], uri=self._files.uris[index], reason=self._reasons[index])
            for index in sorted(self._reasons)
        )

    @property
    def reasons(self) -> Mapping[int, str]:
        """Reasons why samples could not be read so far, by index."""
        return self._reasons

    def mark_unreadable(self, reasons: Mapping[int, str]) -> None:
        """Mark samples as unreadable that another process, or an earlier attempt, could not read."""
        self._reasons.update(reasons)
        self._readable_n[list(reasons)] = False

    def batches(
        self, batch_size: int, order_n: Tensor | None = None, part: Callable[[Tensor], Tensor] | None = None
    ) -> Iterator[Batch]:
        """Yield the images in batches of one fixed size, the last one padded.

        The composition of a batch depends only on the order and the size, never on which samples can be read.

        Args:
            batch_size: Number of images in a batch.
            order_n: (m,) int64 indices of the samples in the order to read them; None reads all, in the order of the
                list.
            part: Function that returns which of a batch's indices (n,) to read, possibly none; None reads all.

        Raises:
            StorageError: The store does not answer.
        """
        order_n = torch.arange(len(self)) if order_n is None else order_n
        parts = [part(index_n) if part else index_n for index_n in pieces(order_n, batch_size)]
        if self._kept is None:
            for index_n, fetched in zip(parts, self._fetched(parts), strict=True):
                yield Batch(index_n, _padded(fetched.images_nCSS, batch_size), self._readable_n[index_n])
            return
        missing = [index_n[~self._decoded_n[index_n]] for index_n in parts]
        arriving = self._fetched([index_n for index_n in missing if len(index_n)])
        for index_n, missing_n in zip(parts, missing, strict=True):
            if len(missing_n):
                next(arriving)
            yield Batch(index_n, _padded(self._kept[index_n], batch_size), self._readable_n[index_n])

    def _fetched(self, parts: list[Tensor]) -> Iterator["_Fetched"]:
        """Read the samples of every part in turn, and record what was read."""
        if not parts:
            return
        loader: DataLoader[_Fetched] = DataLoader(
            self._files,
            sampler=[index_n.tolist() for index_n in parts],
            batch_size=None,
            collate_fn=_unchanged,
            num_workers=self._workers,
            # without one, a loader draws from the global random state
            generator=torch.Generator(),
        )
        for index_n, fetched in zip(parts, loader, strict=True):
            if fetched.failure is not None:
                raise fetched.failure
            self._record(index_n, fetched)
            yield fetched

    def _record(self, index_n: Tensor, fetched: "_Fetched") -> None:
        self._bytes += fetched.bytes_read
        self._reasons.update(fetched.reasons)
        self._readable_n[list(fetched.reasons)] = False
        if self._kept is not None:
            self._kept[index_n] = fetched.images_nCSS
            self._decoded_n[index_n] = True


@dataclass
class _Fetched:
    """What a worker sends: the images of one batch, reasons by sample index, and the store's failure if it failed."""

    images_nCSS: Tensor
    reasons: dict[int, str] = field(default_factory=dict)
    bytes_read: int = 0
    failure: StorageError | None = None


class _Files(Dataset[_Fetched]):
    """Reads and decodes one batch at a time. Errors are values here because a loader rewrites their messages."""

    def __init__(
        self, reader: Reader, uris: Sequence[str], image: ImageSettings, max_pixels: int, max_scans: int
    ) -> None:
        self.uris = uris
        self.image = image
        self._reader = reader
        self._max_pixels = max_pixels
        self._max_scans = max_scans

    def __getitem__(self, index_n: list[int]) -> _Fetched:
        size = self.image.size
        shape = (len(index_n), channels(self.image), size, size)
        fetched = _Fetched(torch.zeros(shape, dtype=torch.uint8))
        for row, index in enumerate(index_n):
            try:
                data = self._reader.read(self.uris[index])
                fetched.bytes_read += len(data)
                fetched.images_nCSS[row] = decode(data, self.image, self._max_pixels, self._max_scans)
            except SampleError as error:
                fetched.reasons[index] = str(error)
            except StorageError as error:
                fetched.failure = error
                break
        return fetched


def pieces(order_n: Tensor, rows: int) -> list[Tensor]:
    """Split a vector into consecutive pieces of ``rows`` rows; the last may be shorter, an empty vector has none."""
    return [order_n[start : start + rows] for start in range(0, len(order_n), rows)]


def _unchanged(fetched: Any) -> Any:
    return fetched


def _padded(images_nCSS: Tensor, batch_size: int) -> Tensor:
    missing = batch_size - len(images_nCSS)
    if not missing:
        return images_nCSS
    return torch.cat([images_nCSS, images_nCSS.new_zeros(missing, *images_nCSS.shape[1:])])
