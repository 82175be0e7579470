"""The samples of a snapshot's table, as images to be read under the project's limits."""

import pyarrow as pa

from alfamix_core.learning.batches import SampleImages
from alfamix_core.records.project import Project
from alfamix_core.storage import SampleReader

_CACHE_BYTES = 1 << 30


def reader(settings: Project) -> SampleReader:
    """Return what a project's files are read with."""
    return SampleReader(settings.limits.max_file_bytes)


def images(rows: pa.Table, settings: Project, *, keep: bool = False) -> SampleImages:
    """Return the images of a table with the columns sample_id and uri.

    Args:
        rows: of a snapshot's pool or labelled samples.
        settings: of the project.
        keep: hold decoded images in memory for further passes, up to 1 GiB.
    """
    return SampleImages(
        reader(settings),
        rows["sample_id"].to_pylist(),
        rows["uri"].to_pylist(),
        settings.image,
        max_pixels=settings.limits.max_pixels,
        max_scans=settings.limits.max_scans,
        workers=settings.training.loader_workers,
        cache_bytes=_CACHE_BYTES if keep else 0,
    )
