"""Images of the samples in a snapshot's table, read within the project's limits."""

from collections.abc import Sequence

import pyarrow as pa

from alfamix_core.learning.batches import SampleImages
from alfamix_core.records.project import Project
from alfamix_core.storage import SampleReader

_CACHE_BYTES = 1 << 30


def reader(settings: Project, roots: Sequence[str]) -> SampleReader:
    """Return the reader of a project's files.

    Args:
        settings: Settings of the project.
        roots: URIs of the folders to which a symbolic link may lead, see ``snapshot.read_roots``.
    """
    return SampleReader(settings.limits.max_file_bytes, roots)


def images(rows: pa.Table, settings: Project, roots: Sequence[str], *, keep: bool = False) -> SampleImages:
    """Return the images of a table with the columns sample_id and uri.

    Args:
        rows: Rows of a snapshot's pool or labelled samples.
        settings: Settings of the project.
        roots: See ``reader``.
        keep: Whether to keep decoded images in memory for further passes, if they fit into 1 GiB.
    """
    return SampleImages(
        reader(settings, roots),
        rows["sample_id"].to_pylist(),
        rows["uri"].to_pylist(),
        settings.image,
        max_pixels=settings.limits.max_pixels,
        max_scans=settings.limits.max_scans,
        workers=settings.training.loader_workers,
        cache_bytes=_CACHE_BYTES if keep else 0,
    )
