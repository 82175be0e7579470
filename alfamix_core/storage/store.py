"""The interface of a store: objects under keys, each created once or swapped for the one that was read.

Nothing can be overwritten blindly, so rounds survive any kill: the second of two writers gets an error.
"""

import hashlib
import io
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, MutableSequence, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from alfamix_core.errors import InputError, MissingObjectError, ObjectChangedError, ObjectExistsError, StorageError

RESERVED = ".alfamix"  # folder in which a folder store keeps its own files
_LONGEST_KEY = 900  # bytes; S3 allows 1,024 with the prefix
_LONGEST_PART = 255  # bytes, by the file systems
# backslashes, control characters, and those that XML cannot carry
_REFUSED = re.compile("[\\\\\x00-\x1f\x7f\ufffe\uffff\ud800-\udfff]")

# control characters, separators of lines, marks that change the direction of text, and bytes that are no text
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufffe\uffff\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as it was read: its bytes, and the tag for a swap."""

    data: bytes
    tag: str


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """An object in a listing.

    ``size`` is in bytes. ``tag`` is equal as long as the object is unchanged, so a listing shows changes without any
    reading. It is only compared with the tags of other entries; a swap needs the tag of ``Stored``.
    """

    key: str
    size: int
    tag: str


@dataclass(frozen=True, slots=True, order=True)
class Upload:
    """An unfinished upload of a large file: invisible, but it takes space."""

    key: str
    upload_id: str
    begun: datetime


class Store(ABC):
    """Everything under one uri. Keys are relative to it, with ``/`` between their parts.

    An object and a folder of the same name exclude each other: with ``a/b`` there can be no object ``a``.
    A store may be used from several threads; it may be pickled, and used after a fork.

    Every method raises:
        InputError: The key is invalid, or a person must first fix the store (bucket, credentials, permission, clock).
        StorageError: Store or network failed repeatedly; the same call may succeed later.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri

    @abstractmethod
    def uri_of(self, key: str) -> str:
        """Return the canonical absolute uri of a key."""

    @abstractmethod
    def table(self, key: str) -> tuple[str, dict[str, str]]:
        """Return the location of a Delta Lake table below a key, and the library's options for it.

        Credentials and endpoint are passed as options, never through the environment.
        """

    @abstractmethod
    def read(self, key: str) -> Stored:
        """Return the whole object and its tag.

        Raises:
            MissingObjectError: There is none.
        """

    @abstractmethod
    def create(self, key: str, data: bytes) -> str:
        """Write an object where there is none, and return its tag.

        Exactly one of several writers succeeds, even if all bring the same bytes. A writer recognises its own earlier
        attempt whose answer was lost.

        Raises:
            ObjectExistsError: There is one already.
        """

    def create_same(self, key: str, data: bytes) -> str:
        """Write an object once, repeatably: as ``create``, but an object that holds the same bytes is a success.

        Raises:
            ObjectExistsError: There is one that holds other bytes.
        """
        try:
            return self.create(key, data)
        except ObjectExistsError:
            stored = self.read(key)
            if stored.data != data:
                raise self._is_other(key) from None
            return stored.tag

    @abstractmethod
    def mark(self, key: str) -> None:
        """Write an empty object that may be lost: it need not survive a crash of the machine."""

    def create_from(self, key: str, source: Path | BinaryIO) -> str:
        """Upload a file of any size once, repeatably, and return the SHA-256 of its bytes as hex digits.

        Args:
            key: Key of the object.
            source: Path, or a file that is open at its beginning and can be read twice.

        Raises:
            ObjectExistsError: There is an object that holds other bytes.
            StorageError: The file cannot be read.
        """
        if not isinstance(source, Path):
            return self._create_from(key, source)
        try:
            stream = source.open("rb")
        except OSError as error:
            raise StorageError(f"{source}: {error.strerror or error}") from error
        with stream:
            return self._create_from(key, stream)

    @abstractmethod
    def swap(self, key: str, data: bytes, tag: str) -> str:
        """Replace the object that was read with ``tag`` and return the new tag.

        Equal bytes have equal tags: swapped objects must hold something that only grows, such as a revision.

        Raises:
            ObjectChangedError: It is another object now, or none.
        """

    @abstractmethod
    def open(self, key: str) -> io.BufferedReader:
        """Return a stream over the object as it is now; close it, preferably by ``with``.

        A broken connection resumes where it broke.

        Raises:
            MissingObjectError: There is none.
            ObjectChangedError: While reading: it was replaced meanwhile.
        """

    def sha256(self, key: str) -> str:
        """Return the SHA-256 of an object's bytes as hex digits.

        Raises:
            MissingObjectError: There is none.
        """
        with self.open(key) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    @abstractmethod
    def fetch(self, key: str, path: Path) -> None:
        """Download an object to a file, which appears complete or not at all; its folder is made if missing.

        Raises:
            MissingObjectError: There is none.
        """

    @abstractmethod
    def entry(self, key: str) -> Entry | None:
        """Return the object as a listing shows it, or None if there is none."""

    @abstractmethod
    def modified(self, key: str) -> datetime | None:
        """Return the time of an object's last write by the store's clock, or None if there is none."""

    def list(self, prefix: str = "", odd: "list[str] | None" = None) -> Iterator[Entry]:
        """Yield the objects below a folder and its subfolders, in the order of their keys' UTF-8 bytes.

        Args:
            prefix: Whole parts of keys, ``rounds/000012`` or ``rounds/000012/``; empty for all.
            odd: Receives the names that cannot be keys, which are left out.
        """
        for entry in self._list(_folder_key(prefix)):
            if is_valid_key(entry.key):
                yield entry
            elif odd is not None:
                odd.append(entry.key)

    def folders(self, prefix: str = "", odd: MutableSequence[str] | None = None) -> Sequence[str]:
        """Return the names of the folders directly below a folder, sorted, without looking into them.

        A server may list a folder for a moment after its last object was deleted.

        Args:
            prefix: As for ``list``.
            odd: Receives what else is there: objects, links, and folders whose names cannot be parts of keys. Each name
                begins with the prefix.
        """
        folder = _folder_key(prefix)
        names = []
        for name, is_folder in self._children(folder):
            if is_folder and is_valid_key(folder + name):
                names.append(name)
            elif odd is not None:
                odd.append(folder + name)
        return sorted(names, key=str.encode)

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; a missing one is no error."""

    @abstractmethod
    def unfinished_uploads(self) -> Sequence[Upload]:
        """Return the uploads in progress and those whose process was killed; none if the store does not list them."""

    @abstractmethod
    def abort_upload(self, upload: Upload) -> None:
        """Remove the parts of an unfinished upload; one that is gone or finished is no error."""

    @abstractmethod
    def clock(self) -> datetime | None:
        """Return the time by the store's clock, to the second; None if it has none of its own."""

    def check_conditional_writes(self) -> None:
        """Test on an object of its own whether the store supports ``create`` and ``swap``.

        Raises:
            InputError: It does not, so two rounds could run at the same time unnoticed.
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

    @abstractmethod
    def close(self) -> None:
        """Close the connections; the store opens new ones on its next use."""

    def _ignores(self, condition: str) -> InputError:
        return InputError(
            f"{self.uri}: the store ignores conditional writes ({condition}), so a project there could be damaged by "
            f"two runs at once; use a store that has them"
        )

    def _missing(self, key: str) -> MissingObjectError:
        return MissingObjectError(f"{self.uri_of(key)} does not exist")

    def _exists(self, key: str) -> ObjectExistsError:
        return ObjectExistsError(f"{self.uri_of(key)} exists already")

    def _is_other(self, key: str) -> ObjectExistsError:
        return ObjectExistsError(f"{self.uri_of(key)} exists already and holds something else")

    def _changed(self, key: str) -> ObjectChangedError:
        return ObjectChangedError(f"{self.uri_of(key)} was changed meanwhile")

    @abstractmethod
    def _create_from(self, key: str, source: BinaryIO) -> str: ...

    @abstractmethod
    def _list(self, folder: str) -> Iterator[Entry]: ...

    @abstractmethod
    def _children(self, folder: str) -> Iterator[tuple[str, bool]]: ...


def shown(name: str) -> str:
    """Return a foreign name with escapes for what would break a line, hide text or command a terminal."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), name)


def is_valid_key(key: str) -> bool:
    """Tell whether a text can be a key: relative, no empty part, no ``.`` or ``..``, no refused character."""
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
        InputError: It is not a key.
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


BUFFER = io.DEFAULT_BUFFER_SIZE * 128  # 1 MiB: bytes streamed at a time
