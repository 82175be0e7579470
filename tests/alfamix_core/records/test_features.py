import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alfamix_core.records.features import FeatureWriter, read_all, read_blocks


def block(start, rows):
    positions = torch.arange(start, start + rows)
    return {
        "positions": positions,
        "embeddings": (positions[:, None] * torch.ones(1, 4)).half(),
        "logits": positions[:, None] + torch.arange(3.0),
    }


ROW_BYTES = 8 + 4 * 2 + 3 * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twenty rows in blocks of 3, in parts of at most seven rows."""
    folder = tmp_path_factory.mktemp("features")
    writer = FeatureWriter(folder, part_bytes=7 * ROW_BYTES)
    for start in range(0, 20, 3):
        writer.add(block(start, min(3, 20 - start)))
    writer.close()
    return folder


def test_a_part_is_closed_before_it_grows_beyond_its_bytes(folder):
    parts = sorted(path.name for path in folder.iterdir())
    assert parts == [f"part-{n:05d}.safetensors" for n in range(4)]
    assert [len(rows["positions"]) for rows in read_blocks(folder, 100)] == [6, 6, 6, 2]


def test_what_was_added_is_read_back_bit_for_bit(folder):
    whole = read_all(folder)
    for name, column in block(0, 20).items():
        assert whole[name].dtype == column.dtype
        assert torch.equal(whole[name], column)


@given(st.integers(1, 30))
def test_the_rows_are_the_same_for_any_block_size(folder, rows):
    blocks = list(read_blocks(folder, rows))
    assert all(1 <= len(each["positions"]) <= rows for each in blocks)
    for name, column in block(0, 20).items():
        assert torch.equal(torch.cat([each[name] for each in blocks]), column)


def test_a_block_larger_than_a_part_is_a_part_of_its_own(tmp_path):
    writer = FeatureWriter(tmp_path, part_bytes=ROW_BYTES)
    writer.add(block(0, 5))
    writer.add(block(5, 1))
    writer.close()
    assert [len(rows["positions"]) for rows in read_blocks(tmp_path, 100)] == [5, 1]


def test_a_folder_to_which_nothing_was_added_is_empty(tmp_path):
    FeatureWriter(tmp_path).close()
    assert list(tmp_path.iterdir()) == []
    assert list(read_blocks(tmp_path, 10)) == []
    assert read_all(tmp_path) == {}
