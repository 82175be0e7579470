"""The interface of a store: objects under keys, each created once or swapped for the one that was read.

There is no way to overwrite blindly. That is what lets rounds survive any kill: who comes second is told so.
"""

import io
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from alfamix_core.errors import InputError, MissingObjectError, ObjectChangedError, ObjectExistsError, StorageError

RESERVED = ".alfamix"  # a folder store keeps its own files in the folder of that name
_LONGEST_KEY = 900  # bytes; S3 allows 1,024 with the prefix
_LONGEST_PART = 255  # bytes, by the file systems
_REFUSED = re.compile("[\\\\\x00-\x1f\x7f\ufffe\uffff\ud800-\udfff]")  # backslashes, control, what XML cannot carry


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as it was read: its bytes, and the tag that a swap must bring."""

    data: bytes
    tag: str


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """An object in a listing.

    ``size`` is in bytes. ``tag`` stays equal as long as the object is unchanged, so a changed object shows in a listing
    without being read; it is only compared with the tags of other entries, a swap needs the tag of ``Stored``.
    """

    key: str
    size: int
    tag: str


@dataclass(frozen=True, slots=True, order=True)
class Upload:
    """An upload of a large file that was begun and neither finished nor given up: invisible, but it takes room."""

    key: str
    upload_id: str
    begun: datetime


class Store(ABC):
    """Everything under one uri. Keys are relative to it, with ``/`` between their parts.

    An object and a folder of the same name exclude each other: with ``a/b`` there can be no object ``a``.
    A store may be used from several threads; it may be pickled, and used after a fork.

    Every method raises:
        InputError: the key is not one, or the store must first be set right by a person (bucket, credentials,
            permission, clock).
        StorageError: store or network failed although it was tried again; the same call may succeed later.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def uri_of(self, key: str) -> str:
        """Return the canonical absolute uri of a key."""
        return self._uri_of(valid_key(key))

    def table(self, key: str) -> tuple[str, dict[str, str]]:
        """Return where a Delta Lake table below a key is, and the options with which the library reaches it.

        Credentials and endpoint are handed over as options, never through the environment.
        """
        return self._table(valid_key(key))

    def read(self, key: str) -> Stored:
        """Return the whole object and its tag.

        Raises:
            MissingObjectError: there is none.
        """
        return self._read(valid_key(key))

    def create(self, key: str, data: bytes) -> str:
        """Write an object where there is none, and return its tag.

        Of many writers exactly one succeeds, even when all bring the same bytes. A try whose answer was lost on the
        way is recognised as one's own.

        Raises:
            ObjectExistsError: there is one already.
        """
        return self._create(valid_key(key), data)

    def create_same(self, key: str, data: bytes) -> str:
        """Write an object once, repeatably: as ``create``, but an object that holds the same bytes is a success.

        Raises:
            ObjectExistsError: there is one that holds other bytes.
        """
        try:
            return self.create(key, data)
        except ObjectExistsError:
            stored = self.read(key)
            if stored.data != data:
                raise self._is_other(key) from None
            return stored.tag

    def mark(self, key: str) -> None:
        """Leave an empty object whose loss does no harm: a crash of the machine may take it."""
        self._mark(valid_key(key))

    def create_from(self, key: str, source: Path | BinaryIO) -> str:
        """Upload a file of any size once, repeatably, and return the SHA-256 of its bytes as hex digits.

        Args:
            key: of the object.
            source: a path, or a file that is open at its beginning and can be read twice.

        Raises:
            ObjectExistsError: there is an object that holds other bytes.
            StorageError: the file cannot be read.
        """
        if not isinstance(source, Path):
            return self._create_from(valid_key(key), source)
        try:
            stream = source.open("rb")
        except OSError as error:
            raise StorageError(f"{source}: {error.strerror or error}") from error
        with stream:
            return self._create_from(valid_key(key), stream)

    def swap(self, key: str, data: bytes, tag: str) -> str:
        """Replace the object that was read with ``tag`` and return the new tag.

        Equal bytes have equal tags: what is swapped must carry something that only grows, such as a revision.

        Raises:
            ObjectChangedError: it is another object now, or none.
        """
        return self._swap(valid_key(key), data, tag)

    def open(self, key: str) -> io.BufferedReader:
        """Return a stream over the object as it is now; to be closed, best by ``with``.

        A connection that breaks is taken up again where it broke.

        Raises:
            MissingObjectError: there is none.
            ObjectChangedError: while reading: it was replaced meanwhile.
        """
        return self._open(valid_key(key))

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Return the bytes from ``start`` up to ``stop`` of an object as it is now.

        A part of an object cannot be compared with the digest of the whole; who needs that brings checksums of parts.

        Args:
            key: of the object.
            start: at least 0, before its end.
            stop: after ``start``; what lies behind the end is left out.

        Raises:
            MissingObjectError: there is none.
        """
        return self._read_range(valid_key(key), start, stop)

    def fetch(self, key: str, path: Path) -> None:
        """Download an object to a file, which appears complete or not at all; its folder is made where missing.

        Raises:
            MissingObjectError: there is none.
        """
        self._fetch(valid_key(key), path)

    def entry(self, key: str) -> Entry | None:
        """Return the object as a listing shows it, or None where there is none."""
        return self._entry(valid_key(key))

    def modified(self, key: str) -> datetime | None:
        """Return when an object was last written by the store's clock, or None where there is none."""
        return self._modified(valid_key(key))

    def list(self, prefix: str = "", odd: "list[str] | None" = None) -> Iterator[Entry]:
        """Yield the objects below a folder and its subfolders, in the order of their keys' UTF-8 bytes.

        Args:
            prefix: whole parts of keys, ``rounds/000012`` or ``rounds/000012/``; empty for all.
            odd: gets the names that cannot be keys, which are left out.
        """
        for entry in self._list(_folder_key(prefix)):
            if is_valid_key(entry.key):
                yield entry
            elif odd is not None:
                odd.append(entry.key)

    def folders(self, prefix: str = "") -> Sequence[str]:
        """Return the names of the folders directly below a folder, sorted, without looking into them.

        A server may go on naming a folder for a moment after its last object was deleted.
        """
        return self._folders(_folder_key(prefix))

    def delete(self, key: str) -> None:
        """Remove an object; it is no error when there is none."""
        self._delete(valid_key(key))

    @abstractmethod
    def unfinished_uploads(self) -> Sequence[Upload]:
        """Return the uploads that are going on, or whose process was killed; none where a store cannot tell."""

    @abstractmethod
    def abort_upload(self, upload: Upload) -> None:
        """Remove what an unfinished upload has left; it is no error when it is gone, or was finished."""

    @abstractmethod
    def clock(self) -> datetime | None:
        """Return the time by the store's clock, to the second; None where it has none of its own, or does not say."""

    def check_conditional_writes(self) -> None:
        """Try out on an object of its own whether the store keeps the promises of ``create`` and ``swap``.

        Raises:
            InputError: it does not, so that two rounds could run at once unnoticed.
        """
        key = f"probe-{uuid.uuid4().hex}"
        try:
            tag = self.create(key, b"1")
            try:
                self.create(key, b"2")
            except ObjectExistsError:
                pass
            else:
                raise self._ignores("If-None-Match")
            self.swap(key, b"3", tag)
            try:
                self.swap(key, b"4", tag)
            except ObjectChangedError:
                pass
            else:
                raise self._ignores("If-Match")
        finally:
            self.delete(key)

    def close(self) -> None:
        """Close the connections; the store opens new ones when it is used again."""
        self._close()

    def _ignores(self, condition: str) -> InputError:
        return InputError(
            f"{self.uri}: the store ignores conditional writes ({condition}), so a project there could be damaged by "
            f"two runs at once; use a store that has them"
        )

    def _missing(self, key: str) -> MissingObjectError:
        return MissingObjectError(f"{self._uri_of(key)} does not exist")

    def _exists(self, key: str) -> ObjectExistsError:
        return ObjectExistsError(f"{self._uri_of(key)} exists already")

    def _is_other(self, key: str) -> ObjectExistsError:
        return ObjectExistsError(f"{self._uri_of(key)} exists already and holds something else")

    def _changed(self, key: str) -> ObjectChangedError:
        return ObjectChangedError(f"{self._uri_of(key)} was changed meanwhile")

    @abstractmethod
    def _close(self) -> None: ...

    @abstractmethod
    def _uri_of(self, key: str) -> str: ...

    @abstractmethod
    def _table(self, key: str) -> tuple[str, dict[str, str]]: ...

    @abstractmethod
    def _read(self, key: str) -> Stored: ...

    @abstractmethod
    def _create(self, key: str, data: bytes) -> str: ...

    @abstractmethod
    def _mark(self, key: str) -> None: ...

    @abstractmethod
    def _create_from(self, key: str, source: BinaryIO) -> str: ...

    @abstractmethod
    def _swap(self, key: str, data: bytes, tag: str) -> str: ...

    @abstractmethod
    def _open(self, key: str) -> io.BufferedReader: ...

    @abstractmethod
    def _read_range(self, key: str, start: int, stop: int) -> bytes: ...

    @abstractmethod
    def _fetch(self, key: str, path: Path) -> None: ...

    @abstractmethod
    def _entry(self, key: str) -> Entry | None: ...

    @abstractmethod
    def _modified(self, key: str) -> datetime | None: ...

    @abstractmethod
    def _list(self, folder: str) -> Iterator[Entry]: ...

    @abstractmethod
    def _folders(self, folder: str) -> Sequence[str]: ...

    @abstractmethod
    def _delete(self, key: str) -> None: ...


def is_valid_key(key: str) -> bool:
    """Tell whether a text can be a key: relative, no empty part, no ``.`` or ``..``, nothing a store cannot hold."""
    parts = key.split("/")
    return (
        not any(part in ("", ".", "..") for part in parts)
        and parts[0] != RESERVED
        and not _REFUSED.search(key)
        and len(key.encode()) <= _LONGEST_KEY
        and all(len(part.encode()) <= _LONGEST_PART for part in parts)
    )


def valid_key(key: str) -> str:
    """Return the key.

    Raises:
        InputError: it is none.
    """
    if not is_valid_key(key):
        raise InputError(
            f"{key!a} must be a relative key: parts of at most {_LONGEST_PART} bytes with / between them, none of "
            f'them empty, "." or "..", the first not "{RESERVED}", no backslash, no control character'
        )
    return key


def _folder_key(prefix: str) -> str:
    """Return the prefix with one slash at the end, or empty for the whole store."""
    return f"{valid_key(prefix.removesuffix('/'))}/" if prefix else ""


BUFFER = io.DEFAULT_BUFFER_SIZE * 128  # 1 MiB: bytes moved at a time when something is streamed
