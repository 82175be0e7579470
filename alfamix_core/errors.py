"""Every deliberate error of the project, in one tree.

    AlfamixError                    never raised itself; carries the exit status of its branch
    ├── InputError                  exit 2: something a person wrote is wrong; running again cannot help
    │   ├── LockedError             another run holds the project
    │   └── SampleError             one sample cannot be read: quarantined with its reason, never stops a round
    └── StorageError                exit 3: the store or the network; running again may help
        ├── MissingObjectError      no object under that key
        ├── ObjectExistsError       create: the key is taken
        └── ObjectChangedError      swap: the object is not the one that was read

A message is one line in the user's words: what, where, what must hold and what came. Anything that is not in this
tree is a bug of ours and keeps its traceback.
"""


class AlfamixError(Exception):
    """The base of every deliberate error; ``exit_status`` is what a process ends with."""

    exit_status = 1


class InputError(AlfamixError):
    """Configuration, manifest, labels or parameters that cannot be used as they are."""

    exit_status = 2


class LockedError(InputError):
    """The project is locked by a run that is alive, or was until a moment ago."""


class SampleError(InputError):
    """One sample cannot be read or decoded; the message is the reason kept in the quarantine."""


class StorageError(AlfamixError):
    """The object store did not do what it was asked."""

    exit_status = 3


class MissingObjectError(StorageError):
    """No object is stored under the key."""


class ObjectExistsError(StorageError):
    """A create found an object under its key."""


class ObjectChangedError(StorageError):
    """A swap found another object than the one it was to replace."""
