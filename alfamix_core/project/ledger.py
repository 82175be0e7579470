"""The ledger: what every sample is, derived from drops, label events, queues, quarantine and withdrawals.

Nothing about a sample is stored as a flag. Given the same files and the same moment, the ledger is the same, whether
it is read from the files or from the segments that cover them.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from alfamix_core.errors import InputError, MissingObjectError
from alfamix_core.project import answers, layout, raw, segments
from alfamix_core.project.answers import Answers
from alfamix_core.project.consensus import Verdict, verdict
from alfamix_core.project.samples import Sample, Samples, check_class, check_same, flags
from alfamix_core.records.labels import LabelEvent
from alfamix_core.records.project import Project, QueueSettings
from alfamix_core.records.query import Question
from alfamix_core.records.round import Counts, FrozenInput, Round
from alfamix_core.records.segment import SAMPLES, Tables, concatenate
from alfamix_core.storage import Store

_TRIES = 2  # segments are merged once in many rounds
_STATES = ("open", "label", "skip", "cannot_label", "disputed")


@dataclass
class Ledger:
    """All samples of the project, and what is known of them at one moment.

    Attributes:
        samples: by id.
        verdicts: by id, for samples about which anybody said anything.
        open_queries: by id: asked, not decided, not expired, not quarantined.
        quarantined: ids that could not be read.
        repeated: lines of manifests about samples that an earlier line has delivered.
        label_events: how many there are, each event_id once.
        withdrawn: uris by id of what must not be used any more; ``samples`` has none of them.
        unknown: label events about samples that no drop has delivered; they count when one does.
        answers: an account of the events that count.
        fresh: what the files said that no segment covers.
    """

    samples: Mapping[str, Sample] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    open_queries: dict[str, Question] = field(default_factory=dict)
    quarantined: set[str] = field(default_factory=set)
    repeated: int = 0
    label_events: int = 0
    withdrawn: Mapping[str, str] = field(default_factory=dict)
    unknown: int = 0
    answers: Answers = field(default_factory=Answers)
    fresh: Tables | None = None

    def label(self, sample: Sample) -> str | None:
        """Return the decided class: what annotators agreed on, else what the manifest says; None if undecided."""
        known = self.verdicts.get(sample.sample_id)
        if known is None or known.state == "open":
            return sample.label
        return known.label

    def in_pool(self, sample: Sample) -> bool:
        """Whether the sample may be asked about now."""
        return sample.split == "train" and self.undecided(sample) and sample.sample_id not in self.open_queries

    def undecided(self, sample: Sample) -> bool:
        """Whether an answer about the sample is of use: it has no label, no verdict, and can be read."""
        known = self.verdicts.get(sample.sample_id)
        return (
            sample.label is None
            and (known is None or known.state == "open")
            and sample.sample_id not in self.quarantined
        )

    def reserve(self, seed: int) -> list[Sample]:
        """Return the samples of the audit reserve that may be asked about now, in the order in which they are."""
        rows = self.table.table.filter(pa.array(self._waiting & self._of_split("audit")))
        waiting = [Sample(**row) for row in rows.to_pylist()]
        return sorted(waiting, key=lambda sample: (audit_place(seed, sample.sample_id), sample.sample_id))

    def ordered(self) -> Iterator[Sample]:
        """Yield all samples in order of their ids, which no order of arrival changes."""
        for row in self.table.table.to_pylist():
            yield Sample(**row)

    def pool(self) -> pa.Table:
        """Return the samples that may be asked about now: sample_id, uri, group, in order of their ids."""
        rows = pa.array(self._waiting & self._of_split("train"))
        return self.table.table.select(["sample_id", "uri", "group"]).filter(rows)

    def labelled(self, classes: Sequence[str]) -> pa.Table:
        """Return the samples that have a label and can be read, in order of their ids.

        Args:
            classes: of the project; a label is the place of its class.

        Returns:
            Columns sample_id, uri, label (int32), split, group, round (int32, of the deciding answer; 0: none).
        """
        names, codes, rounds = self._labels
        place = {name: index for index, name in enumerate(classes)}
        index = np.array([place.get(name, -1) for name in names] + [-1], dtype=np.int32)[codes]
        rows = (codes >= 0) & ~self._marked(self.quarantined)
        kept = self.table.table.filter(pa.array(rows))
        columns = {
            "sample_id": kept["sample_id"],
            "uri": kept["uri"],
            "label": pa.array(index[rows], pa.int32()),
            "split": kept["split"],
            "group": kept["group"],
            "round": pa.array(rounds[rows], pa.int32()),
        }
        return pa.table(columns)

    def counts(self) -> Counts:
        """Count the samples by what is known of them."""
        left = np.ones(len(self.table), dtype=np.bool_)
        found: dict[str, int] = {}

        def take(name: str, rows: npt.NDArray[np.bool_]) -> None:
            found[name] = int(np.count_nonzero(left & rows))
            left[rows] = False

        states = self._states
        take("quarantined", self._marked(self.quarantined))
        has_label = self._labels[1] >= 0
        for split in ("train", "val", "test", "audit"):
            take(split, has_label & self._of_split(split))
        take("skipped", (states == _STATES.index("skip")) | (states == _STATES.index("cannot_label")))
        take("disputed", states == _STATES.index("disputed"))
        take("queried", self._marked(self.open_queries))
        take("pool", self._of_split("train"))
        return Counts(
            samples=len(self.table) + len(self.withdrawn),
            held_out=int(np.count_nonzero(left)),
            withdrawn=len(self.withdrawn),
            **found,
        )

    @cached_property
    def table(self) -> Samples:
        """The samples as a table."""
        return self.samples if isinstance(self.samples, Samples) else Samples.of(self.samples.values())

    def _marked(self, keys: Mapping[str, object] | set[str]) -> npt.NDArray[np.bool_]:
        """Flag the rows of those ids."""
        wanted = pa.array(list(keys), pa.string())
        return flags(pc.is_in(self.table.table["sample_id"], value_set=wanted))

    def _of_split(self, split: str) -> npt.NDArray[np.bool_]:
        return flags(pc.equal(self.table.table["split"], split))

    @cached_property
    def _spoken(self) -> dict[str, int]:
        """The rows of the samples about which anybody said anything."""
        return self.table.rows_of(self.verdicts)

    @cached_property
    def _states(self) -> npt.NDArray[np.int8]:
        """The place in ``_STATES`` of each sample's verdict."""
        states = np.zeros(len(self.table), dtype=np.int8)
        code = {state: place for place, state in enumerate(_STATES)}
        for key, row in self._spoken.items():
            states[row] = code[self.verdicts[key].state]
        return states

    @cached_property
    def _labels(self) -> tuple[list[str], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Names of labels; each sample's place among them, -1 without a label; the round whose answer decided."""
        column = self.table.table["label"].combine_chunks().dictionary_encode()
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        names: list[str] = column.dictionary.to_pylist()
        codes = np.array(pc.fill_null(column.indices, -1).to_numpy(zero_copy_only=False), dtype=np.int64)
        rounds = np.zeros(len(codes), dtype=np.int64)
        place = {name: index for index, name in enumerate(names)}
        for key, row in self._spoken.items():
            known = self.verdicts[key]
            if known.state == "open":
                continue
            if known.label is None:
                codes[row] = -1
            else:
                codes[row] = place.setdefault(known.label, len(place))
                rounds[row] = known.round
        return list(place), codes, rounds

    @cached_property
    def _waiting(self) -> npt.NDArray[np.bool_]:
        """Flag the samples that have no label, no verdict and no open query, and can be read."""
        undecided: npt.NDArray[np.bool_] = (self._labels[1] < 0) & (self._states == 0)
        return undecided & ~self._marked(self.quarantined) & ~self._marked(self.open_queries)


def freeze(store: Store) -> tuple[FrozenInput, ...]:
    """Return every file from which a ledger is derived, as it is now: segments, then the files that none covers.

    A covered file is not read again: that it is there with its size is seen in the listing.

    Raises:
        InputError: a covered file is gone or has another size.
    """
    inputs, covered = [], {}
    for card, item in segments.usable(store).values():
        inputs.append(item)
        covered.update({each.key: each.size for each in card.covers})
    for drop in store.folders(layout.DROPS):
        key = layout.manifest(drop)
        if covered.pop(key, None) is None:
            with suppress(MissingObjectError):  # its delivery goes on, or was interrupted
                inputs.append(FrozenInput(key=key, sha256=raw.digest_of(store, key)))
    for prefix in (layout.LABELS, layout.RELEASED, layout.WITHDRAWN):
        for entry in store.list(prefix):
            size = covered.pop(entry.key, None)
            if size is None:
                inputs.append(FrozenInput(key=entry.key, sha256=raw.digest_of(store, entry.key)))
            elif size != entry.size:
                raise InputError(f"{entry.key} is not what it was when it was first used; put it back")
    for item in _produced(store):
        if covered.pop(item.key, None) is None:
            inputs.append(item)
    for key in covered:
        raise InputError(f"{key} was used before and is gone; put it back")
    return tuple(inputs)


def _produced(store: Store) -> Iterator[FrozenInput]:
    """Yield the questions and quarantine lists that committed rounds name."""
    for name in store.folders(layout.ROUNDS):
        key = layout.round_file(int(name)) if layout.is_round(name) else ""
        if not key or store.entry(key) is None:
            continue
        record = Round.parse(store.read(key).data, key)
        kinds: tuple[Literal["questions", "quarantine"], ...] = ("questions", "quarantine")
        for kind in kinds:
            if record.is_committed and kind in record.objects:
                digest = record.objects[kind]
                yield FrozenInput(key=layout.objects(record.number) + digest, sha256=digest, kind=kind)


def derive(store: Store, project: Project, inputs: Sequence[FrozenInput], now: datetime) -> Ledger:
    """Read the frozen files and say what every sample is.

    Args:
        store: the project.
        project: its settings, or a round's copy of them.
        inputs: what ``freeze`` returned, now or when a round was planned.
        now: the moment at which queries are judged to have expired.

    Raises:
        InputError: a file is not what its format says, or is no longer what it was when it was frozen.
    """
    fresh = raw.read(store, project, [item for item in inputs if not item.key.startswith(layout.LEDGER)])
    covered = (segments.load(store, project, item) for item in inputs if item.key.startswith(layout.LEDGER))
    tables = concatenate([*covered, fresh])
    samples, repeated = first_lines(tables.samples)
    tables = replace(tables, samples=SAMPLES.empty_table())  # what was sorted is kept, not what it was sorted from
    events, unknown = _events(tables.events, samples)
    samples, withdrawn = _take_withdrawn(samples, tables.withdrawn["sample_id"].to_pylist())
    ledger = Ledger(
        samples=samples,
        verdicts=_verdicts(events, project.queue),
        quarantined=_quarantined(tables),
        repeated=repeated,
        label_events=events.num_rows,
        withdrawn=withdrawn,
        unknown=unknown,
        answers=answers.account(events, tables.questions),
        fresh=fresh,
    )
    for key in withdrawn.keys() & ledger.verdicts.keys():
        del ledger.verdicts[key]
    lifetime = timedelta(days=project.queue.expires_after_days) // timedelta(microseconds=1)
    ledger.open_queries = _open_queries(ledger, tables.questions, raw.microseconds(now) - lifetime)
    _set_reserve_aside(project, ledger, tables.questions)
    return ledger


def current(store: Store, project: Project, now: datetime) -> tuple[tuple[FrozenInput, ...], Ledger]:
    """Freeze the files as they are now, and derive what every sample is.

    Segments that are merged away between the two are no harm: both are done again.

    Raises:
        InputError: see ``freeze`` and ``derive``.
    """
    for _ in range(_TRIES):
        inputs = freeze(store)
        with suppress(segments.SegmentGoneError):
            return inputs, derive(store, project, inputs, now)
    inputs = freeze(store)
    return inputs, derive(store, project, inputs, now)


def audit_place(seed: int, key: str) -> float:
    """Return a sample's place in the audit's order, in [0, 1): it is in the reserve when that is below audit.share."""
    return int.from_bytes(hashlib.sha256(f"audit/{seed}/{key}".encode()).digest()[:6], "big") / 2**48


def check_event(event: LabelEvent, known_ids: Mapping[str, Sample], classes: frozenset[str], where: str) -> None:
    """Refuse an event about a sample or class that the project does not have.

    Raises:
        InputError: with the place and the name.
    """
    if event.sample_id not in known_ids:
        raise InputError(f'{where}: sample "{event.sample_id}" is in no drop of the project')
    if event.label is not None:
        check_class(event.label, classes, where)


def first_lines(lines: pa.Table) -> tuple[Samples, int]:
    """Return each sample once, as the first drop by name says, and the number of lines left out.

    Raises:
        InputError: two lines give one id to two uris.
    """
    fields = ("sample_id", "uri", "label", "split", "group")
    order = _order(lines, "sample_id", lambda key: key.removeprefix(layout.DROPS).split("/", 1)[0])
    found = lines.select(fields).take(order)  # no more than is kept: at a million samples every column counts
    again = repeats(found["sample_id"])
    if not again.any():
        return Samples(found), 0
    first = np.flatnonzero(~again)
    leader = pa.array(np.repeat(first, np.diff(np.append(first, len(again)))))
    other = flags(pc.not_equal(found["uri"], found["uri"].take(leader)))
    for row in np.flatnonzero(other)[:1].tolist():
        line, known = (lines.slice(order[place].as_py(), 1).to_pylist()[0] for place in (row, leader[row].as_py()))
        check_same(
            Sample(*(known[name] for name in fields)),
            Sample(*(line[name] for name in fields)),
            f"{line['key']} line {line['line']}",
        )
    return Samples(found.filter(pa.array(~again))), int(again.sum())


def _take_withdrawn(samples: Samples, keys: Iterable[str]) -> tuple[Samples, dict[str, str]]:
    """Return the samples that are left, and the uris of the others by id."""
    gone = samples.rows_of(keys)
    if not gone:
        return samples, {}
    keep = np.ones(len(samples), dtype=np.bool_)
    keep[list(gone.values())] = False
    taken = samples.table.filter(pa.array(~keep))
    uris = dict(zip(taken["sample_id"].to_pylist(), taken["uri"].to_pylist(), strict=True))
    return Samples(samples.table.filter(pa.array(keep))), uris


def _events(events: pa.Table, samples: Samples) -> tuple[pa.Table, int]:
    """Return the events that count, those of a sample together, and how many are about unknown samples."""
    events = events.take(_order(events, "event_id", lambda key: key))
    events = events.filter(pa.array(~repeats(events["event_id"])))
    known = flags(pc.is_in(events["sample_id"], value_set=samples.table["sample_id"]))
    return events.filter(pa.array(known)).sort_by("sample_id"), int(np.count_nonzero(~known))


def _verdicts(events: pa.Table, settings: QueueSettings) -> dict[str, Verdict]:
    """Return what the answers about each sample come to.

    Args:
        events: those of a sample together.
        settings: how answers are judged.
    """
    ids = events["sample_id"]
    starts = np.flatnonzero(~repeats(ids))
    sizes = np.diff(np.append(starts, len(ids)))
    found: dict[str, Verdict] = {}
    single = starts[sizes == 1] if settings.answers == 1 and settings.agreement <= 1 else starts[:0]
    alone = events.select(["sample_id", "kind", "label", "round"]).take(pa.array(single))
    shared: dict[tuple[str, str | None, int], Verdict] = {}
    for key, *said in zip(*(column.to_pylist() for column in alone.columns), strict=True):
        kind, label, asked = said
        known = shared.get((kind, label, asked))
        if known is None:
            known = Verdict("open") if kind == "withdraw" else Verdict(kind, label, asked)
            shared[(kind, label, asked)] = known
        found[key] = known
    together: dict[str, list[LabelEvent]] = defaultdict(list)
    rest = np.ones(len(ids), dtype=np.bool_)
    rest[single] = False
    for row in events.filter(pa.array(rest)).drop_columns(["key", "line"]).to_pylist():
        together[row["sample_id"]].append(LabelEvent.model_construct(**row))
    return found | {key: verdict(answers, settings) for key, answers in together.items()}


def _quarantined(tables: Tables) -> set[str]:
    """Return the samples that could not be read and were not released since."""
    last: dict[str, int] = {}
    for key, number in zip(*(column.to_pylist() for column in tables.quarantined.columns), strict=True):
        last[key] = max(number, last.get(key, 0))
    for key, number in zip(*(column.to_pylist() for column in tables.released.columns), strict=True):
        if last.get(key, number + 1) <= number:
            del last[key]
    return set(last)


def _open_queries(ledger: Ledger, questions: pa.Table, asked_after: int) -> dict[str, Question]:
    """Return the newest question about each sample that is neither decided nor expired."""
    questions = questions.filter(pc.greater(questions["asked_at"], asked_after))
    questions = questions.sort_by([("key", "ascending"), ("line", "ascending")])
    newest = dict(zip(questions["sample_id"].to_pylist(), questions["json"].to_pylist(), strict=True))
    rows = ledger.table.rows_of(newest)
    waiting = ledger._waiting
    return {
        key: Question.model_validate_json(text) for key, text in newest.items() if key in rows and waiting[rows[key]]
    }


def _set_reserve_aside(project: Project, ledger: Ledger, questions: pa.Table) -> None:
    """Move the reserve to the split ``audit``: by hash, but never what a strategy has asked for before.

    What was once asked for the audit stays there, whatever becomes of the share.
    """
    table, share = ledger.table, project.audit.share
    questions = questions.sort_by([("key", "ascending"), ("line", "ascending")])
    asked = dict(zip(questions["sample_id"].to_pylist(), questions["audit"].to_pylist(), strict=True))
    if share > 0:
        inside = np.fromiter((audit_place(project.seed, key) < share for key in table), np.bool_, len(table))
    else:
        inside = np.zeros(len(table), dtype=np.bool_)
    for key, row in table.rows_of(asked).items():
        inside[row] = asked[key]
    inside &= flags(pc.equal(table.table["split"], "train"))
    if inside.any():
        ledger.samples = table.with_split(inside, "audit")
    for name in ("table", "_waiting"):
        ledger.__dict__.pop(name, None)  # they were of the split, or of the open queries, before


def _order(lines: pa.Table, by: str, order: Callable[[str], str]) -> pa.Array:
    """Return the rows sorted by a column, those that are equal there by their file's order and their place in it."""
    keys = pc.unique(lines["key"]).to_pylist()
    ranked = sorted(keys, key=order)
    rank = pc.index_in(lines["key"], value_set=pa.array(ranked, pa.string()))
    columns = pa.table({"by": lines[by], "rank": rank, "line": lines["line"]})
    return pc.sort_indices(columns, sort_keys=[(name, "ascending") for name in columns.column_names])


def repeats(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Flag the rows of a sorted column that say the same as the row before."""
    again = np.zeros(len(column), dtype=np.bool_)
    if len(column) > 1:
        again[1:] = flags(pc.equal(column.slice(1), column.slice(0, len(column) - 1)))
    return again
