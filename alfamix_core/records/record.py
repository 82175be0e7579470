"""What all JSON formats share: strict frozen models, bytes, and errors in the user's words."""

import codecs
import io
import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import cache, partial
from typing import IO, Annotated, Self, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from alfamix_core.errors import InputError

MAX_LINE = 2**20
"""Maximum length of a line of a JSON Lines file in bytes, its end included."""

_BLOCK_BYTES = 2**15  # of lines that are parsed together; larger blocks leave the caches and are slower


class Record(BaseModel):
    """A JSON document, or a line of a file: no unknown fields, never changed in place."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, data: bytes | str, where: str) -> Self:
        """Read one document.

        Args:
            data: UTF-8 JSON.
            where: Name of it for the user, such as ``project.json`` or ``drops/a/manifest.jsonl line 3``.

        Raises:
            InputError: Not JSON, an unknown or missing field, a wrong type or value; one line names them all.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise InputError(f"{where}: {_foreign(data) or explain(error)}") from None

    def document(self) -> bytes:
        """Return the record as a readable JSON file; equal records give equal bytes."""
        return (json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n").encode()

    def json_line(self) -> bytes:
        """Return the record as one line of a JSON Lines file, without the fields that are None."""
        fields = self.model_dump(mode="json", exclude_none=True)
        return (json.dumps(fields, ensure_ascii=False) + "\n").encode()


def _foreign(data: bytes | str) -> str:
    """Name the format of bytes that begin as no JSON does; empty if they may be JSON."""
    start = data[:3].encode(errors="replace") if isinstance(data, str) else data[:3]
    if start.startswith(codecs.BOM_UTF8):
        return "begins with a byte order mark; save it as UTF-8 without one"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "begins with a byte order mark of UTF-16; save it as UTF-8 without one"
    return "is gzip; decompress it" if start.startswith(b"\x1f\x8b") else ""


def explain(error: ValidationError) -> str:
    """Return the findings of a validation as one line: field, what must hold, what came."""
    lines = []
    for item in error.errors(include_url=False):
        field = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            lines.append(f'unknown field "{field}"')
        elif item["type"] == "missing":
            lines.append(f'field "{field}" is missing')
        elif item["type"] == "json_invalid":
            lines.append(f"is not JSON ({message.removeprefix('Invalid JSON: ')})")
        elif not field:
            lines.append(message)
        else:
            message = re.sub(r"^\w+ should ", "must ", message)
            lines.append(f'field "{field}" {message}, not {_shorten(item["input"])}')
    return "; ".join(lines)


def _shorten(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _written_out(value: object) -> object:
    """Read a moment; refuse a number, and text that could be one."""
    if isinstance(value, str) and _MOMENT.fullmatch(value):
        return datetime.fromisoformat(value)  # its error says which part is out of range
    if not isinstance(value, datetime):
        raise ValueError("must be a date and time with its time zone, such as 2026-03-01T12:00:00Z")
    return value


def _within_utc(value: datetime) -> datetime:
    try:
        value.astimezone(UTC)
    except OverflowError:
        raise ValueError("must lie in the years 1 to 9999 in UTC") from None
    return value


_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)", re.ASCII)
Moment = Annotated[AwareDatetime, BeforeValidator(_written_out), AfterValidator(_within_utc)]
"""Moment in a file that people and tools deliver: written out, with its time zone."""

R = TypeVar("R", bound=Record)


def read_lines(kind: type[R], stream: IO[bytes] | Iterable[bytes], where: str) -> Iterator[tuple[int, R]]:
    """Yield (line number from 1, record) of a JSON Lines stream, skipping blank lines.

    Lines are parsed some hundreds at a time, which halves the time; a block with a bad line is parsed again, one by
    one. At most a few MiB of the stream are in memory at a time.

    Raises:
        InputError: A line is no such record, or longer than ``MAX_LINE``; the message has its number.
    """
    number = 0
    for block in _blocks(bounded_lines(stream, where)):
        full = [
            (line_number, text) for line_number, line in enumerate(block, start=number + 1) if (text := line.strip())
        ]
        number += len(block)
        records = _parse_block(kind, [text for _, text in full])
        if records is not None:
            yield from zip((line_number for line_number, _ in full), records, strict=True)
        else:
            for line_number, text in full:
                yield line_number, kind.parse(text, f"{where} line {line_number}")


def bounded_lines(stream: IO[bytes] | Iterable[bytes], where: str) -> Iterator[bytes]:
    """Yield the lines of a stream with their ends, and stop at one that is too long without reading the rest of it.

    Args:
        stream: File, or lines that are in memory already.
        where: Name of it for the user; the message adds the line's number.

    Raises:
        InputError: A line has more than ``MAX_LINE`` bytes.
    """
    lines = iter(partial(stream.readline, MAX_LINE + 1), b"") if isinstance(stream, io.IOBase) else stream
    for number, line in enumerate(lines, start=1):
        if len(line) > MAX_LINE:
            raise InputError(f"{where} line {number}: must have at most {MAX_LINE} bytes (1 MiB), but is longer")
        yield line


def _blocks(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    block: list[bytes] = []
    size = 0
    for line in lines:
        block.append(line)
        size += len(line) + 1
        if size >= _BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def _parse_block(kind: type[R], lines: list[bytes]) -> list[R] | None:
    """Return the records of lines, or None if any line is no record.

    Joined by comma and line end they are one JSON array. No string may hold a line end and no object may begin where
    a key is expected, so every line that begins with { begins an element; their number shows that it is the only one.
    """
    if not all(line.startswith(b"{") and line.endswith(b"}") for line in lines):
        return None
    try:
        records = _list_of(kind).validate_json(b"[" + b",\n".join(lines) + b"]")
    except ValidationError:
        return None
    return records if len(records) == len(lines) else None


@cache
def _list_of(kind: type[R]) -> TypeAdapter[list[R]]:
    return TypeAdapter(list[kind])  # type: ignore[valid-type]
