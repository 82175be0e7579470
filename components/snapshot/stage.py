"""Freeze the round's inputs as tables: the pool, the labelled samples, the settings, the champion."""

from pathlib import Path

from alfamix_core.project import layout, models, rounds
from alfamix_core.project.ledger.ledger import frozen_ledger
from alfamix_core.project.stage_meter import StageMeter
from alfamix_core.records import snapshot
from alfamix_core.records.round import Round, number_of
from alfamix_core.storage import Store, open_store

_SLICE = 2_000


def run(project_uri: str, round_key: str, snapshot_path: str, champion_path: str) -> list[str]:
    """Write the snapshot and the champion's folder.

    Args:
        project_uri: URI of the project.
        round_key: Key of the round.
        snapshot_path: Folder to write, see ``records.snapshot``.
        champion_path: Folder to write: champion.json, and the model's files if there is a champion.

    Returns:
        The names of the pool's shards, "0", "1" and so on, at least one.

    Raises:
        InputError: A frozen file, or the champion's model, has changed since the round was planned.
    """
    folder = Path(snapshot_path)
    with StageMeter("snapshot", outputs=[folder]) as meter:
        store = open_store(project_uri)
        record = rounds.read(store, number_of(round_key)).value
        earlier = rounds.before(store, record.number)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / snapshot.ROUND_FILE).write_bytes(_frozen(record).document())
        (folder / snapshot.PROJECT_URI_FILE).write_text(store.uri, "utf-8")
        with frozen_ledger(store, record) as ledger:
            pool = ledger.pool(ledger.since(earlier), on_map=_SLICE)
            meter.rows += snapshot.write_batches(folder / snapshot.POOL_FILE, snapshot.POOL, pool)
            meter.rows += snapshot.write_batches(folder / snapshot.LABELLED_FILE, snapshot.LABELLED, ledger.labelled())
            reserve = ledger.reserve(record.settings.seed, record.settings.audit.per_round)
            snapshot.write_table(folder / snapshot.AUDIT_FILE, snapshot.AUDIT, reserve)
        _copy_champion(store, record, Path(champion_path))
    return [str(shard) for shard in range(record.shards)]


def _frozen(record: Round) -> Round:
    """Return the record without what a resumption changes, so that every run of the round passes on the same bytes."""
    return record.model_copy(update={"revision": 1, "fence": 1, "run_id": "", "state": "planned", "reason": ""})


def _copy_champion(store: Store, record: Round, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / layout.CHAMPION).write_bytes(record.champion.document())
    if record.champion.round is not None:
        models.fetch(store, record.champion.model, folder)
