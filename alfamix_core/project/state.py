"""The project's metrics: every metric of the source ``project``, from its files alone.

    python -m alfamix_core.project.state URI

prints them as one JSON document. The cost is that of opening the ledger, and does not grow with the number of rounds:
only the newest, the last exported and today's are read.
"""

import sys
from dataclasses import dataclass
from datetime import UTC, datetime

from alfamix_core.errors import AlfamixError
from alfamix_core.project import budgets, champion, lock, objects, rounds
from alfamix_core.project.ledger.answers import summarise
from alfamix_core.project.ledger.ledger import Ledger, open_ledger
from alfamix_core.records.evaluation import Evaluation
from alfamix_core.records.lock import Lock
from alfamix_core.records.project import REPORTED, Project
from alfamix_core.records.round import Outcome, Round
from alfamix_core.storage import Store, open_store
from alfamix_core.telemetry import metrics as m
from alfamix_core.telemetry.exposition import Board

_MOST_CLASSES = 100
_MOST_ROUNDS = 1000
"""Maximum number of rounds searched for one with an outcome, or of today."""
_ROUND_STATES = ("planned", "failed", "lost", "exported", "closed", "abandoned")
_KINDS = ("label", "skip", "cannot_label", "withdraw")


@dataclass(frozen=True)
class _Rounds:
    """The rounds that metrics need.

    Attributes:
        newest: Newest round, None before the first.
        exported: Last exported round.
        today: Rounds that began in the last 24 hours.
    """

    newest: Round | None
    exported: Round | None
    today: tuple[Round, ...]


def measure(store: Store, now: datetime) -> Board:
    """Return the metrics of a project.

    Args:
        store: The project.
        now: Current moment, UTC, for ages and expiry.

    Raises:
        InputError: A file of the project is not what its format says.
        StorageError: The store does not answer.
    """
    settings = rounds.read_settings(store)
    known = _read_rounds(store, now)
    board = Board(settings.name)
    _round(board, known, lock.read(store).value, now)
    with open_ledger(store, settings, now) as ledger:
        ledger.compute_states()
        _data(board, store, ledger, known, now)
        _inbox(board, ledger)
        _queue(board, settings, ledger, known)
    _spending(board, settings, known, now)
    _champion(board, store)
    board.set(m.BUDGET_QUERIES, settings.budget)
    board.set(m.QUARANTINE_LIMIT, settings.limits.quarantine_share)
    if known.exported is not None and known.exported.outcome is not None:
        _stages(board, known.exported.outcome)
        _selection(board, known.exported.outcome)
        _model(board, store, known.exported, known.exported.outcome)
    return board


def _read_rounds(store: Store, now: datetime) -> _Rounds:
    numbers = rounds.numbers(store)
    newest: Round | None = None
    exported: Round | None = None
    today: list[Round] = []
    for number in reversed(numbers[-_MOST_ROUNDS:]):
        record = rounds.read(store, number).value
        newest = newest or record
        exported = exported or (record if record.outcome is not None else None)
        if record.planned_at > now - budgets.DAY:
            today.append(record)
        elif exported is not None:
            break
    return _Rounds(newest, exported, tuple(today))


def _round(board: Board, known: _Rounds, current: Lock, now: datetime) -> None:
    newest, exported = known.newest, known.exported
    run_id = current.holder.run_id if current.holder is not None and lock.is_alive(current, now) else None
    state = ""
    if newest is not None:
        state = "lost" if newest.state == "planned" and run_id != newest.run_id else newest.state
    for name in _ROUND_STATES:
        board.set(m.ROUND_STATE, float(name == state), state=name)
    board.set(m.ROUND_NUMBER, newest.number if newest else 0)
    board.set(m.ROUND_LAST_START, newest.planned_at.timestamp() if newest else None)
    if exported is not None and exported.outcome is not None:
        end = exported.outcome.exported_at
        board.set(m.ROUND_LAST_SUCCESS, end.timestamp())
        board.set(m.ROUND_LAST_DURATION, (end - exported.planned_at).total_seconds())
    board.set(m.LOCK_HELD, float(run_id is not None))
    if run_id is not None and current.until is not None:
        board.set(m.LOCK_EXPIRES, current.until.timestamp())


def _data(board: Board, store: Store, ledger: Ledger, known: _Rounds, now: datetime) -> None:
    counts = ledger.counts()
    for state in ("pool", "queried", "skipped", "disputed", "quarantined", "withdrawn", "reserve", "held_out"):
        board.set(m.SAMPLES, getattr(counts, state), state=state, split="")
    for split in ("train", "val", "test", "audit"):
        board.set(m.SAMPLES, getattr(counts, split), state="labelled", split=split)
    earlier = rounds.before(store, known.newest.number + 1) if known.newest else None
    keys = ledger.new_drops(ledger.since(earlier))
    waiting = [time for key in keys if (time := store.modified(key)) is not None]
    board.set(m.WAITING_DROPS, len(waiting))
    board.set(m.OLDEST_WAITING_DROP, max(0.0, (now - min(waiting)).total_seconds()) if waiting else 0.0)


def _inbox(board: Board, ledger: Ledger) -> None:
    unread = ledger.unread
    board.set(m.SET_ASIDE, len(ledger.set_aside()))
    board.set(m.VANISHED_LINES, sum(file.vanished for file in ledger.inbox()))
    board.set(m.DELETED_FILES, len(unread.deleted) if unread is not None else 0)


def _queue(board: Board, settings: Project, ledger: Ledger, known: _Rounds) -> None:
    questions = ledger.open_queries()
    board.set(m.OPEN_QUERIES, len(questions))
    board.set(m.MAX_OPEN, settings.queue.max_open)
    answers = summarise(ledger)
    newest = answers.newest or max((question.asked_at for question in questions), default=None)
    board.set(m.LAST_ANSWER, newest.timestamp() if newest else None)
    for kind in _KINDS:
        board.set(m.ANSWERS, answers.kinds.get(kind, 0), kind=kind)
    for share, seconds in answers.waiting.items():
        board.set(m.ANSWER_TIME, seconds, percentile=f"{100 * share:g}")
    board.set(m.ANNOTATOR_AGREEMENT, answers.agreement)
    board.set(m.LABELS, ledger.decided())
    exported = known.exported
    if exported is not None and exported.outcome is not None and exported.outcome.queries:
        left = sum(question.round == exported.number for question in questions)
        board.set(m.ROUND_ANSWERED, 1 - min(1.0, left / exported.outcome.queries))


def _spending(board: Board, settings: Project, known: _Rounds, now: datetime) -> None:
    totals = known.exported.outcome.totals if known.exported and known.exported.outcome else None
    if totals is not None:
        for strategy, count in totals.rounds.items():
            board.set(m.ROUNDS, count, strategy=strategy)
        board.set(m.QUERIES_TOTAL, totals.queries)
        board.set(m.GPU_SECONDS, totals.gpu_seconds)
        board.set(m.COMPUTE_SECONDS, totals.stage_seconds)
        board.set(m.PROMOTIONS, totals.promotions)
    for budget, count in budgets.used(known.today, totals.queries if totals else 0, now).items():
        allowed = getattr(settings.budgets, budget)
        if allowed is not None:
            board.set(m.BUDGET_USED, count / allowed if allowed else 1.0, budget=budget)
    metric, last = settings.promotion.metric, known.exported
    if totals and last and last.outcome and metric in totals.first_metrics and metric in last.outcome.metrics:
        gained = (last.outcome.metrics[metric] - totals.first_metrics[metric]) * REPORTED.get(metric, 1)
        labels = last.counts.train - totals.first_train_labels
        if gained > 0 and labels > 0:
            board.set(m.LABELS_PER_POINT, labels / (100 * gained))


def _champion(board: Board, store: Store) -> None:
    serving = champion.read(store).value
    board.set(m.CHAMPION_ROUND, serving.round or 0)
    for name in REPORTED:
        board.set(m.CHAMPION_METRIC, serving.metrics.get(name), metric=name)


def _stages(board: Board, outcome: Outcome) -> None:
    for stage, total in outcome.stages.items():
        board.set(m.STAGE_SECONDS, total.seconds, stage=stage)
        board.set(m.STAGE_ROWS, total.rows, stage=stage)
        board.set(m.STAGE_RATE, total.rows / total.seconds if total.seconds else 0.0, stage=stage)
        board.set(m.STAGE_READ, total.bytes_read, stage=stage)
        board.set(m.STAGE_MEMORY, total.peak_memory_bytes, stage=stage)
        board.set(m.STAGE_GPU_SECONDS, total.gpu_seconds, stage=stage)
        board.set(m.STAGE_GPU_MEMORY, total.gpu_peak_memory_bytes, stage=stage)
        board.set(m.STAGE_RETRIES, total.retries, stage=stage)


def _selection(board: Board, outcome: Outcome) -> None:
    board.set(m.QUERIES, outcome.queries)
    board.set(m.SHORT_BY, outcome.short_by)
    for metric, name in ((m.CANDIDATES, "candidates"), (m.CAP, "cap")):
        value = outcome.summary.get(name)
        board.set(metric, float(value) if isinstance(value, int | float) else None)
    candidates = board.get(m.CANDIDATES)
    if candidates is not None and outcome.queries:
        board.set(m.FILLED, max(0.0, 1 - candidates / outcome.queries))
    if outcome.drift is not None:
        board.set(m.DRIFT, outcome.drift.embedding_distance)
        board.set(m.DRIFT_CLASSES, outcome.drift.class_shift)


def _model(board: Board, store: Store, record: Round, outcome: Outcome) -> None:
    total = record.counts.pool + record.counts.labelled
    board.set(m.ROUND_QUARANTINED, outcome.quarantined / total if total else 0.0)
    for split, metrics in (("test", outcome.metrics), ("audit", outcome.audit)):
        for name in ("accuracy", "macro_f1"):
            board.set(m.MODEL_METRIC, metrics.get(name), split=split, metric=name)
        board.set(m.CALIBRATION, metrics.get("expected_calibration_error"), split=split)
        board.set(m.MODEL_SAMPLES, metrics.get("samples"), split=split)
    board.set(m.AGREEMENT, outcome.agreement)
    if len(outcome.labels) <= _MOST_CLASSES:
        for name, count in outcome.labels.items():
            board.set(m.CLASS_LABELS, count, **{"class": name})
    if "evaluation" not in record.objects:
        return
    quality = Evaluation.parse(objects.read(store, record, "evaluation"), "evaluation")
    if len(quality.per_class) <= _MOST_CLASSES:
        for label in quality.per_class:
            if label.support:
                board.set(m.MODEL_RECALL, label.recall, **{"class": label.name})
    name, promotion = record.settings.promotion.metric, quality.promotion
    if name in promotion.metrics and name in promotion.champion_metrics:
        board.set(m.GAIN, (promotion.metrics[name] - promotion.champion_metrics[name]) * REPORTED.get(name, 1))


def main() -> None:
    """Print a project's metrics; exit with the error's line if it cannot be read."""
    try:
        sys.stdout.write(measure(open_store(sys.argv[1]), datetime.now(UTC)).to_json())
    except AlfamixError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
