"""The tables on disk: their versions, who may append, and what a reader is told when they are not what they were."""

import shutil
import threading
from datetime import timedelta

import pyarrow as pa
import pytest

from alfamix_core.errors import InputError, ObjectChangedError, StorageError
from alfamix_core.project.ledger import tables
from alfamix_core.project.ledger.tables import append, create_missing, open_tables
from alfamix_core.records.tables import CORRECTIONS, SCHEMAS
from alfamix_core.storage import open_store, path_of

HOUR = timedelta(hours=1)


def rows(noon, *ids):
    fields = {"kind": "withdrawn", "round": 0, "reason": "", "time": noon, "key": "k", "line": 1, "load": 1}
    table = pa.Table.from_pylist([{"sample_id": key, **fields} for key in ids], schema=CORRECTIONS)
    return table.to_reader()


def ids(store, **fields):
    return sorted(open_tables(store, **fields).dataset("corrections").to_table()["sample_id"].to_pylist())


def test_before_the_first_load_there_is_no_table_and_reading_makes_none(store):
    assert open_tables(store).handles == {}
    assert open_tables(store).dataset("samples").to_table().num_rows == 0
    assert open_tables(store).covered() == {}
    assert list(store.list()) == []


def test_of_two_loads_that_overlap_one_is_refused_and_older_versions_stay_readable(store, noon):
    create_missing(store, open_tables(store))
    one, other = open_tables(store), open_tables(store)
    append(one, "corrections", rows(noon, "a"))
    with pytest.raises(ObjectChangedError, match=r"^ledger/corrections was written to by another load: "):
        append(other, "corrections", rows(noon, "a"))
    assert ids(store) == ["a"]
    append(open_tables(store), "corrections", rows(noon, "b"))
    assert ids(store) == ["a", "b"]
    assert [ids(store, versions={"corrections": version}) for version in (0, 1, 2)] == [[], ["a"], ["a", "b"]]


def test_of_two_loads_that_make_the_tables_one_is_refused(store, noon):
    one, other = open_tables(store), open_tables(store)
    append(create_missing(store, one), "corrections", rows(noon, "a"))
    with pytest.raises(ObjectChangedError, match=r"^ledger/corrections was made by another load at this moment$"):
        create_missing(store, other)


def test_inbox_alone_says_which_versions_the_last_load_left(made, noon):
    made.drop("a", "b")
    made.load()
    found = open_tables(made.store)
    assert found.covered() == found.versions
    made.label("1", b="cat")
    made.load(noon + HOUR)
    found = open_tables(made.store)
    assert found.covered() == found.versions == open_tables(made.store, names=("inbox",)).covered()


def test_tidying_keeps_every_version_of_the_last_days_and_no_row_is_lost(made_anywhere, noon):
    made = made_anywhere
    for number in range(4):
        made.drop(str(number), f"s{number}")
        made.load(noon + number * HOUR)
    versions = open_tables(made.store).versions
    tables.tidy(open_tables(made.store), timedelta(0))
    assert made.pool() == ["s0", "s1", "s2", "s3"]
    assert open_tables(made.store, versions).dataset("samples").to_table().num_rows == 4
    assert open_tables(made.store, {"samples": 2}).dataset("samples").to_table().num_rows == 2
    assert made.load(noon + 9 * HOUR).rows == {}
    made.drop("new", "new")
    made.load(noon + 10 * HOUR)
    assert made.ledger().new_samples(versions) == 1


@pytest.mark.parametrize("what", ["table", "version", "log"])
def test_what_is_gone_or_damaged_is_one_line(made, what):
    made.drop("a", "b")
    made.load()
    versions = open_tables(made.store).versions
    folder = path_of(made.store.uri_of("ledger/samples/_delta_log/x")).parent
    if what == "table":
        for entry in list(made.store.list("ledger/samples/")):
            made.store.delete(entry.key)
    elif what == "version":
        versions["samples"] = 99
    else:
        (folder / f"{versions['samples']:020d}.json").write_bytes(b"{")
    with pytest.raises(InputError, match=r"^ledger/samples") as refused:
        open_tables(made.store, versions).dataset("samples").to_table()
    assert str(refused.value).isprintable()


@pytest.mark.s3
def test_a_server_that_does_not_answer_is_no_fault_of_the_table(s3_server, monkeypatch):
    """And the store's endpoint is the one that counts, whatever the environment says."""
    store = open_store(f"s3://{s3_server.bucket}/unreachable")
    create_missing(store, open_tables(store))
    uri, options = store.table("ledger/samples")
    away = options | {"aws_endpoint_url_s3": "http://127.0.0.1:9", "max_retries": "0", "retry_timeout": "1s"}
    monkeypatch.setattr(type(store), "table", lambda store, key: (uri, away))
    with pytest.raises(StorageError, match=r"^ledger/"):
        open_tables(store)
    store.close()


def test_every_table_says_when_its_rows_came():
    assert all("load" in schema.names for schema in SCHEMAS.values())
    assert list(SCHEMAS)[-1] == "inbox", "a file counts as read only when its rows are there"


def test_a_reader_who_comes_while_a_load_commits_sees_a_whole_ledger(made, noon):
    """A load writes one table after the other: whatever a reader meets, it is never called a damaged ledger."""
    made.drop("a", "x", "y")
    made.load(noon)
    done = threading.Event()

    def load_again():
        for number in range(6):
            made.label(f"{number}", x="cat" if number % 2 else "dog")
            made.load(noon + (number + 1) * HOUR)
        done.set()

    loader = threading.Thread(target=load_again)
    loader.start()
    opened = 0
    while not done.is_set():
        open_tables(made.store)
        opened += 1
    loader.join()
    assert opened > 6


@pytest.mark.parametrize("name", ["events", "samples", "questions"])
def test_a_table_that_is_gone_is_not_taken_for_an_empty_one(made, noon, name):
    made.drop("a", "x", "y")
    made.label("1", x="cat")
    made.load(noon)
    shutil.rmtree(path_of(made.store.uri) / "ledger" / name)
    with pytest.raises(InputError, match=rf"^ledger/{name} is gone, or older than the last load; put it back"):
        open_tables(made.store)
