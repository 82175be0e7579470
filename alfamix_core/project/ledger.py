"""The ledger: what every sample is, derived from drops, label events, queues and quarantine.

Nothing about a sample is stored as a flag. Given the same files and the same moment, the ledger is the same.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from alfamix_core.errors import InputError, MissingObjectError
from alfamix_core.project import layout
from alfamix_core.project.consensus import Verdict, verdict
from alfamix_core.records.labels import LabelEvent
from alfamix_core.records.manifest import ManifestLine, Split, sample_id
from alfamix_core.records.project import Project
from alfamix_core.records.query import Question
from alfamix_core.records.record import read_lines
from alfamix_core.records.round import Counts, FrozenInput
from alfamix_core.records.stage import Quarantined
from alfamix_core.storage import Store, absolute_uri


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample as its drop delivered it."""

    sample_id: str
    uri: str
    label: str | None
    split: Split
    group: str | None


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
    """

    samples: dict[str, Sample] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    open_queries: dict[str, Question] = field(default_factory=dict)
    quarantined: set[str] = field(default_factory=set)
    repeated: int = 0
    label_events: int = 0

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
        waiting = [
            sample
            for sample in self.samples.values()
            if sample.split == "audit" and self.undecided(sample) and sample.sample_id not in self.open_queries
        ]
        return sorted(waiting, key=lambda sample: (audit_place(seed, sample.sample_id), sample.sample_id))

    def ordered(self) -> Iterator[Sample]:
        """Yield all samples in order of their ids, which no order of arrival changes."""
        for key in sorted(self.samples):
            yield self.samples[key]

    def counts(self) -> Counts:
        """Count the samples by what is known of them."""
        found: dict[str, int] = defaultdict(int)
        for sample in self.samples.values():
            found["samples"] += 1
            known = self.verdicts.get(sample.sample_id)
            if sample.sample_id in self.quarantined:
                found["quarantined"] += 1
            elif self.label(sample) is not None:
                found[sample.split] += 1
            elif known is not None and known.state in ("skip", "cannot_label"):
                found["skipped"] += 1
            elif known is not None and known.state == "disputed":
                found["disputed"] += 1
            elif sample.sample_id in self.open_queries:
                found["queried"] += 1
            elif self.in_pool(sample):
                found["pool"] += 1
            else:
                found["held_out"] += 1
        return Counts(**found)


def freeze(store: Store) -> tuple[FrozenInput, ...]:
    """Return every file from which a ledger is derived, as it is now."""
    manifests = [layout.manifest(drop) for drop in store.folders(layout.DROPS)]
    keys = [key for key in manifests if store.entry(key) is not None]
    for prefix in (layout.LABELS, layout.QUEUE, layout.QUARANTINE):
        keys += [entry.key for entry in store.list(prefix)]
    return tuple(FrozenInput(key=key, sha256=_digest(store, key)) for key in keys)


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
    ledger = Ledger()
    classes = frozenset(project.classes)
    for item in inputs:
        if item.key.startswith(layout.DROPS):
            _read_manifest(store, project, classes, item, ledger)
    events = _read_events(store, classes, [i for i in inputs if i.key.startswith(layout.LABELS)], ledger)
    ledger.verdicts = {key: verdict(found, project.queue) for key, found in events.items()}
    for item in inputs:
        if item.key.startswith(layout.QUARANTINE):
            for _, bad in read_lines(Quarantined, _lines(store, item), item.key):
                ledger.quarantined.add(bad.sample_id)
    asked: dict[str, bool] = {}
    lifetime = timedelta(days=project.queue.expires_after_days)
    for item in inputs:
        if item.key.startswith(layout.QUEUE):
            for _, question in read_lines(Question, _lines(store, item), item.key):
                asked[question.sample_id] = question.audit
                sample = ledger.samples.get(question.sample_id)
                if sample is not None and ledger.undecided(sample) and now < question.asked_at + lifetime:
                    ledger.open_queries[question.sample_id] = question
    _set_reserve_aside(project, ledger, asked)
    return ledger


def audit_place(seed: int, key: str) -> float:
    """Return a sample's place in the audit's order, in [0, 1): it is in the reserve when that is below audit.share."""
    return int.from_bytes(hashlib.sha256(f"audit/{seed}/{key}".encode()).digest()[:6], "big") / 2**48


def read_samples(
    lines: Iterator[tuple[int, ManifestLine]],
    folder_uri: str,
    prefixes: Sequence[str],
    classes: frozenset[str],
    where: str,
) -> Iterator[tuple[int, Sample]]:
    """Yield (line number, sample) of a manifest, its uris made absolute, its labels checked.

    Args:
        lines: of the manifest.
        folder_uri: of the manifest's folder, to which its uris are relative.
        prefixes: below which it may point elsewhere.
        classes: of the project.
        where: what the user calls the manifest.

    Raises:
        InputError: a uri outside the folder and the prefixes, or a label outside the classes, with its line.
    """
    for number, line in lines:
        try:
            uri = absolute_uri(line.uri, folder_uri, prefixes)
        except InputError as error:
            raise InputError(f"{where} line {number}: {error}") from None
        if line.label is not None and line.label not in classes:
            raise InputError(
                f'{where} line {number}: label "{line.label}" is not a class; the classes are {named(classes)}'
            )
        yield number, Sample(line.id or sample_id(uri), uri, line.label, line.split or "train", line.group)


def add_sample(samples: dict[str, Sample], sample: Sample, where: str) -> bool:
    """Add a sample; return whether it is new.

    Raises:
        InputError: its id is known with another uri.
    """
    known = samples.setdefault(sample.sample_id, sample)
    if known.uri != sample.uri:
        raise InputError(
            f'{where}: id "{sample.sample_id}" is already the sample {known.uri}; it cannot be {sample.uri} as well'
        )
    return known is sample


def check_event(event: LabelEvent, known_ids: dict[str, Sample], classes: frozenset[str], where: str) -> None:
    """Refuse an event about a sample or class that the project does not have.

    Raises:
        InputError: with the place and the name.
    """
    if event.sample_id not in known_ids:
        raise InputError(f'{where}: sample "{event.sample_id}" is in no drop of the project')
    if event.label is not None and event.label not in classes:
        raise InputError(f'{where}: label "{event.label}" is not a class; the classes are {named(classes)}')


def named(classes: frozenset[str]) -> str:
    """Return class names for a message: in order, the first twelve of many."""
    names = sorted(classes)
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _set_reserve_aside(project: Project, ledger: Ledger, asked: dict[str, bool]) -> None:
    """Move the reserve to the split ``audit``: by hash, but never what a strategy has asked for before.

    What was once asked for the audit stays there, whatever becomes of the share.
    """
    for key, sample in ledger.samples.items():
        in_reserve = asked.get(key)
        if in_reserve is None:
            in_reserve = project.audit.share > 0 and audit_place(project.seed, key) < project.audit.share
        if in_reserve and sample.split == "train":
            ledger.samples[key] = replace(sample, split="audit")


def _read_manifest(store: Store, project: Project, classes: frozenset[str], item: FrozenInput, ledger: Ledger) -> None:
    folder_uri = store.uri_of(item.key).rsplit("/", 1)[0] + "/"
    lines = read_lines(ManifestLine, _lines(store, item), item.key)
    for number, sample in read_samples(lines, folder_uri, project.data_prefixes, classes, item.key):
        ledger.repeated += not add_sample(ledger.samples, sample, f"{item.key} line {number}")


def _read_events(
    store: Store, classes: frozenset[str], items: Sequence[FrozenInput], ledger: Ledger
) -> dict[str, list[LabelEvent]]:
    events: dict[str, list[LabelEvent]] = defaultdict(list)
    seen: set[str] = set()
    for item in items:
        for number, event in read_lines(LabelEvent, _lines(store, item), item.key):
            check_event(event, ledger.samples, classes, f"{item.key} line {number}")
            if event.event_id not in seen:
                seen.add(event.event_id)
                events[event.sample_id].append(event)
    ledger.label_events = len(seen)
    return events


def _digest(store: Store, key: str) -> str:
    digest = hashlib.sha256()
    with store.open(key) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _lines(store: Store, item: FrozenInput) -> Iterator[bytes]:
    """Yield the lines of a frozen file, then check that it is what was frozen.

    What was read before the check is thrown away with the error, so nothing is decided on a changed file.
    """
    digest = hashlib.sha256()
    try:
        with store.open(item.key) as stream:
            for line in stream:
                digest.update(line)
                yield line
    except MissingObjectError:
        raise InputError(f"{item.key} was there when the round was planned and is gone; put it back") from None
    if digest.hexdigest() != item.sha256:
        raise InputError(f"{item.key} is not what it was when the round was planned; put it back")
