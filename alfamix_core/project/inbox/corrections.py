"""Withdraw samples permanently, or release them from quarantine."""

import hashlib
from collections.abc import Iterable
from datetime import datetime

from alfamix_core.errors import InputError
from alfamix_core.project import layout, rounds
from alfamix_core.project.ledger.ledger import open_ledger
from alfamix_core.records.corrections import Released, Withdrawn
from alfamix_core.records.manifest import SampleId
from alfamix_core.records.round import folder
from alfamix_core.storage import Store


def withdraw(store: Store, lines: Iterable[str], reason: str, now: datetime, where: str) -> tuple[str, int]:
    """Withdraw samples: from the next round on they are in no pool and no training set, permanently.

    Args:
        store: The project.
        lines: Ids or absolute uris of samples, one per line; blank lines are skipped.
        reason: Reason in the user's words; may be empty.
        now: Current moment, UTC.
        where: Name of the list for the user.

    Returns:
        Name of the batch, empty if all were withdrawn before, and number of samples that it withdraws.

    Raises:
        InputError: A line names no sample of the project; nothing was written.
        LockedError: A run holds the project.
    """
    texts = [(number, text) for number, line in enumerate(lines, start=1) if (text := line.strip())]
    if not texts:
        raise InputError(f"{where} names no sample")
    project = rounds.read_settings(store)
    with open_ledger(store, project, now) as ledger:
        ids, before = ledger.ids_of([text for _, text in texts]), ledger.withdrawn()
    for number, text in texts:
        if text not in ids:
            raise InputError(f'{where} line {number}: "{text}" is neither the id nor the uri of a sample')
    sample_ids = sorted(set(ids.values()) - before)
    if not sample_ids:
        return "", 0
    data = b"".join(Withdrawn(sample_id=sample_id, reason=reason, time=now).json_line() for sample_id in sample_ids)
    batch = f"{layout.slug(where.rsplit('/', 1)[-1], 'list')}-{hashlib.sha256(data).hexdigest()[:8]}"
    with rounds.holding(store, "withdraw", now):
        store.create_same(layout.withdrawn(batch), data)
    return batch, len(sample_ids)


def release(store: Store, ids: Iterable[str], now: datetime) -> int:
    """Release repaired samples from quarantine; without ids, all of them. A sample that is still bad returns to it.

    Returns:
        Number of released samples.

    Raises:
        InputError: A sample is not in quarantine; nothing was written.
    """
    project = rounds.read_settings(store)
    with open_ledger(store, project, now) as ledger:
        quarantined = ledger.quarantined()
    wanted = {SampleId(text) for text in ids}
    for sample_id in sorted(wanted - quarantined.keys()):
        raise InputError(f'sample "{sample_id}" is not in quarantine')
    sample_ids = sorted(wanted or quarantined)
    if not sample_ids:
        return 0
    data = b"".join(
        Released(sample_id=sample_id, round=quarantined[sample_id], time=now).json_line() for sample_id in sample_ids
    )
    last = max(quarantined[sample_id] for sample_id in sample_ids)
    store.create_same(layout.released(f"{folder(last)}-{hashlib.sha256(data).hexdigest()[:8]}"), data)
    return len(sample_ids)
