"""A store in a folder of a local file system.

A tag is the SHA-256 of the content. An object is created by linking a complete temporary file to its name, which
fails if the name is taken; it is swapped by a rename under a lock that all writers of this machine respect. So a
process killed at any instruction leaves at most a temporary file, which no reader sees.

A symbolic link, a pipe, a socket or a device below the folder is listed, so that it can be named, and never followed
or read.

Not for NFS or other file systems that several machines share: neither locks nor links are reliable there. Use S3.
"""

import errno
import fcntl
import hashlib
import io
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from alfamix_core.errors import InputError, StorageError
from alfamix_core.storage.links import folder_of, open_below
from alfamix_core.storage.store import BUFFER, RESERVED, Entry, Store, Stored, Upload, valid_key
from alfamix_core.storage.uris import file_uri

_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)
_LEFTOVER_SECONDS = 24 * 3600  # a temporary file without a write for this long belongs to a dead process


class FolderStore(Store):
    """A store in one folder, which the first write makes."""

    def __init__(self, root: Path) -> None:
        super().__init__(file_uri(root))
        self._root = root
        self._swept = False

    def __reduce__(self) -> tuple[type["FolderStore"], tuple[Path]]:
        return FolderStore, (self._root,)

    def close(self) -> None:
        """Do nothing: no connection is held open."""

    def _path(self, key: str) -> Path:
        return self._root / valid_key(key)

    def uri_of(self, key: str) -> str:
        return file_uri(self._path(key))

    def table(self, key: str) -> tuple[str, dict[str, str]]:
        return str(self._path(key)), {}

    def read(self, key: str) -> Stored:
        with self.open(key) as stream, _explained(self.uri_of(key)):
            data = stream.read()
        return Stored(data, _tag(data))

    def create(self, key: str, data: bytes) -> str:
        with _explained(self.uri_of(key)), self._temporary() as temporary:
            _write(temporary, data)
            if not self._link(temporary, key):
                raise self._exists(key)
        return _tag(data)

    def mark(self, key: str) -> None:
        with _explained(self.uri_of(key)):
            _make_folder(self._root)
            with folder_of(self._root, key, make=True) as (folder, name), suppress(FileExistsError):
                os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder))

    def _create_from(self, key: str, source: BinaryIO) -> str:
        with _explained(self.uri_of(key)), self._temporary() as temporary:
            _copy(source, temporary)
            digest = file_sha256(temporary)
            if not self._link(temporary, key) and self.sha256(key) != digest:
                raise self._is_other(key)
        return digest

    def swap(self, key: str, data: bytes, tag: str) -> str:
        with _explained(self.uri_of(key)), self._swapping():
            try:
                with open_below(self._root, key) as stream:
                    current = _tag(stream.read())
            except _ABSENT:
                raise self._changed(key) from None
            if current != tag:
                raise self._changed(key)
            with self._temporary() as temporary, folder_of(self._root, key, make=True) as (folder, name):
                _write(temporary, data)
                os.replace(temporary, name, dst_dir_fd=folder)
                os.fsync(folder)
        return _tag(data)

    def open(self, key: str) -> io.BufferedReader:
        with _explained(self.uri_of(key)):
            try:
                return io.BufferedReader(open_below(self._root, key), BUFFER)
            except _ABSENT:
                raise self._missing(key) from None

    def fetch(self, key: str, path: Path) -> None:
        with self.open(key) as stream, _explained(str(path)), landing(path) as temporary, temporary.open("wb") as out:
            shutil.copyfileobj(stream, out, BUFFER)

    def entry(self, key: str) -> Entry | None:
        status = self._status(key)
        return None if status is None else _listed(key, status)

    def modified(self, key: str) -> datetime | None:
        status = self._status(key)
        return None if status is None else datetime.fromtimestamp(status.st_mtime, UTC)

    def _status(self, key: str) -> os.stat_result | None:
        with _explained(self.uri_of(key)):
            try:
                with folder_of(self._root, key) as (folder, name):
                    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except _ABSENT:
                return None
        return None if stat.S_ISDIR(status.st_mode) else status

    def _list(self, folder: str) -> Iterator[Entry]:
        with _explained(file_uri(self._root / folder)), suppress(*_ABSENT), folder_of(self._root, folder):
            pass  # no folder on the way is a link
        for name, status in walk(self._root / folder):
            yield _listed(folder + name, status)

    def _children(self, folder: str) -> Iterator[tuple[str, bool]]:
        children = []
        with (
            _explained(file_uri(self._root / folder)),
            suppress(*_ABSENT),
            folder_of(self._root, folder),
            os.scandir(self._root / folder) as items,
        ):
            children = [(item.name, item.is_dir(follow_symlinks=False)) for item in items]
        yield from children

    def delete(self, key: str) -> None:
        target = self._path(key)
        with _explained(self.uri_of(key)):
            try:
                with folder_of(self._root, key) as (parent, name):
                    os.unlink(name, dir_fd=parent)
            except _ABSENT:
                return
            for folder in target.parents:
                if folder == self._root:
                    break
                try:
                    folder.rmdir()
                except OSError:  # not empty, or removed by another process
                    break

    def clock(self) -> None:
        """Return None: the folder's clock is that of this machine."""

    def unfinished_uploads(self) -> Sequence[Upload]:
        """Return none: a large file has no name before it is complete, and the next writer removes leftovers."""
        return ()

    def abort_upload(self, upload: Upload) -> None:
        """Do nothing."""

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        """Yield the path of a temporary file on the store's file system, and remove it afterwards."""
        folder = self._root / RESERVED
        if not self._swept:
            self._sweep(folder)
        path = folder / f"{uuid.uuid4().hex}.tmp"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _sweep(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        oldest = time.time() - _LEFTOVER_SECONDS
        for leftover in folder.glob("*.tmp"):
            with suppress(FileNotFoundError):  # removed by its owner, or another process
                if leftover.stat().st_mtime < oldest:
                    leftover.unlink()
        self._swept = True

    @contextmanager
    def _swapping(self) -> Iterator[None]:
        folder = self._root / RESERVED
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "swap.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # closing releases it, and so does a kill
            yield

    def _link(self, temporary: Path, key: str) -> bool:
        """Link the complete file to its name; return False if the name is taken."""
        while True:
            try:
                with folder_of(self._root, key, make=True) as (folder, name):
                    os.link(temporary, name, dst_dir_fd=folder)
                    os.fsync(folder)
            except FileExistsError:
                return False
            except NotADirectoryError:
                raise StorageError(f"{self.uri_of(key)} cannot be made below an object") from None
            except FileNotFoundError:
                if not temporary.exists():
                    raise
                continue  # a delete removed the folder, which was empty
            except OSError as error:
                if error.errno == errno.EXDEV:
                    raise InputError(f"{self.uri_of(key)} must be on the file system of {self.uri}") from None
                if error.errno in _NO_LINKS and not isinstance(error, PermissionError):
                    raise InputError(f"{self.uri} must be on a file system with hard links: {error.strerror}") from None
                raise
            return True


def walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield (name relative to root, status) of every file below a folder, in the order of the names' bytes.

    A symbolic link counts as a file, with its own status, and so does a pipe, a socket or a device. What vanishes
    meanwhile is left out, and so is a folder that does not exist.

    Raises:
        InputError: A folder may not be read.
        StorageError: The file system failed.
    """
    with _explained(str(root)):
        try:
            items = list(os.scandir(root))
        except _ABSENT:
            return
    named = ((os.fsencode(item.name) + b"/" * item.is_dir(follow_symlinks=False), item) for item in items)
    for _, item in sorted(named, key=lambda pair: pair[0]):
        if item.is_dir(follow_symlinks=False):
            yield from ((f"{item.name}/{name}", status) for name, status in walk(root / item.name))
        else:
            with _explained(item.path):
                try:
                    status = item.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
            yield item.name, status


@contextmanager
def landing(path: Path) -> Iterator[Path]:
    """Yield a temporary path, whose file becomes ``path`` at the end, or is removed after an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Turn an error of the operating system into one of this package, with one line."""
    try:
        yield
    except PermissionError as error:
        raise InputError(f"{where}: permission denied ({error.filename})") from error
    except OSError as error:
        named = f" ({error.filename})" if error.filename else ""
        raise StorageError(f"{where}: {error.strerror or error}{named}") from error


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _copy(source: BinaryIO, target: Path) -> None:
    with target.open("wb") as out:
        shutil.copyfileobj(source, out, BUFFER)
        out.flush()
        os.fsync(out.fileno())


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _listed(key: str, status: os.stat_result) -> Entry:
    return Entry(key, status.st_size, f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}")


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
