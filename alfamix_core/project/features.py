"""Kept features below features/<encoder>/: which are no longer needed, and which are damaged."""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from alfamix_core.errors import InputError, MissingObjectError
from alfamix_core.project import layout
from alfamix_core.records.feature_parts import Part, beginning, list_parts, read_part, write_part
from alfamix_core.records.round import Round
from alfamix_core.storage import Store


def unnamed_encoders(store: Store, records: Collection[Round], kept: Collection[int | None]) -> list[str]:
    """Return the encoders whose features no round names.

    The newest committed round counts, because the next one probably has its encoder. An unfinished round names its
    encoder only when it is exported, so while there is one, none is returned.

    Args:
        store: The project.
        records: All rounds.
        kept: Numbers of the rounds whose encoders are kept.
    """
    if any(record.is_unfinished for record in records):
        return []
    newest = max((record.number for record in records if record.is_committed), default=None)
    named = {
        record.promotion.encoder
        for record in records
        if record.promotion is not None and (record.number in kept or record.number == newest)
    }
    return [encoder for encoder in store.folders(layout.FEATURES) if encoder not in named]


def parts_with(store: Store, sample_ids: Collection[str]) -> Iterator[Part]:
    """Yield the parts that hold one of the samples. A part that cannot be read is left out."""
    wanted, beginnings = pa.array(sorted(sample_ids), pa.string()), sorted(map(beginning, sample_ids))
    for encoder in store.folders(layout.FEATURES):
        for part in list_parts(store, layout.features(encoder)):
            if bisect_left(beginnings, part.first) < bisect_right(beginnings, part.last):
                ids = _ids(store, part)
                if ids is not None and pc.any(pc.is_in(ids, value_set=wanted)).as_py():
                    yield part


def remove_from(store: Store, part: Part, sample_ids: Collection[str]) -> None:
    """Replace a part by one without some samples; of a damaged part nothing stays."""
    try:
        table = read_part(store, part)
    except MissingObjectError:
        return
    except InputError:
        table = None
    if table is not None:
        gone = pa.array(sorted(sample_ids), pa.string())
        rest = table.filter(pc.invert(pc.is_in(table["sample_id"], value_set=gone)))
        if rest.num_rows:
            write_part(
                store,
                f"{part.key.rpartition('/')[0]}/",
                rest["sample_id"].to_pylist(),
                b"".join(rest["output"].to_pylist()),
            )
    store.delete(part.key)


def faults(store: Store) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong) of the files below features/ that no round can use; every part is read."""
    parts: dict[str, Part] = {}
    for encoder in store.folders(layout.FEATURES):
        parts |= {part.key: part for part in list_parts(store, layout.features(encoder))}
    for entry in store.list(layout.FEATURES):
        if entry.key not in parts:
            yield entry.key, "is not a part of an encoder's features"
            continue
        try:
            read_part(store, parts[entry.key])
        except MissingObjectError:
            continue  # `alfamix clean` removed it since the listing
        except InputError as error:
            yield entry.key, str(error).removeprefix(f"{entry.key} ")


def _ids(store: Store, part: Part) -> pa.ChunkedArray | None:
    try:
        return read_part(store, part)["sample_id"]
    except (MissingObjectError, InputError):
        return None
