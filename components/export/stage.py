"""Write the results of the round, commit it with one swap of round.json, and apply its promotion.

No reader sees any of the results before that swap. So an export that is killed, or that wakes up after another run has
taken the project over, has asked nothing and changed nothing.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from alfamix_core.errors import InputError
from alfamix_core.project import champion, layout, lock, objects, rounds
from alfamix_core.project.failures import attempts
from alfamix_core.project.stage_meter import StageMeter
from alfamix_core.project.totals import with_history
from alfamix_core.records import evaluation, selection
from alfamix_core.records.evaluation import Evaluation
from alfamix_core.records.query import ChosenSample, Question
from alfamix_core.records.record import read_lines
from alfamix_core.records.round import Drift, ObjectName, Outcome, Round, number_of
from alfamix_core.records.selection import Selection
from alfamix_core.records.snapshot import read_labelled
from alfamix_core.records.stage import StageLog, read_logs, totals
from alfamix_core.reports.gather import round_page
from alfamix_core.storage import Store, open_store

_NAMED = 3


def run(
    project_uri: str,
    round_key: str,
    run_id: str,
    snapshot_path: str,
    queries_path: str,
    evaluation_path: str,
    report_path: str,
) -> None:
    """Commit the round, which asks its questions; a second call changes nothing.

    Args:
        project_uri: URI of the project.
        round_key: Key of the round.
        run_id: ID of this run, which must hold the project's lock.
        snapshot_path: Folder of the round's snapshot.
        queries_path: Folder of the chosen queries, see ``records.selection``.
        evaluation_path: Folder of the evaluation of the round's model.
        report_path: Path of the round's page, which is written.

    Raises:
        InputError: More samples cannot be read than the project allows; nothing was asked.
        LockedError: Another run has taken the project over; nothing was asked.
        StorageError: The store does not answer.
    """
    meter = StageMeter("export")
    store = open_store(project_uri)
    record = rounds.read(store, number_of(round_key)).value
    if not record.is_committed:
        now = datetime.now(UTC)
        lock.renew(store, run_id, now, now + timedelta(hours=record.settings.round.max_hours))
        produced = _Produced.read(Path(snapshot_path), Path(queries_path), Path(evaluation_path))
        _check_quarantine(record, produced.log)
        record = _commit(store, record, run_id, meter, produced)
    champion.apply(store, record)
    Path(report_path).parent.mkdir(parents=True, exist_ok=True)
    Path(report_path).write_bytes(objects.read(store, record, "report"))


@dataclass(frozen=True)
class _Produced:
    """What the round's stages produced.

    Attributes:
        queries: Chosen samples, best first.
        account: Report of the choice.
        quality: Evaluation of the round's model.
        label_counts: Number of labels by class index.
        log: Logs of all stages.
        thumbnails: Folder of the queries' thumbnails.
    """

    queries: list[ChosenSample]
    account: Selection
    quality: Evaluation
    label_counts: Counter[int]
    log: StageLog
    thumbnails: Path

    @staticmethod
    def read(snapshot: Path, queries: Path, measured: Path) -> "_Produced":
        """Read the outputs of the stages."""
        with (queries / selection.QUERIES_FILE).open("rb") as stream:
            chosen = [sample for _, sample in read_lines(ChosenSample, stream, selection.QUERIES_FILE)]
        return _Produced(
            queries=chosen,
            account=Selection.parse((queries / selection.SELECTION_FILE).read_bytes(), selection.SELECTION_FILE),
            quality=Evaluation.parse((measured / evaluation.FILE).read_bytes(), evaluation.FILE),
            label_counts=Counter(read_labelled(snapshot)["label"].to_pylist()),
            log=read_logs([queries, measured]),
            thumbnails=queries / selection.THUMBNAILS,
        )


def _commit(store: Store, record: Round, run_id: str, meter: StageMeter, produced: _Produced) -> Round:
    """Write the round's objects, and commit it with their names."""
    number = record.number
    thumbnails = _write_thumbnails(store, number, produced)
    questions = [_question(record, sample, thumbnails) for sample in produced.queries]
    names: dict[ObjectName, str] = {
        "queries": objects.write_lines(store, number, produced.queries),
        "questions": objects.write_lines(store, number, questions),
        "evaluation": objects.write(store, number, produced.quality.document()),
    }
    if produced.log.quarantined:
        names["quarantine"] = objects.write_lines(store, number, produced.log.quarantined)
    meter.rows = len(produced.queries)
    log = produced.log.model_copy(update={"runs": (*produced.log.runs, meter.measured())})
    outcome = with_history(store, record, _outcome(store, record, produced, log))
    page = round_page(
        store, record, outcome, produced.queries, produced.account, produced.quality, log, produced.thumbnails
    )
    names["report"] = objects.write(store, number, page.encode())
    return rounds.mark_exported(
        store, number, run_id, outcome, datetime.now(UTC), objects=names, promotion=produced.quality.promotion
    )


def _outcome(store: Store, record: Round, produced: _Produced, log: StageLog) -> Outcome:
    account, quality = produced.account, produced.quality
    return Outcome(
        queries=len(produced.queries),
        short_by=account.short_by,
        reason=account.reason,
        strategy=account.strategy,
        summary=dict(account.summary),
        metrics=quality.metrics,
        audit=quality.audit,
        agreement=quality.agreement,
        promoted=quality.promotion.promoted,
        quarantined=len(log.quarantined),
        labels={name: produced.label_counts[index] for index, name in enumerate(record.settings.classes)},
        stages=totals(log.runs, attempts(store, record.number)),
        drift=Drift(embedding_distance=account.embedding_distance, predicted_shares=account.predicted_shares),
        exported_at=datetime.now(UTC),
    )


def _check_quarantine(record: Round, log: StageLog) -> None:
    """Stop the round if more of its samples cannot be read than the project allows."""
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


def _write_thumbnails(store: Store, number: int, produced: _Produced) -> dict[str, str]:
    """Write the thumbnails, and return their keys by sample."""
    keys = {}
    for sample in produced.queries:
        path = produced.thumbnails / f"{sample.sample_id}.webp"
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
        # not the present time, so that a resumed round asks exactly the same questions
        asked_at=record.planned_at,
    )
