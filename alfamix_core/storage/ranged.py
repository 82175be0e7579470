"""A file that is read at random places, each by one request to the store."""

import io
import os
from typing import Any

from alfamix_core.errors import MissingObjectError
from alfamix_core.storage.store import Store


class Ranged(io.RawIOBase):
    """An object as a file that can be read anywhere; only what is read is fetched.

    Args:
        store: where it is.
        key: of an object that is never replaced.

    Raises:
        MissingObjectError: on construction: there is none.
    """

    def __init__(self, store: Store, key: str) -> None:
        super().__init__()
        entry = store.entry(key)
        if entry is None:
            raise MissingObjectError(f"{store.uri_of(key)} does not exist")
        self._store, self._key, self._size = store, key, entry.size
        self._place = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place and return it."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, origin + offset)
        return self._place

    def tell(self) -> int:
        """Return the place."""
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Read the bytes at the place into a buffer and return how many; 0 at the end."""
        stop = min(self._place + len(buffer), self._size)
        if stop <= self._place:
            return 0
        found = self._store.read_range(self._key, self._place, stop)
        buffer[: len(found)] = found
        self._place += len(found)
        return len(found)
