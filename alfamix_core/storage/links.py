"""Open files by paths that no symbolic link can redirect, whatever replaces them meanwhile.

A path can change between a check and the opening. So folders are entered one by one, each from the folder above it, and
none through a link: the opened file is the checked one.
"""

import errno
import io
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from alfamix_core.errors import LinkError, NotAFileError

_ENTER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW  # O_PATH needs no right to list
_MAKE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW  # what was made must be synced
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe without a writer must not block


@contextmanager
def folder_of(root: Path, key: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """Open the folder that holds a key and yield its descriptor and the key's last part.

    Args:
        root: Folder that the user named; links in its own path are followed.
        key: Relative path with ``/`` between its parts.
        make: Whether to make missing folders below ``root``, so that they survive a power cut.

    Raises:
        LinkError: A folder below ``root`` is a link.
        OSError: It does not exist, or cannot be entered.
    """
    *parts, name = key.split("/")
    flags = _MAKE if make else _ENTER
    folder = os.open(root, flags & ~os.O_NOFOLLOW)
    try:
        for depth, part in enumerate(parts, start=1):
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=folder)
                    os.fsync(folder)
            try:
                inner = os.open(part, flags, dir_fd=folder)
            except OSError:
                if is_link(part, folder):
                    raise refused(root.joinpath(*parts[:depth])) from None
                raise
            os.close(folder)
            folder = inner
        yield folder, name
    finally:
        os.close(folder)


def open_below(root: Path, key: str) -> io.FileIO:
    """Open a regular file below a folder, following no link below that folder.

    Raises:
        LinkError: The file, or a folder on the way, is a link.
        FileNotFoundError: There is none.
        IsADirectoryError: It is a folder.
        NotAFileError: It is a pipe, a socket or a device.
        OSError: It cannot be read.
    """
    other = NotAFileError(f"{root / key} is a pipe, a socket or a device, and only files are read")
    with folder_of(root, key) as (folder, name):
        try:
            file = os.open(name, _READ, dir_fd=folder)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise refused(root / key) from None
            if error.errno == errno.ENXIO:  # a socket
                raise other from None
            raise
    try:
        mode = os.fstat(file).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "not a file", str(root / key))
        if not stat.S_ISREG(mode):
            raise other
        return io.FileIO(file, "rb")
    except BaseException:
        os.close(file)
        raise


def open_within(path: Path, roots: Sequence[Path]) -> io.FileIO:
    """Open a regular file of one of some folders; a link may lead to another of them, and nowhere else.

    Args:
        path: Absolute path.
        roots: Absolute folders that the user named; links in their own paths are followed.

    Raises:
        LinkError: The file lies outside, whether or not a link leads there.
        FileNotFoundError: There is none.
        IsADirectoryError: It is a folder.
        NotAFileError: It is a pipe, a socket or a device.
        OSError: It cannot be read.
    """
    try:
        real = Path(os.path.realpath(path, strict=True))
    except OSError as error:
        if error.errno == errno.EINVAL:  # no longer the link that it was a moment ago
            raise LinkError(f"{path} was replaced while it was opened") from None
        raise
    if not any(real.is_relative_to(os.path.realpath(root)) for root in roots):
        inside = next((root for root in roots if path.is_relative_to(root)), None)
        below = [] if inside is None else [path, *path.parents][: len(path.parts) - len(inside.parts)]
        link = next((part for part in reversed(below) if part.is_symlink()), path)
        what = f"is a symbolic link that leads outside, to {real}" if link.is_symlink() else "lies outside"
        raise LinkError(f"{link} {what}; only {' and '.join(map(str, roots))} may be read")
    return open_below(Path("/"), str(real)[1:])


def is_link(name: str, folder: int) -> bool:
    """Tell whether a name in an open folder is a symbolic link."""
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


def refused(path: Path) -> LinkError:
    """Return the error for a link where none may be."""
    return LinkError(f"{path} is a symbolic link, and none are followed here; put the file or folder itself there")
