"""Storage of projects and samples: one interface with two implementations, a folder and S3.

All other code opens a store by its uri and does not depend on its kind.
"""

from alfamix_core.errors import InputError
from alfamix_core.storage.folder import FolderStore, file_sha256
from alfamix_core.storage.s3 import S3Store
from alfamix_core.storage.samples import SampleReader, list_uri, open_file
from alfamix_core.storage.store import Entry, Store, Stored, Upload, is_valid_key, shown
from alfamix_core.storage.uris import (
    absolute_uri,
    bucket_and_key,
    file_uri,
    is_below,
    normalise_folder_uri,
    normalise_uri,
    path_of,
)

__all__ = [
    "Entry",
    "SampleReader",
    "Store",
    "Stored",
    "Upload",
    "absolute_uri",
    "file_sha256",
    "file_uri",
    "is_below",
    "is_valid_key",
    "list_uri",
    "normalise_folder_uri",
    "normalise_uri",
    "open_file",
    "open_store",
    "path_of",
    "shown",
]


def open_store(uri: str) -> Store:
    """Return the store of everything below a uri; nothing is read or written yet.

    Args:
        uri: ``file:///absolute/path`` or ``s3://bucket/prefix``; a slash at the end makes no difference.

    Raises:
        InputError: Another scheme, a relative path, or an invalid bucket name.
    """
    uri = normalise_folder_uri(uri)
    if uri.startswith("s3://"):
        return S3Store(*bucket_and_key(uri))
    if uri == "file:///":
        raise InputError(f"{uri}: the root of the file system cannot be a store; name a folder")
    return FolderStore(path_of(uri))
