"""One inbox file: read by columns or by lines it says the same, and a bad line sets the whole file aside."""

import hashlib
import json
import re
import tempfile
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alfamix_core.errors import InputError
from alfamix_core.project.inbox import reading
from alfamix_core.project.inbox.listing import InboxFile
from alfamix_core.project.inbox.reading import ROWS, FileReader, read
from alfamix_core.records.manifest import sample_id
from alfamix_core.records.project import Project

CLASSES = frozenset(["cat", "dog", "Großtrappe, männlich"])
PREFIXES = ("s3://pictures", "file:///data/one")
KEY = "drops/a/manifest.jsonl"
FOLDER = "file:///project/drops/a/"

TIMES = [
    *(
        "2026-03-01T12:00:00Z",
        "2026-03-01T12:00:00+00:00",
        "2026-03-01 12:00:00.5-03:30",
        "2026-03-01T12:00:00.123456Z",
    ),
    *("2026-03-01T12:00:00.1234567Z", "2026-03-01T12:00Z", "2026-03-01", "2026-03-01T12:00:00", "2026-02-29T12:00:00Z"),
    *(
        "2024-02-29T23:59:59Z",
        "2026-03-01T24:00:00Z",
        "2026-03-01T23:59:60Z",
        "2026-13-01T00:00:00Z",
        "1969-12-31T23:59:59.9Z",
    ),
    *("0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59.999999Z"),
    *("0000-01-01T00:00:00Z", "2026-03-01T12:00:00+23:59", "2026-03-01T12:00:00+24:00", "2026-03-01T12:00:00-00:00"),
    *(
        "2026-03-01t12:00:00z",
        "2026-03-01_12:00:00Z",
        " 2026-03-01T12:00:00Z",
        "1772366400",
        "２０２６-03-01T12:00:00Z",
    ),
    *("2026-03-01T12:00:00+14:60", "2026-03-01T12:00:00 Z", "2026-03-01T12:00:00Z\n", "", "now"),
]
TEXTS = [
    *("", "a", "A-1_b.c", "-a", "a\n", "ä", "猫", "a" * 128, "a" * 129, "x" * 200, "x" * 201, "猫" * 200, "\ud800"),
    *(
        "\x00",
        "\u2028",
        "🦉" * 200,
        "cat",
        "dog",
        "Großtrappe, männlich",
        "owl",
        "train",
        "val",
        "test",
        "audit",
        "label",
    ),
]
URIS = [
    *("a.png", "sub/a.png", "./a.png", "../a.png", "a//b.png", ".a", "/a.png", "a b.png", "ä.png", "a%20b.png", "a\\b"),
    *(
        "s3://pictures/a.png",
        "s3://pictures",
        "s3://pictures/",
        "s3://picturesque/a.png",
        "S3://pictures/a",
        "s3://other/a",
    ),
    *(
        "file:///data/one/x",
        "file:///data/one/../two/x",
        "file:///data/two/x",
        "http://x/a",
        "x" * 300,
        "s3://pictures/" + "y" * 300,
    ),
]
NUMBERS = [0, 1, 7, -1, 2**31 - 1, 2**31, 2**63, 1.0, 1.5, -0.0, 1e300, True, "1", None]
ANY = [*TEXTS, *URIS, *TIMES, *NUMBERS, [], {}, ["a"], {"uri": "a"}, float("nan")]


def fields(required, optional):
    return st.fixed_dictionaries(
        {name: st.sampled_from(values) for name, values in required.items()},
        optional={name: st.sampled_from(values) for name, values in optional.items()},
    )


GOOD = {
    "samples": fields(
        {"uri": ["a.png", "sub/b.png", "s3://pictures/a.png", "s3://pictures/ä ö.png", "file:///data/one/x"]},
        {
            "id": ["a", "B.1", "a" * 128, None],
            "label": ["cat", "Großtrappe, männlich", None],
            "split": ["train", "val", "test", None],
            "group": ["g", "", "猫" * 200, None],
        },
    ),
    "events": fields(
        {
            "event_id": ["e", "猫" * 200, " "],
            "sample_id": ["a", ""],
            "kind": ["label"],
            "label": ["cat", "Großtrappe, männlich"],
            "annotator": ["ann", "Ann Ä."],
            "time": TIMES[:4],
        },
        {"round": [0, 3, 2**31 - 1]},
    ),
}
GOOD["events"] |= fields(
    {"event_id": ["e"], "sample_id": ["a"], "kind": ["skip", "withdraw"], "annotator": ["x"], "time": TIMES[:4]},
    {"label": [None]},
)
NAMES = {
    "samples": ["uri", "id", "label", "split", "group", "URI", "note"],
    "events": ["event_id", "sample_id", "kind", "label", "annotator", "time", "round", "note"],
}


@st.composite
def lines(draw, kind):
    """A line of a file: as its format says, or with one thing about it that may not be."""
    record = draw(GOOD[kind])
    how = draw(st.sampled_from(["good"] * 6 + ["field", "without", "text", "bytes"]))
    if how == "field":
        record = {**record, draw(st.sampled_from(NAMES[kind])): draw(st.sampled_from(ANY))}
    elif how == "without":
        record.pop(draw(st.sampled_from(sorted(record))))
    text = json.dumps(record, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    if how == "text":
        text = draw(
            st.sampled_from(
                [
                    *(
                        b"",
                        b" ",
                        b"{}",
                        b"[]",
                        b"null",
                        b"{",
                        text + text,
                        text + b" " + text,
                        text + b"\r",
                        b" " + text,
                    ),
                    *(text + b" ", b"\xef\xbb\xbf" + text, text[:-1], text[:-1] + b",}", b"[" + text + b"]"),
                    *(text.replace(b'"', b"'"), text[:-1] + b', "uri": "twice.png"}', text + b"//", text + b","),
                    *(text.replace(b", ", b",\n"), text.replace(b", ", b" ,\t"), text[:-1] + b', "kind": "skip"}'),
                    *(text.replace(b'"a', b'"\\u0061'), text.replace(b"a", b"\\", 1), text.replace(b"e", b"\x00", 1)),
                    text.replace(b"a", b"\xff"),
                ]
            )
        )
    elif how == "bytes":
        place = draw(st.integers(0, len(text) - 1))
        text = text[:place] + draw(st.binary(max_size=2)) + text[place + draw(st.integers(0, 2)) :]
    return text


def files(kind):
    ends = st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b"\n\n"])
    return st.builds(
        lambda found, end, last: end.join(found) + last, st.lists(lines(kind), max_size=4), ends, ends | st.just(b"")
    )


def outcome(act, path):
    """Return the rows that were written, or the line that says why there are none."""
    try:
        act(path)
    except InputError as error:
        return str(error)
    return pq.read_table(path)


def check(kind, data):
    """Read a file both ways; return whether columns were enough, and what it comes to."""
    with tempfile.TemporaryDirectory() as folder:
        raw, fast = Path(folder) / "raw", Path(folder) / "fast"
        raw.write_bytes(data)
        reader = FileReader(KEY, kind, raw, CLASSES, PREFIXES, FOLDER)
        slow = outcome(reader.lines, Path(folder) / "slow")
        surely = reader.columns(fast)
        if surely:
            assert pq.read_table(fast) == slow
            assert pq.read_schema(fast).equals(ROWS[kind])
        assert outcome(reader.read, Path(folder) / "whole") == slow
        return surely, slow


@pytest.fixture
def any_size(monkeypatch):
    """Let small files be read by columns too."""
    monkeypatch.setattr(reading, "_WORTH_BYTES", 0)


@pytest.mark.parametrize("kind", ["samples", "events"])
def test_read_by_columns_a_file_says_what_it_says_by_lines(kind, any_size):
    settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))(
        given(files(kind))(lambda data: check(kind, data) and None)
    )()


VALID = {
    "samples": {"uri": "a.png"},
    "events": {"event_id": "e", "sample_id": "a", "kind": "skip", "annotator": "ann", "time": TIMES[0]},
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in NAMES for name in NAMES[kind]])
def test_a_value_is_right_by_columns_only_if_it_is_right_by_lines(kind, name, any_size):
    for value in ANY:
        check(kind, json.dumps(VALID[kind] | {name: value}).encode() + b"\n")


@pytest.mark.parametrize("kind", ["samples", "events"])
def test_a_file_as_our_own_tools_write_it_is_read_by_columns(kind, any_size, monkeypatch):
    """Otherwise the large ones are slow; here in blocks of two lines, with fields that come and go."""
    monkeypatch.setattr(reading, "_BLOCK_BYTES", 200)
    wide = {"samples": {"id": "a", "label": "cat", "split": "test", "group": "g"}, "events": {"round": 3}}[kind]
    each = [VALID[kind], VALID[kind] | wide] * 20
    data = b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in each)
    surely, rows = check(kind, data)
    assert (surely, rows.num_rows) == (True, 40)


def test_what_a_line_leaves_out_is_filled_in(any_size):
    _, rows = check(
        "samples", b'{"uri": "a.png"}\n{"uri": "s3://pictures/b.png", "id": "b", "label": "cat", "split": "val"}'
    )
    assert [tuple(row.values()) for row in rows.to_pylist()] == [
        (sample_id(FOLDER + "a.png"), FOLDER + "a.png", None, "train", None, KEY, 1),
        ("b", "s3://pictures/b.png", "cat", "val", None, KEY, 2),
    ]


@pytest.fixture
def deliver(place):
    """Put bytes at a key, and read them as a load does; return what they come to."""

    def deliver(key, data, kind, **fields):
        place.create(key, data)
        entry = place.entry(key)
        project = Project(name="p", classes=("cat", "dog"), data_prefixes=PREFIXES, **fields)
        with tempfile.TemporaryDirectory() as folder:
            found = read(place, project, InboxFile(key, kind, entry.size, entry.tag), Path(folder))
            return found, pq.read_table(found.path) if found.path else None

    return deliver


EVENT = json.dumps(VALID["events"] | {"kind": "label", "label": "cat"}).encode() + b"\n"


@pytest.mark.parametrize(
    ("key", "kind", "data", "reason"),
    [
        ("labels/a.jsonl", "events", EVENT + b"{", r"labels/a.jsonl line 2: is not JSON \("),
        ("labels/a.jsonl", "events", EVENT + b"\n" + EVENT[:9], r"labels/a.jsonl line 3: is not JSON \("),
        (
            "labels/a.jsonl",
            "events",
            EVENT.replace(b"cat", b"cow"),
            r'labels/a.jsonl line 1: label "cow" is not a class; the classes are cat, dog$',
        ),
        ("labels/a.jsonl", "events", EVENT.replace(b"e", b"\xff", 1), "labels/a.jsonl line 1: is not JSON"),
        (
            "drops/a/manifest.jsonl",
            "samples",
            b'{"uri": "s3://others/a.png"}',
            r'drops/a/manifest.jsonl line 1: uri "s3://others/a.png" must be relative to the folder',
        ),
        (
            "drops/a/manifest.jsonl",
            "samples",
            b'{"uri": "../b/a.png"}',
            r'drops/a/manifest.jsonl line 1: uri "../b/a.png"',
        ),
        (
            "withdrawn/a.jsonl",
            "withdrawn",
            b'{"sample_id": "a"}',
            r'withdrawn/a.jsonl line 1: field "time" is missing$',
        ),
        (
            "released/a.jsonl",
            "released",
            b'{"sample_id": "a", "round": 0, "time": "2026-03-01T12:00:00Z"}',
            r'released/a.jsonl line 1: field "round" ',
        ),
    ],
)
def test_a_file_with_a_bad_line_is_set_aside_as_a_whole_with_file_line_and_reason(deliver, key, kind, data, reason):
    found, rows = deliver(key, data, kind)
    assert rows is None
    assert re.match(reason, found.reason)
    assert found.reason.isprintable()
    assert (found.size, found.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_a_file_without_a_line_says_nothing_and_is_no_fault(deliver):
    for kind, key in (("events", "labels/a.jsonl"), ("samples", "drops/a/manifest.jsonl")):
        found, rows = deliver(key, b"\n", kind)
        assert (found.reason, rows.num_rows) == ("", 0)


def test_a_line_may_have_a_mebibyte_and_one_of_more_costs_little_memory(deliver, tmp_path):
    """A file of 64 MiB in one line is refused after a few MiB."""
    large = EVENT[:-1] + b" " * (2**20 - len(EVENT)) + b"\n"
    assert deliver("labels/a.jsonl", large * 2, "events")[1].num_rows == 2
    (tmp_path / "raw").write_bytes(EVENT + EVENT[:-2] + b" " * 2**26 + b"}\n")
    tracemalloc.start()
    try:
        reader = FileReader("labels/b.jsonl", "events", tmp_path / "raw", CLASSES, PREFIXES, FOLDER)
        with pytest.raises(InputError) as refused:
            reader.read(tmp_path / "rows")
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()
    assert str(refused.value) == "labels/b.jsonl line 2: must have at most 1048576 bytes (1 MiB), but is longer"


def test_copied_pictures_may_be_named_by_any_manifest_and_others_of_the_project_may_not(deliver, place):
    below = place.uri_of("files/" + "ab" * 32)
    line = json.dumps({"uri": below}).encode()
    assert deliver("drops/a/manifest.jsonl", line, "samples")[1]["uri"].to_pylist() == [below]
    line = json.dumps({"uri": place.uri_of("project.json")}).encode()
    assert deliver("drops/b/manifest.jsonl", line, "samples")[1] is None


def test_corrections_are_rows_of_one_table(deliver):
    moment = "2026-03-01T12:00:00Z"
    _, gone = deliver("withdrawn/a.jsonl", json.dumps({"sample_id": "a", "time": moment}).encode(), "withdrawn")
    _, back = deliver(
        "released/a.jsonl", json.dumps({"sample_id": "a", "round": 3, "time": moment}).encode(), "released"
    )
    time = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert [list(row.values()) for table in (gone, back) for row in table.to_pylist()] == [
        ["withdrawn", "a", 0, "", time, "withdrawn/a.jsonl", 1],
        ["released", "a", 3, "", time, "released/a.jsonl", 1],
    ]


@given(st.binary(max_size=60))
def test_whatever_a_file_holds_it_is_read_or_one_line_says_why_not(data):
    for kind in ("samples", "events", "withdrawn", "released"):
        for content in (data, EVENT + data):
            with tempfile.TemporaryDirectory() as folder:
                raw = Path(folder) / "raw"
                raw.write_bytes(content)
                found = outcome(FileReader(KEY, kind, raw, CLASSES, PREFIXES, FOLDER).read, Path(folder) / "rows")
            assert not isinstance(found, str) or found.startswith(f"{KEY} line ")
