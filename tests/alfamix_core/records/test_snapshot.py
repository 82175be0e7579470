import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alfamix_core.records import snapshot

ROWS = [("a", "file:///a.png", None, True, False), ("b", "s3://bucket/ü", "camera 1", False, True)]
LABELLED = [("c", "file:///c", 1, "train", None, 3), ("d", "file:///d", 0, "test", "g", 0)]


def test_a_pool_is_read_back_row_by_row_with_its_types(tmp_path):
    assert snapshot.write_table(tmp_path / snapshot.POOL_FILE, snapshot.POOL, iter(ROWS)) == 2
    table = snapshot.read_pool(tmp_path)
    assert table.schema.equals(snapshot.POOL)
    assert [tuple(row.values()) for row in table.to_pylist()] == ROWS


def test_labelled_samples_are_read_whole_or_by_split(tmp_path):
    snapshot.write_table(tmp_path / snapshot.LABELLED_FILE, snapshot.LABELLED, LABELLED)
    assert [tuple(row.values()) for row in snapshot.read_labelled(tmp_path).to_pylist()] == LABELLED
    assert snapshot.read_labelled(tmp_path, "test")["sample_id"].to_pylist() == ["d"]
    assert snapshot.read_labelled(tmp_path, "val").num_rows == 0


@pytest.mark.parametrize(
    ("name", "schema", "read"),
    [
        (snapshot.POOL_FILE, snapshot.POOL, snapshot.read_pool),
        (snapshot.LABELLED_FILE, snapshot.LABELLED, snapshot.read_labelled),
    ],
)
def test_an_empty_table_keeps_its_columns(tmp_path, name, schema, read):
    assert snapshot.write_table(tmp_path / name, schema, []) == 0
    assert read(tmp_path).num_rows == 0
    assert read(tmp_path).schema.equals(schema)


@pytest.mark.parametrize("rows", [65_535, 65_536, 65_537])
def test_no_row_is_lost_where_blocks_meet(tmp_path, rows):
    path = tmp_path / snapshot.POOL_FILE
    assert snapshot.write_table(path, snapshot.POOL, ((str(n), "u", None, False, False) for n in range(rows))) == rows
    assert snapshot.read_pool(tmp_path)["sample_id"].to_pylist() == [str(n) for n in range(rows)]


def test_the_same_rows_are_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        snapshot.write_table(tmp_path / name, snapshot.POOL, ROWS)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_rows_are_taken_in_the_order_asked_for_or_none(tmp_path):
    snapshot.write_table(tmp_path / snapshot.POOL_FILE, snapshot.POOL, ROWS)
    table = snapshot.read_pool(tmp_path)
    assert snapshot.take(table, [1, 0])["sample_id"].to_pylist() == ["b", "a"]
    assert snapshot.take(table, []).num_rows == 0


@given(st.integers(0, 10_000_000), st.integers(1, 16))
def test_shards_cover_the_pool_without_overlap_and_evenly(rows, shards):
    ranges = [snapshot.shard_range(rows, shards, shard) for shard in range(shards)]
    assert ranges[0].start == 0
    assert ranges[-1].stop == rows
    assert all(one.stop == two.start for one, two in itertools.pairwise(ranges))
    sizes = [len(one) for one in ranges]
    assert max(sizes) - min(sizes) <= 1
