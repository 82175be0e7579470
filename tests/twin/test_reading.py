"""A file of the inbox says the same to the reading by columns, the reading by lines, and the twin.

Files of good lines are damaged a little: a field with another value, without it, or with one more; spaces, line ends.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alfamix_core.errors import InputError
from alfamix_core.project.inbox import reading
from alfamix_core.project.inbox.reading import FileReader
from tests.twin.formats import BadLineError, Event, Line, Settings, read

PROJECT = "file:///project"
CLASSES = ("cat", "dog")
PREFIXES = ("file:///data", "s3://bucket/deep")
GOOD = {
    "drops/a/manifest.jsonl": {"uri": "a.png", "id": "a", "label": "cat", "split": "test", "group": "g"},
    "labels/x.jsonl": {
        **{"event_id": "e", "sample_id": "a", "kind": "label", "label": "cat", "annotator": "ann", "round": 1},
        "time": "2026-01-02T03:04:05Z",
    },
}
VALUES = (
    *(None, True, 0, 1, -1, 1.0, 2**31, 2**31 - 1, 2**63, 2**70, "", "a", "1", " a", "a ", "a\n", "a\u2028b", "é"),
    *("\x00", "x" * 128, "x" * 129, "x" * 200, "x" * 201, "é" * 200, [], {}, ["a"], "cat", "Cat", "cat ", "label"),
    *("skip", "withdraw", "cannot_label", "train", "val", "test", "audit", ".hidden", "a%20b.png", "50%.png", "%zz"),
    *("b/c.png", "../c.png", "./c.png", "/c.png", "b//c.png", "b/", "c\\d.png", "a:b", "http://a/b", "FILE:///data/c"),
    *("file:///data/c.png", "file:///data/c%41 d.png", "file:///other/c.png", "file:///data/../c.png", "file:///data"),
    *("file:///project/files/abc", "file:///data/./c.png", "s3://bucket/deep/c.png", "s3://bucket/deep/c d.png"),
    *("s3://bucket/c.png", "2026-01-02T03:04:05+00:00", "2026-01-02T03:04:05.123456Z", "2026-01-02 03:04:05Z"),
    *("2026-01-02T03:04:05-11:30", "2026-01-02T03:04:05", "2026-02-30T03:04:05Z", "2026-01-02T25:04:05Z", "today"),
    *("2026-01-02T03:04:05.5Z", "1969-12-31T23:59:59.999999Z", "1600-01-01T00:00:00Z", "9999-12-31T23:59:59Z"),
    *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "20260102"),
)
SPACES = st.sampled_from(["", "", "", "", " ", "\t", "\r"])


@st.composite
def lines_of(draw: st.DrawFn, good: dict[str, Any]) -> bytes:
    """A line of a good record, or one with a field that has another value, is missing, or is one too many."""
    record = dict(good)
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        name = draw(st.sampled_from([*good, "colour"]))
        if draw(st.integers(0, 3)):
            record[name] = draw(st.sampled_from(VALUES))
        else:
            record.pop(name, None)
    if draw(st.booleans()):
        record = dict(draw(st.permutations(list(record.items()))))
    text = json.dumps(
        record, ensure_ascii=draw(st.booleans()), separators=draw(st.sampled_from([(", ", ": "), (",", ":")]))
    )
    return (draw(SPACES) + text + draw(SPACES)).encode()


def files_of(good: dict[str, Any]) -> st.SearchStrategy[bytes]:
    lines = st.lists(lines_of(good) | st.just(json.dumps(good).encode()) | st.sampled_from([b"", b"{}"]), max_size=4)
    ends = st.sampled_from([b"\n", b"\n", b"\r\n"])
    return st.tuples(lines, ends, st.booleans()).map(lambda file: file[1].join(file[0]) + file[1] * file[2])


def rows_of(key: str, path: Path) -> list[tuple[int, Any]]:
    """Return the rows that the product has read, as the twin has them."""
    rows = pq.read_table(path).to_pylist()
    kind = Line if key.startswith("drops/") else Event
    return [(row["line"], kind(*(row["sample_id" if name == "id" else name] for name in kind._fields))) for row in rows]


def same_to_all(key: str, data: bytes) -> None:
    """Read a file in all three ways."""
    try:
        expected: Any = read(key, data, PROJECT, Settings(classes=CLASSES, prefixes=PREFIXES))
    except BadLineError as error:
        expected = error.args[0]
    with tempfile.TemporaryDirectory() as folder:
        raw, by_lines, by_columns = (Path(folder) / name for name in ("raw", "lines", "columns"))
        raw.write_bytes(data)
        kind = "samples" if key.startswith("drops/") else "events"
        prefixes = (*PREFIXES, f"{PROJECT}/files")
        file = FileReader(key, kind, raw, frozenset(CLASSES), prefixes, f"{PROJECT}/{key.rsplit('/', 1)[0]}/")
        try:
            file.lines(by_lines)
            outcome: Any = rows_of(key, by_lines)
        except InputError as error:
            outcome = int(str(error).removeprefix(f"{key} line ").split(":")[0])
        assert outcome == expected
        if file.columns(by_columns):
            assert rows_of(key, by_columns) == expected


@pytest.mark.parametrize(("key", "field"), [(key, field) for key, good in GOOD.items() for field in (*good, "colour")])
def test_a_field_says_the_same_however_its_file_is_read(key: str, field: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "_WORTH_BYTES", 0)
    same_to_all(key, json.dumps({name: value for name, value in GOOD[key].items() if name != field}).encode())
    for value in VALUES:
        same_to_all(key, json.dumps({**GOOD[key], field: value}).encode())


@pytest.mark.parametrize("key", GOOD)
def test_a_file_says_the_same_however_it_is_read(key: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "_WORTH_BYTES", 0)
    check = given(files_of(GOOD[key]))(lambda data: same_to_all(key, data))
    settings(max_examples=150, deadline=None, derandomize=True, database=None)(check)()
