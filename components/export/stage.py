"""Write what the round produced, commit it with one swap of round.json, and apply its promotion.

Until that swap nothing of it exists for any reader, so an export that is killed, or that wakes up when another run has
the project, has asked nothing and changed nothing.
"""

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from alfamix_core.errors import InputError
from alfamix_core.project import champion, layout, lock, objects, rounds
from alfamix_core.project.failures import attempts
from alfamix_core.project.publish import publish
from alfamix_core.project.totals import with_history
from alfamix_core.records import evaluation, selection
from alfamix_core.records.evaluation import Evaluation
from alfamix_core.records.query import ChosenSample, Question
from alfamix_core.records.record import read_lines
from alfamix_core.records.round import Drift, ObjectName, Outcome, Round, number_of
from alfamix_core.records.selection import Selection
from alfamix_core.records.snapshot import read_labelled
from alfamix_core.records.stage import StageLog, StageRun, read_logs, totals
from alfamix_core.reports.gather import round_page
from alfamix_core.storage import Store, open_store
from alfamix_core.telemetry.measures import Stopwatch, peak_memory_bytes

_NAMED = 3


def run(
    project_uri: str,
    key: str,
    run_id: str,
    snapshot_path: str,
    queries_path: str,
    evaluation_path: str,
    report_path: str,
) -> None:
    """Commit the round, which asks its questions; repeating it changes nothing.

    Args:
        project_uri: of the project.
        key: of the round.
        run_id: of this run, which must hold the project's lock.
        snapshot_path: the round's frozen world.
        queries_path: what was chosen, see ``records.selection``.
        evaluation_path: of the round's model.
        report_path: file to be written: the round's page.

    Raises:
        InputError: more samples could not be read than the project bears; nothing was asked.
        LockedError: another run has taken the project over; nothing was asked.
        StorageError: the store does not answer.
    """
    watch = Stopwatch()
    store, number = open_store(project_uri), number_of(key)
    record, _ = rounds.read(store, number)
    if not record.is_committed:
        now = datetime.now(UTC)
        lock.renew(store, run_id, now, now + timedelta(hours=record.settings.round.max_hours))
        record = _commit(store, record, run_id, watch, Path(snapshot_path), Path(queries_path), Path(evaluation_path))
    champion.apply(store, record)
    publish(store, "export")
    Path(report_path).parent.mkdir(parents=True, exist_ok=True)
    Path(report_path).write_bytes(objects.read(store, record, "report"))


def _commit(
    store: Store, record: Round, run_id: str, watch: Stopwatch, snapshot: Path, queries: Path, measured: Path
) -> Round:
    """Write the round's objects, and commit it with their names."""
    number = record.number
    log = read_logs([queries, measured])
    _check_quarantine(record, log)
    chosen = _read_queries(queries)
    account = Selection.parse((queries / selection.SELECTION_FILE).read_bytes(), selection.SELECTION_FILE)
    quality = Evaluation.parse((measured / evaluation.FILE).read_bytes(), evaluation.FILE)
    thumbnails = _write_thumbnails(store, number, queries, chosen)
    written: dict[ObjectName, str] = {
        "queries": objects.write_lines(store, number, chosen),
        "questions": objects.write_lines(store, number, [_question(record, sample, thumbnails) for sample in chosen]),
        "evaluation": objects.write(store, number, quality.document()),
    }
    if log.quarantined:
        written["quarantine"] = objects.write_lines(store, number, log.quarantined)
    this = StageRun(stage="export", seconds=watch.seconds, rows=len(chosen), peak_memory_bytes=peak_memory_bytes())
    log = StageLog(runs=(*log.runs, this), quarantined=log.quarantined)
    outcome = with_history(store, record, _outcome(store, record, snapshot, chosen, account, quality, log))
    page = round_page(store, record, outcome, chosen, account, quality, log, queries / selection.THUMBNAILS)
    written["report"] = objects.write(store, number, page.encode())
    return rounds.mark_exported(
        store, number, run_id, outcome, datetime.now(UTC), objects=written, promotion=quality.promotion
    )


def _outcome(
    store: Store,
    record: Round,
    snapshot: Path,
    chosen: list[ChosenSample],
    account: Selection,
    quality: Evaluation,
    log: StageLog,
) -> Outcome:
    stages = totals(log.runs, attempts(store, record.number))
    labels = Counter(read_labelled(snapshot)["label"].to_pylist())
    return Outcome(
        queries=len(chosen),
        short_by=account.short_by,
        reason=account.reason,
        strategy=account.strategy,
        summary=dict(account.summary),
        metrics=quality.metrics,
        audit=quality.audit,
        agreement=quality.agreement,
        promoted=quality.promotion.promoted,
        quarantined=len(log.quarantined),
        labels={name: labels[index] for index, name in enumerate(record.settings.classes)},
        seconds={name: stage.seconds for name, stage in stages.items()},
        stages=stages,
        drift=Drift(embedding_distance=account.embedding_distance, predicted_shares=account.predicted_shares),
        exported_at=datetime.now(UTC),
    )


def _check_quarantine(record: Round, log: StageLog) -> None:
    """Stop the round when more than the project's share of its samples cannot be read."""
    bad = log.quarantined
    total = record.counts.pool + record.counts.labelled
    share = record.settings.limits.quarantine_share
    if len(bad) > share * total:
        named = "; ".join(f"{sample.uri}: {sample.reason}" for sample in bad[:_NAMED])
        more = f"; and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        raise InputError(
            f"{len(bad)} of {total} samples cannot be read, more than limits.quarantine_share {share:g} allows: "
            f"{named}{more}"
        )


def _read_queries(folder: Path) -> list[ChosenSample]:
    with (folder / selection.QUERIES_FILE).open("rb") as stream:
        return [sample for _, sample in read_lines(ChosenSample, stream, selection.QUERIES_FILE)]


def _write_thumbnails(store: Store, number: int, queries: Path, chosen: list[ChosenSample]) -> dict[str, str]:
    """Write the thumbnails; return their keys by sample."""
    keys = {}
    for sample in chosen:
        path = queries / selection.THUMBNAILS / f"{sample.sample_id}.webp"
        if path.exists():
            keys[sample.sample_id] = layout.objects(number) + objects.write(store, number, path.read_bytes())
    return keys


def _question(record: Round, sample: ChosenSample, thumbnails: dict[str, str]) -> Question:
    return Question(
        sample_id=sample.sample_id,
        uri=sample.uri,
        round=record.number,
        rank=sample.rank,
        audit=sample.audit,
        suggestion=sample.suggestion,
        thumbnail=thumbnails.get(sample.sample_id, ""),
        # not the present moment: a resumed round asks the very same questions
        asked_at=record.planned_at,
    )
