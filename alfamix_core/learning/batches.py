"""From samples to batches of pixels, read and decoded by loader workers; a bad sample never stops them."""

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
    """Where samples are read from; picklable, since loader workers get a copy."""

    def read(self, uri: str) -> bytes:
        """Return a sample's file.

        Raises:
            SampleError: this sample cannot be read.
            StorageError: the store does not answer.
        """
        ...


@dataclass(frozen=True)
class Batch:
    """A fixed number b of images, of which the first n are samples; the rest is padding.

    Attributes:
        index_n: (n,) int64: which samples, in the order asked for; n <= b.
        images_bCSS: (b, C, size, size) uint8; zero for samples that cannot be read and for padding.
        readable_n: (n,) bool.
    """

    index_n: Tensor
    images_bCSS: Tensor
    readable_n: Tensor


class SampleImages:
    """The images of a list of samples, as batches in any order and as often as wanted.

    What is decoded is kept in memory if all of it fits into ``cache_bytes``; then later passes cost nothing. A sample
    that cannot be read or decoded is marked in its batches and remembered with its reason.
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
        """Prepare; nothing is read yet.

        Args:
            reader: where files come from.
            sample_ids: n ids, for the quarantine.
            uris: n uris; an index means a place in this list.
            image: what every image is converted to.
            max_pixels: of one image, see ``decode``.
            max_scans: of one JPEG, see ``decode``.
            workers: processes that read and decode; 0: this process does.
            cache_bytes: memory for decoded images; 0: none are kept.
        """
        self._ids = sample_ids
        self._files = _Files(reader, uris, image, max_pixels, max_scans)
        self._workers = workers
        shape = (len(uris), channels(image), image.size, image.size)
        keep = 0 < torch.Size(shape).numel() <= cache_bytes
        self._kept: Tensor | None = torch.empty(shape, dtype=torch.uint8) if keep else None
        self._seen_n = torch.zeros(len(uris), dtype=torch.bool)
        self._readable_n = torch.ones(len(uris), dtype=torch.bool)
        self._reasons: dict[int, str] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._ids)

    def listed(self) -> list[tuple[str, str]]:
        """Return (sample_id, uri) of all samples, as listed."""
        return list(zip(self._ids, self._files.uris, strict=True))

    @property
    def bytes_read(self) -> int:
        """Bytes of files that were read so far."""
        return self._bytes

    @property
    def readable_n(self) -> Tensor:
        """(n,) bool: False for the samples that turned out to be unreadable so far."""
        return self._readable_n

    def quarantined(self) -> tuple[Quarantined, ...]:
        """Return the samples that could not be read so far and why, in the order of the list."""
        return tuple(
            Quarantined(sample_id=self._ids[index], uri=self._files.uris[index], reason=self._reasons[index])
            for index in sorted(self._reasons)
        )

    @property
    def reasons(self) -> Mapping[int, str]:
        """Why samples could not be read so far, by index."""
        return self._reasons

    def mark_unreadable(self, reasons: Mapping[int, str]) -> None:
        """Take samples for unreadable from now on, as another process or an earlier one has found them."""
        self._reasons.update(reasons)
        self._readable_n[list(reasons)] = False

    def batches(
        self, batch_size: int, order_n: Tensor | None = None, part: Callable[[Tensor], Tensor] | None = None
    ) -> Iterator[Batch]:
        """Yield the images in batches of one fixed size, the last one padded.

        A batch's composition depends on the order and the size alone, never on which samples can be read.

        Args:
            batch_size: images in a batch.
            order_n: (m,) int64, which samples in which order; None: all, as listed.
            part: which of each batch's indices (n,) are wanted, maybe none; None: all.

        Raises:
            StorageError: the store does not answer.
        """
        order_n = torch.arange(len(self)) if order_n is None else order_n
        parts = [part(index_n) if part else index_n for index_n in pieces(order_n, batch_size)]
        if self._kept is None:
            for index_n, fetched in zip(parts, self._fetched(parts), strict=True):
                yield Batch(index_n, _padded(fetched.images_nCSS, batch_size), self._readable_n[index_n])
            return
        missing = [index_n[~self._seen_n[index_n]] for index_n in parts]
        arriving = self._fetched([index_n for index_n in missing if len(index_n)])
        for index_n, missing_n in zip(parts, missing, strict=True):
            if len(missing_n):
                next(arriving)
            yield Batch(index_n, _padded(self._kept[index_n], batch_size), self._readable_n[index_n])

    def _fetched(self, parts: list[Tensor]) -> Iterator["_Fetched"]:
        """Read and remember the samples of every part, in turn."""
        if not parts:
            return
        loader: DataLoader[_Fetched] = DataLoader(
            self._files,
            sampler=[index_n.tolist() for index_n in parts],
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=self._workers,
            # or a loader draws from the global state
            generator=torch.Generator(),
        )
        for index_n, fetched in zip(parts, loader, strict=True):
            if fetched.failure is not None:
                raise fetched.failure
            self._remember(index_n, fetched)
            yield fetched

    def _remember(self, index_n: Tensor, fetched: "_Fetched") -> None:
        self._bytes += fetched.bytes_read
        self._reasons.update(fetched.reasons)
        self._readable_n[list(fetched.reasons)] = False
        if self._kept is not None:
            self._kept[index_n] = fetched.images_nCSS
            self._seen_n[index_n] = True


@dataclass
class _Fetched:
    """What a worker sends: the images of one batch, reasons by sample index, or why the store failed."""

    images_nCSS: Tensor
    reasons: dict[int, str] = field(default_factory=dict)
    bytes_read: int = 0
    failure: StorageError | None = None


class _Files(Dataset[_Fetched]):
    """Reads and decodes one batch at a time. Errors are values here: a loader would rewrite their message."""

    def __init__(
        self, reader: Reader, uris: Sequence[str], image: ImageSettings, max_pixels: int, max_scans: int
    ) -> None:
        self.uris = uris
        self._reader = reader
        self._image = image
        self._max_pixels = max_pixels
        self._max_scans = max_scans

    def __getitem__(self, index_n: list[int]) -> _Fetched:
        size = self._image.size
        shape = (len(index_n), channels(self._image), size, size)
        fetched = _Fetched(torch.zeros(shape, dtype=torch.uint8))
        for row, index in enumerate(index_n):
            try:
                data = self._reader.read(self.uris[index])
                fetched.bytes_read += len(data)
                fetched.images_nCSS[row] = decode(data, self._image, self._max_pixels, self._max_scans)
            except SampleError as error:
                fetched.reasons[index] = str(error)
            except StorageError as error:
                fetched.failure = error
                break
        return fetched


def pieces(order_n: Tensor, rows: int) -> list[Tensor]:
    """Return consecutive pieces of a vector, each of ``rows`` rows but the last; none of an empty vector."""
    return [order_n[start : start + rows] for start in range(0, len(order_n), rows)]


def _as_it_is(fetched: Any) -> Any:
    return fetched


def _padded(images_nCSS: Tensor, batch_size: int) -> Tensor:
    missing = batch_size - len(images_nCSS)
    if not missing:
        return images_nCSS
    return torch.cat([images_nCSS, images_nCSS.new_zeros(missing, *images_nCSS.shape[1:])])
