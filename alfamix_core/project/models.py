"""Models below models/<digest>/: written once, named by their bytes, checked by every reader.

The digest is the SHA-256 of the lines "<sha256>  <file name>" of the files, in order of name: what
``sha256sum model.json model.safetensors | sha256sum`` prints in that folder.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from alfamix_core.errors import InputError, MissingObjectError, ObjectExistsError
from alfamix_core.project import layout
from alfamix_core.records.model import CARD_FILE, WEIGHTS_FILE
from alfamix_core.storage import Store, file_sha256

FILES = (CARD_FILE, WEIGHTS_FILE)  # in order of name


def upload(store: Store, folder: Path) -> str:
    """Copy a model into the project, repeatably, and return its digest.

    Args:
        store: The project.
        folder: Folder with model.json and model.safetensors.

    Raises:
        InputError: The project has other bytes under that digest.
    """
    digest = _digest_of({name: file_sha256(folder / name) for name in FILES})
    for name in FILES:
        key = layout.model(digest) + name
        try:
            store.create_from(key, folder / name)
        except ObjectExistsError:
            raise InputError(f"{key} is not what its folder's name says; delete it, and run the round again") from None
    return digest


def fetch(store: Store, digest: str, folder: Path) -> None:
    """Copy a model out of the project.

    Raises:
        InputError: It is gone, or its bytes do not match its digest.
    """
    try:
        for name in FILES:
            store.fetch(layout.model(digest) + name, folder / name)
    except MissingObjectError:
        raise _gone(digest) from None
    _check(digest, {name: file_sha256(folder / name) for name in FILES})


def verify(store: Store, digest: str) -> None:
    """Read a model where it is, and check that its bytes match its digest.

    Raises:
        InputError: See ``fetch``.
    """
    try:
        digests = {name: store.sha256(layout.model(digest) + name) for name in FILES}
    except MissingObjectError:
        raise _gone(digest) from None
    _check(digest, digests)


def is_there(store: Store, digest: str) -> bool:
    """Whether the project keeps all files of a model; their bytes are not read."""
    return bool(digest) and all(store.entry(layout.model(digest) + name) is not None for name in FILES)


def _check(digest: str, files: Mapping[str, str]) -> None:
    if _digest_of(files) != digest:
        raise InputError(
            f"{layout.model(digest)} was changed: its bytes are not those of its digest; put the files back, or choose "
            "another model: alfamix promote"
        )


def _gone(digest: str) -> InputError:
    return InputError(f"{layout.model(digest)} is not complete; put its files back, or choose another: alfamix promote")


def _digest_of(files: Mapping[str, str]) -> str:
    return hashlib.sha256("".join(f"{files[name]}  {name}\n" for name in FILES).encode()).hexdigest()
