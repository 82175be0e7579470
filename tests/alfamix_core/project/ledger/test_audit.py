"""The tables are compared with the inbox and the rounds: what another program did to them is found and named."""

from datetime import timedelta

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from alfamix_core.project import doctor
from alfamix_core.project.ledger.audit import differences
from alfamix_core.records.tables import SCHEMAS

HOUR = timedelta(hours=1)


@pytest.fixture
def loaded(made):
    return load_all(made)


def load_all(made):
    """Put something into every table, and load it."""
    made.drop("a", "b", "c", "d")
    made.drop("b", "c", "e", label="cat")
    made.label("1", b="cat", e="dog")
    made.ask(1, "c", "d")
    made.quarantine(1, "e")
    made.store.create("released/r.jsonl", b'{"sample_id": "e", "round": 1, "time": "2026-03-01T12:00:00Z"}\n')
    made.load()
    return made


def table(made, name):
    uri, options = made.store.table(f"ledger/{name}")
    return DeltaTable(uri, storage_options=options)


def forge(made, name, change):
    """Let another program write a table: a function gets its rows and returns others."""
    handle = table(made, name)
    rows = change(sorted(handle.to_pyarrow_table().to_pylist(), key=lambda row: row.get("sample_id") or row["key"]))
    write_deltalake(handle, pa.Table.from_pylist(rows, schema=SCHEMAS[name]), mode="overwrite")


def found(made, noon):
    return [(each.table, each.kind, each.rows, each.example) for each in differences(made.store, made.settings, noon)]


def test_a_ledger_that_ingest_wrote_is_what_the_inbox_says(made_anywhere, noon):
    loaded = load_all(made_anywhere)
    assert found(loaded, noon) == []
    loaded.label("2", d="owl")
    loaded.ask(2, "b")
    assert found(loaded, noon) == [], "what is not loaded yet is no difference"
    loaded.load(noon + HOUR)
    assert found(loaded, noon) == []


def test_before_the_first_load_there_is_nothing_to_compare(made, noon):
    made.drop("a", "b")
    made.ask(1, "b")
    assert found(made, noon) == []


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("samples", lambda rows: [*rows, rows[0] | {"sample_id": "z"}], ("samples", "foreign", 1, "z")),
        ("samples", lambda rows: [*rows, rows[0]], ("samples", "twice", 1, "b")),
        ("samples", lambda rows: [row for row in rows if row["sample_id"] != "d"], ("samples", "missing", 1, "d")),
        ("events", lambda rows: [row | {"label": "owl"} for row in rows], ("events", "foreign", 2, "1-b")),
        ("events", lambda rows: rows[:1], ("events", "missing", 1, "1-e")),
        ("events", lambda rows: [*rows, *rows], ("events", "twice", 2, "1-b")),
        ("corrections", lambda rows: [], ("corrections", "missing", 1, "e")),
        ("questions", lambda rows: [row | {"rank": 7} for row in rows], ("questions", "foreign", 2, "c")),
        ("questions", lambda rows: rows[:1], ("questions", "missing", 1, "d")),
        ("questions", lambda rows: [], ("questions", "missing", 2, "c")),
        ("quarantine", lambda rows: [*rows, rows[0] | {"round": 7}], ("quarantine", "foreign", 1, "e")),
        (
            "inbox",
            lambda rows: [row | {"state": "set aside"} if row["key"] == "labels/1.jsonl" else row for row in rows],
            ("inbox", "foreign", 1, "labels/1.jsonl"),
        ),
    ],
)
def test_a_table_that_another_program_has_changed_is_found_and_named(loaded, noon, name, change, expected):
    forge(loaded, name, change)
    assert expected in found(loaded, noon)
    told = [each for each in doctor.examine(loaded.store, noon, deep=True) if each.kind == "inconsistent"]
    assert (f"ledger/{name}", True) in [(each.key, repr(expected[3]) in each.what) for each in told]
    assert all(each.do.startswith("restore ledger/ from a backup; without one delete it") for each in told)


def test_a_forged_label_changes_nothing_unnoticed_and_a_deleted_ledger_is_loaded_again(loaded, noon):
    before = loaded.labels()
    forge(loaded, "events", lambda rows: [row | {"label": "owl"} for row in rows])
    assert loaded.labels() != before
    assert doctor.examine(loaded.store, noon) == [], "only a deep look reads everything again"
    for entry in list(loaded.store.list("ledger/")):
        loaded.store.delete(entry.key)
    loaded.load(noon + HOUR)
    assert loaded.labels() == before
    assert doctor.examine(loaded.store, noon, deep=True) == []


def test_rows_of_a_file_that_somebody_changed_or_deleted_are_told_apart_from_forged_ones(loaded, noon):
    loaded.edit("labels/1.jsonl", lambda data: data.splitlines(keepends=True)[0])
    loaded.store.delete("drops/b/manifest.jsonl")
    assert sorted(found(loaded, noon)) == [("events", "vanished", 1, "1-e"), ("samples", "vanished", 1, "e")]


def test_a_table_whose_files_are_gone_is_one_line(loaded, noon):
    gone = next(entry.key for entry in loaded.store.list("ledger/events/") if entry.key.endswith(".parquet"))
    loaded.store.delete(gone)
    (finding,) = [each for each in doctor.examine(loaded.store, noon, deep=True) if each.kind == "inconsistent"]
    assert finding.key == "ledger/"
    assert finding.what.startswith("ledger/events: ")
    assert "it is not what ingest wrote" in finding.what
    assert finding.what.isprintable()
