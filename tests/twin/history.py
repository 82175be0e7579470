"""The ledger's slow twin: what every sample is, recomputed from the full history by dicts, lists and loops.

It shares no line with the product. ``History`` keeps a log of what happened (loads of the inbox, plans, commits);
each question is answered by going through the log from its beginning.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.twin.formats import BadLineError, Event, Line, Settings, kind_of, read


@dataclass(frozen=True)
class SampleState:
    """What one sample is.

    Attributes:
        state: withdrawn, quarantined, train, val, test, audit (these four have a label), skipped, disputed, queried,
            pool or held_out.
        label: the class, None without one.
        round: the round of the answer that gave the label; 0 without a label, or when the manifest gave it, or when
            no round asked.
        split: what the sample is for.
        question: (round, rank) of the open query, None without one.
    """

    state: str
    label: str | None
    round: int
    split: str
    question: tuple[int, int] | None = None


@dataclass
class State:
    """What the whole project is at one moment.

    Attributes:
        samples: every sample that was accepted, withdrawn ones too.
        counts: samples by state, and ``samples`` for all of them.
        pool: ids that may be asked about, ascending.
        reserve: ids that may be asked about for the audit, in the order in which they are asked.
        set_aside: by key, the line that condemns a file that is there.
        lines_set_aside: (key, line) of manifest lines that give a known id another uri.
        findings: event ids that came with more than one content.
        unknown: events about samples that no drop has delivered.
        gone: files that were loaded or set aside once and were not there at the last load.
        open_rounds: rounds that have an open query.
        lines: the manifest line of every sample.
        events: every event, with the moment of its first load.
    """

    samples: dict[str, SampleState]
    counts: dict[str, int]
    pool: list[str]
    reserve: list[str]
    set_aside: dict[str, int]
    lines_set_aside: set[tuple[str, int]]
    findings: set[str]
    unknown: int
    gone: set[str]
    open_rounds: set[int]
    lines: dict[str, Line]
    events: dict[Event, datetime]


@dataclass(frozen=True)
class _Question:
    """A question as its round committed it; greater is newer."""

    round: int
    rank: int
    audit: bool
    asked_at: datetime


@dataclass
class _Known:
    """What the log says up to a point, before any rule judges it."""

    samples: dict[str, Line] = field(default_factory=dict)
    events: dict[Event, datetime] = field(default_factory=dict)  # with the moment of their first load
    events_of: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))
    withdrawn: set[str] = field(default_factory=set)
    released: dict[str, int] = field(default_factory=dict)
    quarantined: dict[str, int] = field(default_factory=dict)
    questions: dict[str, list[_Question]] = field(default_factory=lambda: defaultdict(list))
    tried: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    set_aside: dict[str, int] = field(default_factory=dict)
    lines_set_aside: set[tuple[str, int]] = field(default_factory=set)
    present: set[str] = field(default_factory=set)


class History:
    """All that ever happened to a project.

    Args:
        project_uri: URI of the project, without a slash at its end.
    """

    def __init__(self, project_uri: str):
        self.project_uri = project_uri
        self._log: list[tuple[Any, ...]] = []
        self._plans: dict[int, int] = {}

    def load(self, moment: datetime, files: Mapping[str, bytes], settings: Settings) -> None:
        """Note a load: every file of the inbox as it was at that moment, changed since the last load or not."""
        self._log.append(("load", moment, dict(files), settings))

    def plan(self, number: int) -> None:
        """Note that a round was planned: it freezes all that is in the log now."""
        self._plans[number] = len(self._log)

    def commit(
        self, number: int, planned_at: datetime, questions: list[dict[str, Any]], quarantined: list[str]
    ) -> None:
        """Note that a round was exported; a question has at least sample_id, rank and audit."""
        self._log.append(("commit", number, planned_at, [dict(question) for question in questions], list(quarantined)))

    def abandon(self, number: int) -> None:
        """Note that a round was given up: it asked nothing, and nothing is compared with it."""
        del self._plans[number]

    def state(self, now: datetime, settings: Settings) -> State:
        """Return what every sample is."""
        known = self._replay(len(self._log))
        samples = {name: _judge(name, known, now, settings) for name in sorted(known.samples)}
        counts = Counter(sample.state for sample in samples.values())
        names = ("withdrawn", "quarantined", "train", "val", "test", "audit", "skipped", "disputed", "queried", "pool")
        reserve = [name for name, sample in samples.items() if (sample.state, sample.split) == ("held_out", "audit")]
        contents = Counter(event.event_id for event in known.events)
        return State(
            samples=samples,
            counts={
                **{"samples": len(samples), "reserve": len(reserve), "held_out": counts["held_out"] - len(reserve)},
                **{name: counts[name] for name in names},
            },
            pool=[name for name, sample in samples.items() if sample.state == "pool"],
            reserve=sorted(reserve, key=lambda name: (audit_place(settings.seed, name), name)),
            set_aside={key: line for key, line in known.set_aside.items() if key in known.present},
            lines_set_aside=set(known.lines_set_aside),
            findings={name for name, count in contents.items() if count > 1},
            unknown=sum(event.sample_id not in known.samples for event in known.events),
            gone=set(known.tried) - known.present,
            open_rounds={sample.question[0] for sample in samples.values() if sample.question is not None},
            lines=known.samples,
            events=known.events,
        )

    def new_labels(self, since: int, settings: Settings) -> set[str]:
        """Return the samples that have a label now and had none, or another one, when that round was planned.

        Both labels are judged by the same settings, so that changed settings alone bring no new label. Nor does a
        question alone: there must be an event about the sample, or a sample with a label, that came since.
        """
        before, after = self._replay(self._plans[since]), self._replay(len(self._log))
        names = set()
        for name, line in after.samples.items():
            came = name not in before.samples and line.label is not None
            came = came or any(event not in before.events for event in after.events_of.get(name, []))
            label = _label(name, after, settings)[0]
            then = _label(name, before, settings)[0] if name in before.samples else None
            if came and label is not None and label != then and name not in after.withdrawn:
                names.add(name)
        return names

    def new_samples(self, since: int) -> set[str]:
        """Return the samples that were accepted after that round was planned."""
        return set(self._replay(len(self._log)).samples) - set(self._replay(self._plans[since]).samples)

    def _replay(self, length: int) -> _Known:
        known = _Known()
        for what, *entry in self._log[:length]:
            if what == "load":
                moment, files, settings = entry
                known.present = {key for key in files if kind_of(key)}
                for key in sorted(known.present, key=lambda key: key.encode()):
                    self._load_file(known, key, files[key], moment, settings)
            else:
                number, planned_at, questions, quarantined = entry
                for question in questions:
                    asked = _Question(number, question["rank"], question["audit"], planned_at)
                    known.questions[question["sample_id"]].append(asked)
                for name in quarantined:
                    known.quarantined[name] = max(number, known.quarantined.get(name, 0))
        return known

    def _load_file(self, known: _Known, key: str, data: bytes, moment: datetime, settings: Settings) -> None:
        """Load one file, unless it was tried before and neither its bytes nor what condemned it can have changed."""
        given = (data, settings.classes, settings.prefixes)
        before = known.tried.get(key)
        if before is not None and before[0] == data and (key not in known.set_aside or before == given):
            return
        known.tried[key] = given
        known.set_aside.pop(key, None)
        known.lines_set_aside = {line for line in known.lines_set_aside if line[0] != key}
        try:
            lines = read(key, data, self.project_uri, settings)
        except BadLineError as error:
            known.set_aside[key] = error.args[0]
            return
        for number, line in lines:
            if kind_of(key) == "samples":
                first = known.samples.setdefault(line.sample_id, line)
                if first.uri != line.uri:
                    known.lines_set_aside.add((key, number))
            elif kind_of(key) == "events":
                if line not in known.events:
                    known.events[line] = moment
                    known.events_of[line.sample_id].append(line)
            elif kind_of(key) == "withdrawn":
                known.withdrawn.add(line)
            else:
                name, last = line
                known.released[name] = max(last, known.released.get(name, 0))


def audit_place(seed: int, name: str) -> float:
    """Return a sample's place in the order of the audit, in [0, 1)."""
    return int(hashlib.sha256(f"audit/{seed}/{name}".encode()).hexdigest()[:12], 16) / 16**12


def _newest(questions: list[_Question]) -> _Question | None:
    return max(questions, key=lambda question: (question.round, question.rank), default=None)


def _split(name: str, known: _Known, settings: Settings) -> str:
    """Return what a sample is for: what its manifest says, unless it is in the audit."""
    split = known.samples[name].split
    if split != "train":
        return split
    newest = _newest(known.questions.get(name, []))
    if newest is not None:
        return "audit" if newest.audit else "train"
    return "audit" if audit_place(settings.seed, name) < settings.audit_share else "train"


def _verdict(name: str, known: _Known, settings: Settings) -> tuple[str, str | None, int]:
    """Return what the answers about a sample come to: (kind, disputed, open or '', label, round)."""
    asked = bool(known.questions.get(name))
    if not asked and (_split(name, known, settings) in ("test", "audit") or not settings.accept_unasked):
        return "", None, 0
    standing: dict[str, tuple[Any, ...]] = {}
    for event in known.events_of.get(name, []):
        effective = min(event.time, known.events[event])
        order = (effective, event.time, event.event_id, event.kind, event.label or "", event.round)
        if event.annotator not in standing or order > standing[event.annotator]:
            standing[event.annotator] = order
    answers = [(kind, label, number) for *_, kind, label, number in standing.values() if kind != "withdraw"]
    if not answers:
        return "", None, 0
    if len(answers) < settings.answers:
        return "open", None, 0
    votes = Counter((kind, label) for kind, label, _ in answers)
    (kind, label), most = votes.most_common(1)[0]
    second = max((count for answer, count in votes.items() if answer != (kind, label)), default=0)
    agreed, majority = most >= settings.agreement and most > second, 2 * most > len(answers)
    decided = agreed if settings.agreement >= 1 else majority
    if decided:
        return kind, label or None, max(number for *answer, number in answers if answer == [kind, label])
    return ("disputed" if len(answers) >= settings.max_answers else "open"), None, 0


def _label(name: str, known: _Known, settings: Settings) -> tuple[str | None, int, str]:
    """Return the label of a sample, the round that decided it, and the verdict's name."""
    verdict, label, number = _verdict(name, known, settings)
    if verdict in ("", "open"):
        return known.samples[name].label, 0, verdict
    return label, number if label is not None else 0, verdict


def _is_quarantined(name: str, known: _Known) -> bool:
    return known.quarantined.get(name, 0) > known.released.get(name, 0)


def _judge(name: str, known: _Known, now: datetime, settings: Settings) -> SampleState:
    """Return what one sample is."""
    split = _split(name, known, settings)
    if name in known.withdrawn:
        return SampleState("withdrawn", None, 0, split)
    label, number, verdict = _label(name, known, settings)
    if _is_quarantined(name, known):
        return SampleState("quarantined", label, number, split)
    if label is not None:
        return SampleState(split, label, number, split)
    if verdict in ("skip", "cannot_label"):
        return SampleState("skipped", None, number, split)
    if verdict == "disputed":
        return SampleState("disputed", None, 0, split)
    newest = _newest(known.questions.get(name, []))
    if newest is not None and newest.asked_at > now - timedelta(days=settings.expires_after_days):
        return SampleState("queried", None, 0, split, (newest.round, newest.rank))
    return SampleState("pool" if split == "train" else "held_out", None, 0, split)
