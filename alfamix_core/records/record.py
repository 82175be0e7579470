"""What all JSON formats share: strict frozen models, bytes out, and errors in the user's words."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import IO, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from alfamix_core.errors import InputError


class Record(BaseModel):
    """A JSON document or a line of one: no unknown fields, never changed in place."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, data: bytes | str, where: str) -> Self:
        """Read one document.

        Args:
            data: UTF-8 JSON.
            where: what the user calls it, such as ``project.json`` or ``drops/a/manifest.jsonl line 3``.

        Raises:
            InputError: not JSON, an unknown or missing field, a wrong type or value; one line that names them all.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise InputError(f"{where}: {explain(error)}") from None

    def document(self) -> bytes:
        """Return the record as a readable JSON file; equal records give equal bytes."""
        return (json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n").encode()

    def json_line(self) -> bytes:
        """Return the record as one line of a JSON Lines file, without the fields that are None."""
        fields = self.model_dump(mode="json", exclude_none=True)
        return (json.dumps(fields, ensure_ascii=False) + "\n").encode()


def explain(error: ValidationError) -> str:
    """Return what a validation found as one line: field, what must hold, what came."""
    found = []
    for item in error.errors(include_url=False):
        field = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            found.append(f'unknown field "{field}"')
        elif item["type"] == "missing":
            found.append(f'field "{field}" is missing')
        elif item["type"] == "json_invalid":
            found.append(f"is not JSON ({message.removeprefix('Invalid JSON: ')})")
        elif not field:
            found.append(message)
        else:
            message = re.sub(r"^\w+ should ", "must ", message)
            found.append(f'field "{field}" {message}, not {_shorten(item["input"])}')
    return "; ".join(found)


def _shorten(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


R = TypeVar("R", bound=Record)


def read_lines(kind: type[R], stream: IO[bytes] | Iterable[bytes], where: str) -> Iterator[tuple[int, R]]:
    """Yield (line number from 1, record) of a JSON Lines stream, skipping blank lines.

    Raises:
        InputError: a line that is not such a record, with its number.
    """
    for number, line in enumerate(stream, start=1):
        if line.strip():
            yield number, kind.parse(line, f"{where} line {number}")
