"""The twin's own reader of inbox files: the json module and one small check per field, nothing of the product.

A file is read as a whole: the first line that is not what its format says condemns all of it.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

LONGEST_LINE = 1 << 20
KINDS = ("label", "skip", "cannot_label", "withdraw")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_CONTROL = re.compile("[\x00-\x1f\x7f\ufffe\uffff]")


class BadLineError(Exception):
    """A line of a file is not what its format says: (line number from 1, reason)."""


class Event(NamedTuple):
    """One answer; equal fields are one event."""

    event_id: str
    sample_id: str
    kind: str
    label: str | None
    annotator: str
    round: int
    time: datetime


class Line(NamedTuple):
    """One line of a manifest, its uri absolute."""

    sample_id: str
    uri: str
    label: str | None
    split: str
    group: str | None


@dataclass(frozen=True)
class Settings:
    """What of project.json says how the inbox is read and judged."""

    classes: tuple[str, ...] = ("cat", "dog", "owl")
    prefixes: tuple[str, ...] = ()
    seed: int = 0
    audit_share: float = 0.0
    accept_unasked: bool = True
    answers: int = 1
    agreement: int = 0
    max_answers: int = 3
    expires_after_days: float = 30.0
    project: dict[str, Any] = field(default_factory=dict, compare=False)

    @staticmethod
    def of(project: dict[str, Any]) -> "Settings":
        """Return the settings of a parsed project.json; what it does not name has its default."""
        queue, audit = project.get("queue", {}), project.get("audit", {})
        return Settings(
            classes=tuple(project["classes"]),
            prefixes=tuple(project.get("data_prefixes", ())),
            seed=project.get("seed", 0),
            audit_share=audit.get("share", 0.0),
            accept_unasked=queue.get("accept_unasked", True),
            answers=queue.get("answers", 1),
            agreement=queue.get("agreement", 0),
            max_answers=queue.get("max_answers", 3),
            expires_after_days=queue.get("expires_after_days", 30.0),
            project=project,
        )


def kind_of(key: str) -> str:
    """Return what a key of the inbox holds: samples, events, withdrawn, released; '' for no inbox file."""
    parts = key.split("/")
    if parts[0] == "drops":
        return "samples" if len(parts) == 3 and parts[2] == "manifest.jsonl" else ""
    names = {"labels": "events", "withdrawn": "withdrawn", "released": "released"}
    return names.get(parts[0], "") if len(parts) > 1 and key.endswith(".jsonl") else ""


def read(key: str, data: bytes, project_uri: str, settings: Settings) -> list[tuple[int, Any]]:
    """Read one inbox file.

    Returns:
        (line number, ``Line``, ``Event``, id of a withdrawn sample, or (id, round) of a released one).

    Raises:
        BadLineError: the first line that is not what its format says.
    """
    records = []
    for number, raw in enumerate(data.split(b"\n"), start=1):
        if len(raw) > LONGEST_LINE:
            raise BadLineError(number, f"has {len(raw)} bytes, at most {LONGEST_LINE} are read")
        if not raw.strip():
            continue
        try:
            record = json.loads(raw.decode("utf-8"))
            json.dumps(record, ensure_ascii=False).encode("utf-8")  # refuses half a surrogate pair
        except (ValueError, RecursionError) as error:
            raise BadLineError(number, f"is not JSON: {error}") from None
        if not isinstance(record, dict):
            raise BadLineError(number, "is not an object")
        try:
            records.append((number, _READERS[kind_of(key)](record, key, project_uri, settings)))
        except ValueError as error:
            raise BadLineError(number, str(error)) from None
    return records


def _manifest_line(record: dict, key: str, project_uri: str, settings: Settings) -> Line:
    _only(record, "uri", "id", "label", "split", "group")
    uri = _absolute(_text(record, "uri", 1, 4096), key, project_uri, settings)
    sample_id = record.get("id")
    if sample_id is None:
        sample_id = hashlib.sha256(uri.encode()).hexdigest()[:16]
    elif not isinstance(sample_id, str) or not _ID.fullmatch(sample_id):
        raise ValueError("id must be a name")
    split = record.get("split")
    if split not in (None, "train", "val", "test"):
        raise ValueError("split must be train, val or test")
    group = None if record.get("group") is None else _text(record, "group", 0, 200)
    return Line(sample_id, uri, _class(record, settings), split or "train", group)


def _absolute(uri: str, key: str, project_uri: str, settings: Settings) -> str:
    """Return the one spelling of an absolute uri: file:///… percent-encoded, s3://… as it stands, no part a dot."""
    scheme = _SCHEME.match(uri)
    if scheme:
        absolute = _canonical(uri)
        prefixes = (*settings.prefixes, f"{project_uri}/files")  # where drops copy pictures
        if not any(absolute.startswith(prefix.rstrip("/") + "/") for prefix in prefixes):
            raise ValueError(f"uri {uri} is under no prefix")
        return absolute
    if uri.startswith("/") or "\\" in uri or _CONTROL.search(uri):
        raise ValueError(f"uri {uri!r} is not a relative name")
    name = "/".join(_parts(uri))
    return f"{project_uri}/{key.rsplit('/', 1)[0]}/{quote(name) if project_uri.startswith('file:') else name}"


def _canonical(uri: str) -> str:
    scheme, separator, rest = uri.partition("://")
    if separator and scheme.lower() == "file" and rest.startswith("/"):
        name = unquote_to_bytes(rest[1:])
        if b"\x00" in name:
            raise ValueError("uri has a zero byte")
        return "file:///" + "/".join(quote(part) for part in _parts(name.decode("utf-8", "surrogateescape")))
    if separator and scheme.lower() == "s3" and not _CONTROL.search(uri):
        bucket, _, name = rest.partition("/")
        return f"s3://{bucket}/" + "/".join(_parts(name))
    raise ValueError(f"uri {uri} is of no scheme that is known")


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part != "."]
    if not parts or "" in parts or ".." in parts:
        raise ValueError(f"{name} has a part .. or an empty one")
    return parts


def _event(record: dict, key: str, project_uri: str, settings: Settings) -> Event:
    _only(record, "event_id", "sample_id", "kind", "label", "annotator", "round", "time")
    kind = record.get("kind")
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {KINDS}")
    label = _class(record, settings)
    if (kind == "label") != (label is not None):
        raise ValueError("kind label, and no other, has a label")
    return Event(
        event_id=_text(record, "event_id", 1, 200),
        sample_id=_text(record, "sample_id", 0),
        kind=kind,
        label=label,
        annotator=_text(record, "annotator", 1, 200),
        round=_integer(record.get("round", 0), 0),
        time=_time(record),
    )


def _withdrawn(record: dict, key: str, project_uri: str, settings: Settings) -> str:
    _only(record, "sample_id", "reason", "time")
    if "reason" in record:
        _text(record, "reason", 0)
    _time(record)
    return _text(record, "sample_id", 0)


def _released(record: dict, key: str, project_uri: str, settings: Settings) -> tuple[str, int]:
    _only(record, "sample_id", "round", "time")
    _time(record)
    return _text(record, "sample_id", 0), _integer(record.get("round"), 1)


_READERS = {"samples": _manifest_line, "events": _event, "withdrawn": _withdrawn, "released": _released}


def _only(record: dict, *names: str) -> None:
    if unknown := set(record) - set(names):
        raise ValueError(f"unknown field {sorted(unknown)}")


def _text(record: dict, name: str, least: int, most: int = 1 << 30) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not least <= len(value) <= most:
        raise ValueError(f"{name} must be a text of {least} to {most} characters")
    return value


def _integer(value: object, least: int) -> int:
    if type(value) is not int or not least <= value < 2**31:
        raise ValueError(f"must be a whole number from {least}, below 2^31")
    return value


def _class(record: dict, settings: Settings) -> str | None:
    label = record.get("label")
    if label is not None and label not in settings.classes:
        raise ValueError(f"label must be one of {settings.classes}")
    return label


def _time(record: dict) -> datetime:
    value = record.get("time")
    if not isinstance(value, str):
        raise ValueError("time must be a text")
    time = datetime.fromisoformat(value)
    if time.tzinfo is None:
        raise ValueError("time must have a zone")
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("time must be in the years 1 to 9999 of UTC") from None
