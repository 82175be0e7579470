"""What came since an earlier round: drops that it has not seen, and their samples."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from alfamix_core.errors import MissingObjectError
from alfamix_core.project import layout, raw, rounds, segments
from alfamix_core.records.round import FrozenInput, Round
from alfamix_core.records.segment import SegmentCard
from alfamix_core.storage import Store


def new_drops(store: Store, inputs: Sequence[FrozenInput], earlier: Round | None) -> dict[str, datetime | None]:
    """Return the manifests among frozen inputs that an earlier round has not seen, and when each was written.

    Segments may have been merged since, so what a new one covers is only new if it was written after the plan.

    Args:
        store: the project.
        inputs: what is known now, or was when a later round was planned.
        earlier: None for what came since ever.
    """
    seen = {item.key for item in earlier.inputs} if earlier else set()
    keys = []
    for item in inputs:
        if item.key in seen:
            continue
        if item.key.startswith(layout.LEDGER):
            with suppress(MissingObjectError):  # merged at this moment
                keys += [covered.key for covered in SegmentCard.parse(store.read(item.key).data, item.key).covers]
        else:
            keys.append(item.key)
    written = {key: store.modified(key) for key in sorted(keys) if layout.is_manifest(key)}
    if earlier is None:
        return written
    return {key: time for key, time in written.items() if time is not None and _is_after(time, earlier.planned_at)}


def _is_after(written: datetime, moment: datetime) -> bool:
    """Whether something was written after a moment; S3 tells whole seconds, of which the whole one counts."""
    return written > moment or written == moment.replace(microsecond=0)


def new_samples(store: Store, record: Round) -> pa.Array:
    """Return the ids of the samples of the drops that came since the round before this one.

    Args:
        store: the project.
        record: a round; what is returned depends on what was frozen in it alone.
    """
    earlier = rounds.before(store, record.number)
    drops = pa.array(sorted(new_drops(store, record.inputs, earlier)), pa.string())
    seen = {item.key for item in earlier.inputs} if earlier else set()
    fresh = [item for item in record.inputs if item.key not in seen] if len(drops) else []
    tables = [segments.load(store, record.settings, item) for item in fresh if item.key.startswith(layout.LEDGER)]
    tables.append(raw.read(store, record.settings, [item for item in fresh if layout.is_manifest(item.key)]))
    found = [table.samples.filter(pc.is_in(table.samples["key"], value_set=drops))["sample_id"] for table in tables]
    return pa.concat_arrays([chunk for column in found for chunk in column.chunks] or [pa.array([], pa.string())])
