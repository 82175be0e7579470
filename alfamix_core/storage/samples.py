"""Read samples by their absolute uris, and list a folder of them."""

import errno
import io
import os
import stat
from collections.abc import Iterator, Sequence

from alfamix_core.errors import (
    DeniedError,
    InputError,
    LinkError,
    MissingObjectError,
    NotAFileError,
    SampleError,
    StorageError,
)
from alfamix_core.storage.connection import Connection, Download, Location
from alfamix_core.storage.folder import walk
from alfamix_core.storage.links import open_within, refused
from alfamix_core.storage.s3 import list_objects
from alfamix_core.storage.uris import bucket_and_key, file_uri, normalise_folder_uri, normalise_uri, path_of

# errors of this one file, not of the disk
_OF_THE_FILE = (errno.ELOOP, errno.ENAMETOOLONG)


class SampleReader:
    """Reads samples whole. May be pickled and forked, as loader workers need; each process gets its own client.

    Args:
        max_bytes: Maximum size of a sample, at least 1; a larger one is refused unread.
        roots: URIs of the folders whose files may be read, wherever a symbolic link leads; None if the user named the
            file itself.
    """

    def __init__(self, max_bytes: int, roots: Sequence[str] | None = None) -> None:
        self._max_bytes = max_bytes
        self._roots = roots
        self._connection = Connection()

    def read(self, uri: str) -> bytes:
        """Return the bytes of a sample, at least one.

        Args:
            uri: Absolute URI, as ``absolute_uri`` returns it.

        Raises:
            SampleError: It is missing, empty, too large, outside the roots or not readable; the message is the reason
                alone.
            InputError: Bucket, credentials or clock are wrong, for all samples.
            StorageError: Disk or network failed repeatedly.
        """
        data = self._read_object(uri) if uri.startswith("s3://") else self._read_file(uri)
        if not data:
            raise SampleError("empty file")
        return data

    def close(self) -> None:
        """Close the connections; new ones are opened when it is used again."""
        self._connection.close()

    def _read_file(self, uri: str) -> bytes:
        try:
            with open_file(uri, self._roots) as stream:
                self._check(os.fstat(stream.fileno()).st_size)
                data = stream.read(self._max_bytes + 1)
        except LinkError as error:
            raise SampleError(str(error)) from None
        except (NotAFileError, IsADirectoryError):
            raise SampleError("not a file") from None
        except (FileNotFoundError, NotADirectoryError):
            raise SampleError("missing") from None
        except PermissionError:
            raise SampleError("access denied") from None
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno in _OF_THE_FILE:
                raise SampleError(reason) from None
            raise StorageError(f"{uri}: {reason}") from error
        self._check(len(data))
        return data

    def _read_object(self, uri: str) -> bytes:
        bucket, key = bucket_and_key(uri)
        try:
            with Download(self._connection.client(), Location(Bucket=bucket, Key=key)) as download:
                self._check(download.size)
                return download.read_whole()
        except MissingObjectError:
            raise SampleError("missing") from None
        except DeniedError:
            raise SampleError("access denied") from None

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise SampleError(f"larger than {self._max_bytes} bytes ({size})")


def open_file(uri: str, roots: Sequence[str] | None) -> io.BufferedReader:
    """Open a ``file:`` uri for reading; a symbolic link is followed only to a file below one of the roots.

    Args:
        uri: Absolute URI.
        roots: URIs of folders; those of S3 are ignored. None: the file may lie anywhere.

    Raises:
        LinkError: The file, or the target of a link, is below none of the roots.
        FileNotFoundError: There is none.
        IsADirectoryError: It is a folder.
        NotAFileError: It is a pipe, a socket or a device.
        OSError: It cannot be read.
    """
    folders = ["file:///"] if roots is None else [root for root in roots if root.startswith("file:")]
    return io.BufferedReader(open_within(path_of(uri), [path_of(root) for root in folders]))


def list_uri(uri: str) -> Iterator[tuple[str, int]]:
    """Yield (canonical uri, size in bytes) of all files below a folder or prefix, in the order of the names' bytes.

    Raises:
        LinkError: A symbolic link lies below the folder; the folder itself may be one.
        InputError: The folder does not exist or may not be read, or no uri can name a key of S3.
        StorageError: Disk or network failed repeatedly.
    """
    folder = normalise_folder_uri(uri)
    if folder.startswith("s3://"):
        yield from _list_bucket(folder)
        return
    path = path_of(folder)
    if not path.is_dir():
        raise InputError(f"{path} must be a folder that exists")
    for name, status in walk(path):
        if stat.S_ISLNK(status.st_mode):
            raise refused(path / name)
        yield file_uri(path / name), status.st_size


def _list_bucket(folder: str) -> Iterator[tuple[str, int]]:
    bucket, prefix = bucket_and_key(folder)
    connection = Connection()
    try:
        for entry in list_objects(connection.client(), bucket, f"{prefix}/" if prefix else ""):
            uri = f"s3://{bucket}/{entry.key}"
            if normalise_uri(uri) != uri:
                raise InputError(f"{uri} cannot be a sample: its key has a part that is a dot")
            yield uri, entry.size
    finally:
        connection.close()
