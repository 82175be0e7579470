"""Write down the round's frozen world as tables: the pool, the labelled samples, the settings, the champion."""

import hashlib
import heapq
from collections.abc import Iterator
from pathlib import Path

from alfamix_core.project import layout, rounds
from alfamix_core.project.ledger import Ledger
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
    pool = snapshot.write_table(folder / snapshot.POOL_FILE, snapshot.POOL, _pool_rows(ledger))
    labelled = snapshot.write_table(folder / snapshot.LABELLED_FILE, snapshot.LABELLED, _labelled_rows(ledger, record))
    reserve = ledger.reserve(record.settings.seed)[: record.settings.audit.per_round]
    audit = ((sample.sample_id, sample.uri) for sample in reserve)
    snapshot.write_table(folder / snapshot.AUDIT_FILE, snapshot.AUDIT, audit)
    _copy_champion(store, record, Path(champion_path))
    run_of_this = StageRun(
        stage="snapshot", seconds=watch.seconds, rows=pool + labelled, peak_memory_bytes=peak_memory_bytes()
    )
    StageLog(runs=(run_of_this,)).write(folder)
    return [str(shard) for shard in range(record.shards)]


def _pool_rows(ledger: Ledger) -> Iterator[tuple[object, ...]]:
    ids = [sample.sample_id for sample in ledger.ordered() if ledger.in_pool(sample)]
    on_map = set(heapq.nsmallest(_SLICE, ids, key=lambda key: hashlib.sha256(key.encode()).digest()))
    for key in ids:
        sample = ledger.samples[key]
        yield key, sample.uri, sample.group, key in on_map


def _labelled_rows(ledger: Ledger, record: Round) -> Iterator[tuple[object, ...]]:
    index = {name: place for place, name in enumerate(record.settings.classes)}
    for sample in ledger.ordered():
        label = ledger.label(sample)
        if label is None or sample.sample_id in ledger.quarantined:
            continue
        known = ledger.verdicts.get(sample.sample_id)
        asked = known.round if known is not None and known.state == "label" else 0
        yield sample.sample_id, sample.uri, index[label], sample.split, sample.group, asked


def _copy_champion(store: Store, record: Round, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / layout.CHAMPION).write_bytes(record.champion.document())
    if record.champion.round is not None:
        prefix = layout.model(record.champion.round)
        for entry in store.list(prefix):
            store.fetch(entry.key, folder / entry.key.removeprefix(prefix))
