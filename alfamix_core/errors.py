"""Every deliberate error of the package, in one tree.

    AlfamixError                    base class, never raised itself; holds the exit status of its branch
    ├── InputError                  exit 2: a person's input is wrong; running again cannot help
    │   ├── LockedError             another run holds the project
    │   ├── SampleError             one sample cannot be read: it is quarantined, and the round continues
    │   ├── DeniedError             the store's credentials are valid, but lack a permission
    │   ├── LinkError               a symbolic link leads where none may lead
    │   └── NotAFileError           a pipe, a socket or a device is where a file must be
    └── StorageError                exit 3: the store or the network failed; running again may help
        ├── MissingObjectError      no object has that key
        ├── ObjectExistsError       a create found an object under its key
        └── ObjectChangedError      a swap found another object than the one that was read

A message is one line in the user's words: what, where, what must hold and what came. Any other exception is a bug and
keeps its traceback.
"""


class AlfamixError(Exception):
    """The base of every deliberate error; ``exit_status`` is the exit status of a process that it ends."""

    exit_status = 1


class InputError(AlfamixError):
    """Configuration, manifest, labels or parameters cannot be used as they are."""

    exit_status = 2


class LockedError(InputError):
    """Another run holds the project, or did until a moment ago."""


class SampleError(InputError):
    """One sample cannot be read or decoded; the message is the reason kept in the quarantine."""


class DeniedError(InputError):
    """The store's credentials are valid, but lack a permission."""


class LinkError(InputError):
    """A symbolic link is where none may be, or leads outside."""


class NotAFileError(InputError):
    """A pipe, a socket or a device is where a file must be."""


class StorageError(AlfamixError):
    """The object store failed."""

    exit_status = 3


class MissingObjectError(StorageError):
    """No object has the key."""


class ObjectExistsError(StorageError):
    """A create found an object under its key."""


class ObjectChangedError(StorageError):
    """A swap found another object than the one that it was to replace."""


def one_line(text: object) -> str:
    """Return a text, or the message of an error, without line breaks and repeated spaces."""
    return " ".join(str(text).split())
