import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image

from alfamix_core.errors import StorageError
from alfamix_core.learning.batches import SampleImages
from alfamix_core.records.project import ImageSettings

GREY = ImageSettings(size=8, channels="grey")


class UnreachableStore:
    def read(self, uri: str) -> bytes:
        raise StorageError(f"s3://bucket/{uri}: connection refused")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images, of which 3 is cut short and 6 is text; 7 is missing."""
    for index in range(10):
        Image.effect_noise((8, 8), 80).point(lambda value, index=index: (value + index) % 256).save(
            tmp_path / f"{index}.png"
        )
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:60])
    (tmp_path / "6.png").write_text("no image")
    (tmp_path / "7.png").unlink()
    return tmp_path


def images_of(folder: Path, reader, **options) -> SampleImages:
    uris = [str(folder / f"{index}.png") for index in range(10)]
    return SampleImages(reader, [f"id{index}" for index in range(10)], uris, GREY, max_pixels=10_000, **options)


def test_batches_have_one_size_and_the_last_is_padded(folder, reader):
    batches = list(images_of(folder, reader).batches(4))
    assert [batch.index_n.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert {tuple(batch.images_bCSS.shape) for batch in batches} == {(4, 1, 8, 8)}
    assert not batches[-1].images_bCSS[2:].any()


def test_unreadable_samples_are_zero_rows_and_do_not_move_their_neighbours(folder, reader):
    batches = list(images_of(folder, reader).batches(4))
    assert [batch.readable_n.tolist() for batch in batches] == [
        [True, True, True, False],
        [True, True, False, False],
        [True, True],
    ]
    assert not batches[0].images_bCSS[3].any()
    assert batches[0].images_bCSS[2].any()


def test_unreadable_samples_are_remembered_once_with_their_reasons(folder, reader):
    images = images_of(folder, reader)
    assert images.quarantined() == ()
    for _ in range(2):
        list(images.batches(3))
    found = images.quarantined()
    assert [sample.sample_id for sample in found] == ["id3", "id6", "id7"]
    assert found[0].uri.endswith("3.png")
    assert "damaged" in found[0].reason
    assert [sample.reason for sample in found[1:]] == [
        "not a PNG, JPEG or WebP image, or its header is damaged",
        "there is no such file",
    ]
    assert images.readable_n.nonzero()[:, 0].tolist() == [0, 1, 2, 4, 5, 8, 9]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_loader_workers_change_nothing(folder, reader, cache_bytes):
    alone = images_of(folder, reader)
    helped = images_of(folder, reader, workers=2, cache_bytes=cache_bytes)
    for _ in range(2):
        for one, other in zip(alone.batches(3), helped.batches(3), strict=True):
            assert torch.equal(one.images_bCSS, other.images_bCSS)
            assert torch.equal(one.index_n, other.index_n)
            assert torch.equal(one.readable_n, other.readable_n)
    assert helped.quarantined() == alone.quarantined()


def test_what_fits_into_the_cache_is_read_once(folder, reader):
    kept, streamed = images_of(folder, reader, cache_bytes=640), images_of(folder, reader, cache_bytes=639)
    for images in (kept, streamed):
        list(images.batches(4))
    once = kept.bytes_read
    assert once > 0
    order = torch.tensor([9, 0, 3])
    for one, other in zip(kept.batches(2, order), streamed.batches(2, order), strict=True):
        assert torch.equal(one.images_bCSS, other.images_bCSS)
        assert torch.equal(one.readable_n, other.readable_n)
    assert kept.bytes_read == once
    assert streamed.bytes_read > once


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_store_that_does_not_answer_stops_the_work_with_its_own_line(folder, workers):
    with pytest.raises(StorageError, match=r"^s3://bucket/\S+0.png: connection refused$"):
        list(images_of(folder, UnreachableStore(), workers=workers).batches(4))


def test_no_samples_are_no_batches(reader):
    images = SampleImages(reader, [], [], GREY, max_pixels=1, cache_bytes=100)
    assert list(images.batches(4)) == []
    assert len(images) == 0


def test_loading_draws_nothing_from_the_global_random_state(folder, reader):
    before = torch.get_rng_state()
    list(images_of(folder, reader).batches(4))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_images_can_be_sent_to_another_process(folder, reader):
    assert len(pickle.loads(pickle.dumps(images_of(folder, reader)))) == 10
