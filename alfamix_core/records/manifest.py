"""drops/<drop>/manifest.jsonl: the samples of one delivery, one per line."""

import hashlib
from typing import Annotated, Literal, NewType

from pydantic import Field, StringConstraints

from alfamix_core.records.record import Record

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
SampleId = NewType("SampleId", str)
Split = Literal["train", "val", "test", "audit"]


class ManifestLine(Record):
    """One sample as a delivery names it."""

    uri: Annotated[str, StringConstraints(min_length=1, max_length=4096)] = Field(
        description="URI of the file: relative to the manifest's folder, or absolute below one of the data prefixes"
    )
    id: Annotated[str, StringConstraints(pattern=ID_PATTERN)] | None = Field(
        None, description="permanent id; by default made of the absolute uri"
    )
    label: str | None = Field(None, description="class, if it is known")
    split: Literal["train", "val", "test"] | None = Field(
        None, description="purpose of the sample once it has a label; train by default"
    )
    group: str | None = Field(
        None, max_length=200, description="patient, camera or video: name of samples that belong together"
    )


def uniform(text: str, draw: int = 0) -> float:
    """Return a number in [0, 1) that a text determines: 48 bits of its SHA-256.

    Args:
        text: Purpose and subject of the number, such as ``split/<id>``.
        draw: Index of the number among those of the text, 0 to 4.
    """
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[6 * draw : 6 * draw + 6], "big") / 2**48


def sample_id(absolute_uri: str) -> SampleId:
    """Return the default id: the first 16 hex digits of the SHA-256 of the absolute uri."""
    return SampleId(hashlib.sha256(absolute_uri.encode()).hexdigest()[:16])
