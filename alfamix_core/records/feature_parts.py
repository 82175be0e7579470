"""Kept features: what a frozen encoder computed of samples, as parts that are written once and named by content.

    features/<encoder>/<first>-<last>-<sha256>.parquet    columns sample_id and output

``output`` holds the encoder's output as bytes, D numbers of the folder's dtype, little-endian. ``first`` and ``last``
are the first 24 bytes of the part's least and greatest sample_id in hex, so that a listing shows which parts may hold a
sample. ``sha256`` is the digest of the file: a part is there whole, or is not used.
"""

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import pyarrow as pa
import pyarrow.parquet as pq

from alfamix_core.errors import InputError, ObjectExistsError
from alfamix_core.storage import Store

_ID_BYTES = 24
_NAME = re.compile(r"([0-9a-f]*)-([0-9a-f]*)-([0-9a-f]{64})\.parquet")


@dataclass(frozen=True)
class Part:
    """A part, as a listing shows it.

    Attributes:
        key: Key of the part.
        first: Beginning of its least sample_id, in hex.
        last: Beginning of its greatest sample_id, in hex.
        sha256: Digest of its bytes.
    """

    key: str
    first: str
    last: str
    sha256: str

    def may_hold(self, least: str, greatest: str) -> bool:
        """Return whether samples from one id to another may be in the part."""
        return self.first <= beginning(greatest) and beginning(least) <= self.last


def list_parts(store: Store, folder: str) -> list[Part]:
    """Return the parts of an encoder's folder in order of their names; files with other names are no parts."""
    entries = [(entry.key, _NAME.fullmatch(entry.key.removeprefix(folder))) for entry in store.list(folder)]
    return [Part(key, *name.groups()) for key, name in entries if name]


def read_part(store: Store, part: Part, width: int | None = None) -> pa.Table:
    """Return the rows of a part.

    Args:
        store: Store of the part.
        part: Part to read.
        width: Bytes of one sample's output; None accepts any.

    Raises:
        MissingObjectError: It was removed since it was listed.
        InputError: Its bytes are not those of its digest, or are no such table.
    """
    data = store.read(part.key).data
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise InputError(f"{part.key} is damaged: its bytes are not those of its digest")
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{part.key} must be a parquet file ({' '.join(str(error).split())})") from None
    schema = table.schema.remove_metadata()
    kind = schema.field("output").type if "output" in schema.names else None
    if not isinstance(kind, pa.FixedSizeBinaryType) or schema != _schema(width or kind.byte_width):
        size = f"{width} bytes" if width else "a fixed number of bytes"
        raise InputError(f"{part.key} must have the columns sample_id (string) and output ({size}), not {schema}")
    return table


def write_part(store: Store, folder: str, sample_ids: Sequence[str], output: bytes) -> str:
    """Write a part, repeatably, and return its key.

    If a damaged part has the name already, the new one gets another: nothing is ever replaced.

    Args:
        store: Store of the part.
        folder: Encoder's folder, with its slash.
        sample_ids: N ids, n >= 1, each once.
        output: Outputs of the encoder for these samples, one after another.
    """
    width = len(output) // len(sample_ids)
    outputs = pa.Array.from_buffers(pa.binary(width), len(sample_ids), [None, pa.py_buffer(output)])
    table = pa.table([pa.array(sample_ids, pa.string()), outputs], schema=_schema(width))
    ends = f"{beginning(min(sample_ids, key=str.encode))}-{beginning(max(sample_ids, key=str.encode))}"
    for attempt in count():
        stream = io.BytesIO()
        metadata = {"attempt": str(attempt)} if attempt else None
        pq.write_table(
            table.replace_schema_metadata(metadata), stream, compression={"sample_id": "zstd"}, use_dictionary=False
        )
        key = f"{folder}{ends}-{hashlib.sha256(stream.getvalue()).hexdigest()}.parquet"
        try:
            store.create_same(key, stream.getvalue())
        except ObjectExistsError:
            continue
        return key
    raise AssertionError("count never ends")


def _schema(width: int) -> pa.Schema:
    return pa.schema(
        [pa.field("sample_id", pa.string(), nullable=False), pa.field("output", pa.binary(width), nullable=False)]
    )


def beginning(sample_id: str) -> str:
    """Return the beginning of an id in hex, as names of parts have it; ids and their beginnings have the same order."""
    return sample_id.encode()[:_ID_BYTES].hex()
