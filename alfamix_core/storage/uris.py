"""One canonical spelling per uri, because the ids of samples are hashes of it.

- ``file:///absolute/path``: percent-encoded as ``pathlib.Path.as_uri`` does it, from the bytes of the name, so that
  every name that a file system allows survives. Input may be encoded more or less than that: ``%41`` and ``A``, a
  space and ``%20`` are equal; a ``%`` without two hex digits after it means itself, and so do ``#`` and ``?``.
  ``file://localhost/`` is ``file:///``.
- ``s3://bucket/key``: nothing is encoded, the key is spelt as in S3, like in the AWS tools: in
  ``s3://b/a%20b`` the key has a percent sign.
- a **relative** uri in a manifest is a plain name with ``/`` between folders, on both kinds of store, and never
  encoded: ``images/50%.png``, ``images/a b#1.png``.

Schemes are in lower case. A part ``.`` is dropped; a part ``..`` and an empty part (``a//b``) are refused.
"""

import functools
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

from alfamix_core.errors import InputError

_ABSOLUTE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")  # RFC 3986: such a beginning is never a relative name
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_CONTROL = re.compile("[\x00-\x1f\x7f\ufffe\uffff\ud800-\udfff]")  # XML cannot carry these, so S3 cannot list them
_LONGEST_KEY = 1024  # bytes of UTF-8, by S3


def normalise_uri(uri: str) -> str:
    """Return the canonical spelling of the absolute uri of one file or object.

    Raises:
        InputError: Another scheme, a relative path, a part ``..`` or an empty one, or no name after the bucket.
    """
    root, parts = _split(uri, is_folder=False)
    return root + "/".join(parts)


@functools.lru_cache(maxsize=256)
def normalise_folder_uri(uri: str) -> str:
    """Return the canonical spelling of the absolute uri of a folder or prefix: without a slash at the end.

    ``file:///`` and ``s3://bucket`` stand for the whole file system and the whole bucket.

    Raises:
        InputError: See ``normalise_uri``.
    """
    root, parts = _split(uri, is_folder=True)
    if parts:
        return root + "/".join(parts)
    return root if root == "file:///" else root.removesuffix("/")


def absolute_uri(uri: str, folder_uri: str, prefixes: Sequence[str]) -> str:
    """Return the canonical absolute uri of a sample from a manifest.

    Args:
        uri: Name relative to the manifest's folder, or the absolute URI of a file or object below a prefix.
        folder_uri: URI of the manifest's folder.
        prefixes: The project's ``data_prefixes``: absolute URIs of folders.

    Raises:
        InputError: It is neither; the message says what must hold, and the caller adds file and line.
    """
    if _ABSOLUTE.match(uri):
        absolute = normalise_uri(uri)
        if not any(is_below(absolute, prefix) for prefix in prefixes):
            known = ", ".join(prefixes) or "there are none"
            raise InputError(
                f'uri "{uri}" must be relative to the folder of its manifest or under one of data_prefixes ({known})'
            )
        return absolute
    if uri.startswith("/"):
        raise InputError(f'uri "{uri}" must be relative to the folder of its manifest, or begin with file:// or s3://')
    if "\\" in uri:
        raise InputError(f'uri "{uri}" must have / between folders, not \\')
    folder = normalise_folder_uri(folder_uri)
    parts = _parts(uri, uri, is_folder=False)
    _refuse_control(uri)
    name = "/".join(parts)
    if folder.startswith("file:"):
        return _joined(folder, quote_from_bytes(name.encode()))
    absolute = _joined(folder, name)
    _refuse_long(absolute)
    return absolute


def is_below(uri: str, folder_uri: str) -> bool:
    """Tell whether a canonical uri lies somewhere below a folder."""
    return uri.startswith(_joined(normalise_folder_uri(folder_uri), ""))


def file_uri(path: Path) -> str:
    """Return the canonical uri of an absolute path."""
    return path.as_uri()


def path_of(uri: str) -> Path:
    """Return the path of a ``file://`` uri, canonical or not.

    Raises:
        InputError: Not the URI of a file.
    """
    root, parts = _split(uri, is_folder=True)
    if root != "file:///":
        raise InputError(f'"{uri}" must begin with file:///')
    return Path("/" + os.fsdecode(unquote_to_bytes("/".join(parts))))


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Return bucket and key of an ``s3://`` uri, canonical or not; the key is empty for a whole bucket.

    Raises:
        InputError: Not a URI of S3.
    """
    root, parts = _split(uri, is_folder=True)
    if not root.startswith("s3://"):
        raise InputError(f'"{uri}" must begin with s3://')
    return root[len("s3://") : -1], "/".join(parts)


def _split(uri: str, *, is_folder: bool) -> tuple[str, list[str]]:
    """Return the root (``file:///`` or ``s3://bucket/``) and the canonical parts below it."""
    scheme, separator, rest = uri.partition("://")
    if separator and scheme.lower() == "file":
        if not rest.startswith(("/", "localhost/")):
            raise InputError(f'uri "{uri}" must be absolute: file:/// and the path, three slashes')
        decoded = unquote_to_bytes(_encodable(rest[rest.index("/") + 1 :], uri))
        if b"\x00" in decoded:
            raise InputError(f'uri "{uri}" must not contain a zero byte')
        parts = _parts(os.fsdecode(decoded), uri, is_folder)
        return "file:///", [quote_from_bytes(os.fsencode(part)) for part in parts]
    if separator and scheme.lower() == "s3":
        bucket, _, key = rest.partition("/")
        if not _BUCKET.fullmatch(bucket) or ".." in bucket:
            raise InputError(
                f'uri "{uri}" must name a bucket of 3 to 63 small letters, digits, dots and hyphens, not "{bucket}"'
            )
        _refuse_control(uri)
        parts = _parts(key, uri, is_folder)
        _refuse_long("/".join([f"s3://{bucket}", *parts]))
        return f"s3://{bucket}/", parts
    raise InputError(f'uri "{uri}" must begin with file:/// or s3://')


def _parts(name: str, uri: str, is_folder: bool) -> list[str]:
    parts: Iterable[str] = name.split("/")
    if is_folder and name.endswith("/"):
        parts = name.removesuffix("/").split("/")
    if is_folder and not name.strip("/"):
        return []
    kept = [part for part in parts if part != "."]
    if ".." in kept:
        raise InputError(f'uri "{uri}" must not contain a part ".."')
    if not kept or "" in kept:
        raise InputError(f'uri "{uri}" must name a file and have no empty part (// or a / at the end)')
    return kept


def _encodable(text: str, uri: str) -> str:
    if re.search("[\ud800-\udfff]", text):
        raise InputError(f"uri {uri!a} must be text that UTF-8 can hold")
    return text


def _refuse_control(uri: str) -> None:
    if _CONTROL.search(uri):
        raise InputError(f"uri {uri!a} must not contain control characters")


def _refuse_long(uri: str) -> None:
    if len(uri) * 4 > _LONGEST_KEY and len(uri.split("/", 3)[-1].encode()) > _LONGEST_KEY:
        raise InputError(f'uri "{uri[:80]}..." must have a key of at most {_LONGEST_KEY} bytes')


def _joined(folder: str, name: str) -> str:
    return f"{folder}{name}" if folder.endswith("/") else f"{folder}/{name}"
