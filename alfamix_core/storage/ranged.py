"""Random access to an object, one request per read."""

import io
import os
from typing import Any

from alfamix_core.errors import MissingObjectError
from alfamix_core.storage.store import Store


class Ranged(io.RawIOBase):
    """An object as a seekable file; only the bytes read are fetched.

    Args:
        store: Store of the object.
        key: Key of an object that is never replaced.

    Raises:
        MissingObjectError: On construction: there is none.
    """

    def __init__(self, store: Store, key: str) -> None:
        super().__init__()
        entry = store.entry(key)
        if entry is None:
            raise MissingObjectError(f"{store.uri_of(key)} does not exist")
        self._store, self._key, self._size = store, key, entry.size
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position and return it."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read the bytes at the position into a buffer and return their number; 0 at the end."""
        stop = min(self._position + len(buffer), self._size)
        if stop <= self._position:
            return 0
        data = self._store.read_range(self._key, self._position, stop)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
