"""Write down the round's frozen world as tables: the pool, the labelled samples, the settings, the champion."""

import hashlib
import heapq
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alfamix_core.project import layout, rounds
from alfamix_core.project.ledger import Ledger
from alfamix_core.project.news import new_samples
from alfamix_core.records import snapshot
from alfamix_core.records.round import Round, number_of
from alfamix_core.records.stage import StageLog, StageRun
from alfamix_core.storage import Store, open_store
from alfamix_core.telemetry.measures import Stopwatch, peak_memory_bytes

_SLICE = 2_000


def run(project_uri: str, key: str, snapshot_path: str, champion_path: str) -> list[str]:
    """Write the snapshot and the champion's folder.

    Args:
        project_uri: of the project.
        key: of the round.
        snapshot_path: folder to be written, see ``records.snapshot``.
        champion_path: folder to be written: champion.json, and the model's files if there is a champion.

    Returns:
        The names of the pool's shards, "0" … at least one.

    Raises:
        InputError: a frozen file has changed since the round was planned.
    """
    watch = Stopwatch()
    store = open_store(project_uri)
    record, _ = rounds.read(store, number_of(key))
    ledger = rounds.ledger_of(store, record)
    folder = Path(snapshot_path)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / snapshot.ROUND_FILE).write_bytes(record.document())
    (folder / snapshot.PROJECT_URI_FILE).write_text(store.uri, "utf-8")
    pool = _pool(ledger, new_samples(store, record))
    snapshot.write(folder / snapshot.POOL_FILE, snapshot.POOL, pool)
    labelled = ledger.labelled(record.settings.classes)
    snapshot.write(folder / snapshot.LABELLED_FILE, snapshot.LABELLED, labelled)
    reserve = ledger.reserve(record.settings.seed)[: record.settings.audit.per_round]
    audit = ((sample.sample_id, sample.uri) for sample in reserve)
    snapshot.write_table(folder / snapshot.AUDIT_FILE, snapshot.AUDIT, audit)
    _copy_champion(store, record, Path(champion_path))
    run_of_this = StageRun(
        stage="snapshot",
        seconds=watch.seconds,
        rows=pool.num_rows + labelled.num_rows,
        peak_memory_bytes=peak_memory_bytes(),
    )
    StageLog(runs=(run_of_this,)).write(folder)
    return [str(shard) for shard in range(record.shards)]


def _pool(ledger: Ledger, new: pa.Array) -> pa.Table:
    """Return the pool; ``on_map`` marks the samples with the smallest SHA-256 of their id, ``new`` those given."""
    pool = ledger.pool()
    ids = pool["sample_id"].to_pylist()
    on_map = heapq.nsmallest(_SLICE, range(len(ids)), key=lambda row: hashlib.sha256(ids[row].encode()).digest())
    marks = np.zeros(len(ids), dtype=np.bool_)
    marks[on_map] = True
    pool = pool.append_column("on_map", pa.array(marks))
    return pool.append_column("new", pc.is_in(pool["sample_id"], value_set=new))


def _copy_champion(store: Store, record: Round, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / layout.CHAMPION).write_bytes(record.champion.document())
    if record.champion.round is not None:
        prefix = layout.model(record.champion.round)
        for entry in store.list(prefix):
            store.fetch(entry.key, folder / entry.key.removeprefix(prefix))
