"""Whatever is in a file, a command succeeds or says one line and ends with status 2, and the project is as it was.

Hypothesis damages good files: fields with other values, missing and unknown ones, cut and broken bytes. `make faults`
tries many more, other ones each time.
"""

import csv
import hashlib
import io
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from alfamix_core.project import planning
from alfamix_core.records.lock import Holder
from alfamix_core.storage import file_uri, open_store
from alfamix_core.telemetry.events import parse
from pipelines.cli import app
from pipelines.engines.progress import Run
from pipelines.services.s3_events import keys_of

SECONDS = 20  # for one command, on a busy machine
FEW = settings(max_examples=60, deadline=None, derandomize=True, database=None)
MANY = settings(max_examples=1_000, deadline=None, suppress_health_check=list(HealthCheck))

TIME = "2026-01-02T03:04:05Z"
SAMPLE = {"uri": "new.png", "id": "new", "label": "cat", "split": "test", "group": "camera-1"}
EVENT = {
    **{"event_id": "e1", "sample_id": "a", "kind": "label", "label": "cat"},
    **{"annotator": "ann", "round": 0, "time": TIME},
}
QUESTION = {
    **{"sample_id": "b", "uri": "file:///b.png", "round": 1, "rank": 0, "audit": False},
    **{"suggestion": "cat", "thumbnail": "", "asked_at": "2999-01-01T00:00:00Z"},
}
QUARANTINED = {"sample_id": "c", "uri": "file:///c.png", "reason": "empty file"}
LOCK = {
    **{
        "revision": 1,
        "fence": 1,
        "holder": {"run_id": "r", "host": "h", "boot": "b", "namespace": "n", "pid": 3, "started": "1"},
    },
    **{"until": "2999-01-01T00:00:00Z"},
}
CHAMPION = {"revision": 0, "fence": 1, "round": 1, "metrics": {"accuracy": 0.5}}
SERVING = {
    **{"revision": 3, "fence": 1, "round": 1, "metrics": {"accuracy": 0.5}, "before": [1, 2], "newest": 2},
}
PROMOTION = {
    **{"promoted": True, "reason": "better", "metrics": {"accuracy": 0.5}, "champion_round": 1, "waits": False},
    **{
        "champion_metrics": {"accuracy": 0.4},
        "recalls": {"cat": 1.0},
        "champion_recalls": {"cat": 1.0},
        "split": "test",
    },
}
DECISION = {
    **{
        "revision": 2,
        "kind": "promote",
        "round": 1,
        "model": "ab",
        "reason": "x",
        "metrics": {"accuracy": 0.5},
        "time": TIME,
    },
    **{"champion_round": None, "champion_metrics": {}},
}
RELEASED = {"sample_id": "c", "round": 1, "time": TIME}
WITHDRAWN = {"sample_id": "c", "reason": "consent", "time": TIME}
ANSWER = {
    **{"sample_id": "a", "label": "cat", "kind": "", "annotator": "", "time": TIME, "round": "0"},
    **{"uri": "", "thumbnail": "", "suggestion": ""},
}
S3_EVENT = {
    "Records": [
        {
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": "bucket"}, "object": {"key": "project/drops/a/manifest.jsonl"}},
        }
    ]
}
BRIDGE = {
    "detail-type": "Object Created",
    "detail": {"bucket": {"name": "bucket"}, "object": {"key": "project/drops/a/manifest.jsonl"}},
}
REPORTED = (
    {"alfamix": "progress", "stage": "train", "shard": "", "done": 1, "total": 2, "unit": "epochs"},
    {"alfamix": "failed", "stage": "train", "shard": "", "status": 2, "line": "x"},
    {"alfamix": "round", "number": 1, "state": "planned", "text": "x"},
)

# fmt: off
TEXTS = st.sampled_from([
    "", " ", "a", "b", "cat", "\x00", "\x1b[31m", "\n", "../../etc", "file:///", "s3://x/y", "s3://", "%00", "\u2028",
    "é" * 300, "x" * 5_000, "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "1", "-1", "1e9", "[red]", '"', ",",
])
BYTES = st.sampled_from([
    b"", b"\n", b"null", b"{}", b"[]", b'""', b'"', b"\xef\xbb\xbf{}", b"\xff\xfe{\x00}\x00", b'"\\ud800"', b"a,b\n1",
    b"[" * 20_000, b'{"a":' * 20_000, b"1" * 5_000, b"\x00" * 100, b"PK\x03\x04", b'{"uri": "a.png"} {"uri": "b.png"}',
])
# fmt: on
NUMBERS = st.sampled_from([0, -1, 1, 2**31, 2**63, 2**64, 10**30, 10**400, 1e308, float("nan"), float("inf"), -0.0])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | st.text(max_size=12) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | TEXTS, inner, max_size=3),
    max_leaves=4,
)
JUNK = st.binary(max_size=60) | BYTES


@st.composite
def damaged(draw: st.DrawFn, good: dict[str, object]) -> dict[str, object]:
    """A good record, or one with another value, without a field, or with an unknown field; at any depth."""
    record = json.loads(json.dumps(good))
    for _ in range(draw(st.integers(0, 2))):
        place = record
        while True:
            key = draw(st.sampled_from([*place, "colour"]))
            inner = place.get(key)
            if isinstance(inner, list) and inner:
                inner = inner[0]
            if not (isinstance(inner, dict) and inner and draw(st.integers(0, 3))):
                break
            place = inner
        if draw(st.integers(0, 3)):
            place[key] = draw(VALUES)
        else:
            place.pop(key, None)
    return record


@st.composite
def broken(draw: st.DrawFn, text: bytes) -> bytes:
    """The bytes as they are, or cut, with others in between, or others altogether."""
    how = draw(st.sampled_from(["whole", "whole", "cut", "within", "other"]))
    if how == "other":
        return draw(JUNK)
    place = draw(st.integers(0, len(text)))
    if how == "cut":
        return text[:place]
    return text[:place] + draw(JUNK) + text[place:] if how == "within" else text


def lines_of(*good: dict[str, object]) -> st.SearchStrategy[bytes]:
    """A JSON Lines file of such records."""
    records = st.lists(st.one_of(*(damaged(each) for each in good)), min_size=1, max_size=3)
    return records.map(lambda found: b"".join(json.dumps(each).encode() + b"\n" for each in found)).flatmap(broken)


def document_of(good: dict[str, object]) -> st.SearchStrategy[bytes]:
    """A JSON file of one such record."""
    return damaged(good).map(lambda record: json.dumps(record).encode()).flatmap(broken)


@st.composite
def tables(draw: st.DrawFn, *columns: str) -> bytes:
    """A CSV file, most of whose columns are known."""
    header = draw(st.lists(st.sampled_from(columns) | TEXTS, max_size=4)) if draw(st.booleans()) else list(columns[:2])
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=draw(st.sampled_from(["\n", "\r\n", "\r"])))
    writer.writerow(header)
    for _ in range(draw(st.integers(0, 3))):
        width = draw(st.sampled_from([len(header)] * 3 + [0, 1, 9]))
        names = header[:width] + [""] * (width - len(header))
        good = [str(ANSWER.get(name, "")) for name in names]
        writer.writerow([draw(TEXTS | st.text(max_size=8)) if draw(st.integers(0, 3)) == 0 else each for each in good])
    return draw(broken(out.getvalue().encode("utf-8", "replace")))


def lists_of(*good: str) -> st.SearchStrategy[bytes]:
    """A text of such lines."""
    lines = st.lists(st.sampled_from(good) | TEXTS | st.text(max_size=8), max_size=3)
    return lines.map(lambda found: "\n".join(found).encode("utf-8", "replace")).flatmap(broken)


class Place:
    """A small project that every example gets a copy of."""

    def __init__(self, folder: Path):
        self._origin = folder / "birds"
        made = CliRunner().invoke(app, ["init", str(self._origin), "--classes", "cat,dog,owl", "--strategy", "random"])
        assert made.exit_code == 0, made.output
        self.put(
            self._origin,
            "drops/first/manifest.jsonl",
            b"".join(b'{"uri": "%c.png", "id": "%c"}\n' % (c, c) for c in b"abc"),
        )
        self.config = json.loads((self._origin / "project.json").read_bytes())
        with self.copy() as project:
            begun, _ = planning.begin(open_store(file_uri(project)), Holder(run_id="r"), datetime.now(UTC))
            assert begun is not None
            self.round = json.loads(begun.document())
            self.ledger = {key: data for key, data in tree(project).items() if key.startswith("ledger/")}

    @staticmethod
    def put(project: Path, key: str, data: bytes) -> Path:
        path = project / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def holds(
        self, key: str, data: bytes, *commands: tuple[str, ...], beside: Mapping[str, bytes] | None = None
    ) -> None:
        """Put a file into the project, with others beside it; each command must survive it and change nothing."""
        with self.copy() as project:
            for name, content in {**(beside or {}), key: data}.items():
                self.put(project, name, content)
            for command in commands:
                before = tree(project)
                bear(*(part.format(project=project) for part in command))
                assert tree(project) == before

    def takes(self, name: str, data: bytes, *commands: tuple[str, ...]) -> None:
        """Give a file to each command: it is taken in, or the project is as it was."""
        with self.copy() as project:
            path = self.put(project.parent, name, data)
            for command in commands:
                before = tree(project)
                status = bear(*(part.format(project=project, file=path) for part in command))
                assert status == 0 or tree(project) == before
            assert bear("status", str(project)) == 0, "what was taken in can be read"

    @contextmanager
    def copy(self) -> Iterator[Path]:
        """Yield a project of one's own."""
        with tempfile.TemporaryDirectory(prefix="alfamix-fuzz-") as folder:
            yield Path(shutil.copytree(self._origin, Path(folder) / "birds"))


def tree(project: Path) -> dict[str, bytes]:
    """Every file of the project, but for the store's own."""
    files = (path for path in project.rglob("*") if path.is_file() and ".alfamix" not in path.parts)
    return {str(path.relative_to(project)): path.read_bytes() for path in files}


def bear(*command: str) -> int:
    """Run a command, which may refuse what it finds but not break; return its status."""
    began = time.monotonic()
    result = CliRunner().invoke(app, list(command), prog_name="alfamix")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert time.monotonic() - began < SECONDS
    found = command[0] == DOCTOR[0]  # 1: it found something
    assert result.exit_code in ((0, 1, 2) if found else (0, 2)), result.output
    if result.exit_code == 2:
        assert result.stdout == ""
        assert result.stderr.startswith("alfamix: ")
        assert len(result.stderr.rstrip("\n").split("\n")) == 1, result.stderr
    return result.exit_code


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as environment:
        folder = tmp_path_factory.mktemp("fuzz")
        environment.setenv("ALFAMIX_WORK", str(folder / "work"))
        yield Place(folder)


STATUS = ("status", "{project}")
PLAN = ("round", "{project}", "--plan")
DOCTOR = ("doctor", "{project}")
LIST = ("queue", "list", "{project}")


def in_project(
    key: str, good: st.SearchStrategy[bytes], *commands: tuple[str, ...], beside: Mapping[str, bytes] | None = None
) -> Callable[[settings, Place], None]:
    """The property of a file in the project."""

    def check(how: settings, place: Place) -> None:
        how(given(good)(lambda data: place.holds(key, data, *commands, beside=beside)))()

    return check


def given_to(
    name: str, good: st.SearchStrategy[bytes], *commands: tuple[str, ...]
) -> Callable[[settings, Place], None]:
    """The property of a file that a person gives to a command."""

    def check(how: settings, place: Place) -> None:
        how(given(good)(lambda data: place.takes(name, data, *commands)))()

    return check


def config(how: settings, place: Place) -> None:
    """The property of project.json, whose good form the project has."""
    in_project("project.json", document_of(place.config), STATUS, PLAN)(how, place)


def ledger(part: str) -> Callable[[settings, Place], None]:
    """The property of a file of a table that ingest wrote, beside the others as they were written."""

    def check(how: settings, place: Place) -> None:
        (key, *_) = sorted(key for key in place.ledger if re.fullmatch(part, key))
        in_project(key, broken(place.ledger[key]), STATUS, PLAN, DOCTOR, beside=place.ledger)(how, place)

    return check


def round_record(how: settings, place: Place) -> None:
    """The property of a round's record, whose good form a round has written."""
    in_project("rounds/000001/round.json", document_of(place.round), STATUS, PLAN)(how, place)


def promotion(how: settings, place: Place) -> None:
    """The property of the promotion in a committed round's record."""
    committed = document_of(place.round | {"state": "exported", "promotion": PROMOTION})
    in_project("rounds/000001/round.json", committed, STATUS, PLAN, DOCTOR)(how, place)


def in_round(
    name: str, good: st.SearchStrategy[bytes], *commands: tuple[str, ...]
) -> Callable[[settings, Place], None]:
    """The property of an object that a committed round names."""

    def check(how: settings, place: Place) -> None:
        def holds(data: bytes) -> None:
            digest = hashlib.sha256(data).hexdigest()
            record = json.dumps(place.round | {"state": "exported", "objects": {name: digest}}).encode()
            beside = {"rounds/000001/round.json": record}
            place.holds(f"rounds/000001/objects/{digest}", data, *commands, beside=beside)

        how(given(good)(holds))()

    return check


PROPERTIES = {
    "project.json": config,
    "round.json": round_record,
    "manifest": given_to("m.jsonl", lines_of(SAMPLE), ("drop", "{project}", "{file}")),
    "manifest in the project": in_project("drops/second/manifest.jsonl", lines_of(SAMPLE), STATUS, PLAN),
    "label events": in_project(
        "labels/batch.jsonl", lines_of(EVENT, EVENT | {"sample_id": "b", "kind": "skip"}), STATUS
    ),
    "questions": in_round("questions", lines_of(QUESTION), STATUS, LIST),
    "quarantine": in_round("quarantine", lines_of(QUARANTINED), STATUS),
    "lock": in_project("lock.json", document_of(LOCK), STATUS, PLAN),
    "champion": in_project("champion.json", document_of(CHAMPION) | document_of(SERVING), STATUS, PLAN, DOCTOR),
    "promotion": promotion,
    "decision": in_project("decisions/000002.json", document_of(DECISION), STATUS, PLAN, DOCTOR),
    "withdrawn": in_project("withdrawn/batch.jsonl", lines_of(WITHDRAWN), STATUS, PLAN),
    "released": in_project("released/batch.jsonl", lines_of(RELEASED), STATUS, PLAN),
    "a list of samples to withdraw": given_to(
        "gone.txt", lists_of("a", "b", "{uri}"), ("drop", "{project}", "{file}", "--withdraw")
    ),
    "samples of the ledger": ledger(r"ledger/samples/[^/]*\.parquet"),
    "log of the ledger": ledger(r"ledger/samples/_delta_log/0+1\.json"),
    "inbox of the ledger": ledger(r"ledger/inbox/[^/]*\.parquet"),
    "answers": given_to("answers.csv", tables(*ANSWER), ("labels", "import", "{project}", "{file}")),
    "oracle": given_to("truth.csv", tables("sample_id", "label"), ("answer", "{project}", "--oracle", "{file}")),
}


@pytest.mark.parametrize("kind", PROPERTIES)
def test_a_damaged_file_is_refused_in_one_line_or_taken(kind: str, place: Place):
    PROPERTIES[kind](FEW, place)


@pytest.mark.faults
@pytest.mark.parametrize("kind", PROPERTIES)
def test_a_thousand_damaged_files_are_refused_in_one_line_or_taken(kind: str, place: Place):
    PROPERTIES[kind](MANY, place)


@settings(FEW, max_examples=300)
@given(
    document_of(S3_EVENT) | document_of(BRIDGE) | document_of({"Type": "Notification", "Message": json.dumps(S3_EVENT)})
)
def test_a_damaged_message_of_s3_is_no_event_or_one_about_the_project(data: bytes):
    with suppress(ValueError):
        assert keys_of(data.decode(errors="replace"), "s3://bucket/project") <= {"drops/a/manifest.jsonl"}


@settings(FEW, max_examples=300)
@given(st.sampled_from(REPORTED).flatmap(lines_of))
def test_lines_of_a_log_that_are_not_events_are_ignored(data: bytes):
    for line in data.decode(errors="replace").splitlines():
        event = parse(line)
        assert event is None or "alfamix" in event
        if event is not None:
            Run().take(event)


def test_an_event_that_no_stage_can_have_written_is_ignored():
    assert parse('{"alfamix": ' + "[" * 100_000) is None
