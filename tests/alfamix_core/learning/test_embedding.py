import pytest
import torch

from alfamix_core.errors import InputError
from alfamix_core.learning.backbones import initial
from alfamix_core.learning.batches import SampleImages
from alfamix_core.learning.embedding import EmbeddedBlock, embed
from alfamix_core.records.project import ImageSettings, ModelSettings

CPU = torch.device("cpu")


def network(backbone: str, size: int, channels: str = "grey"):
    return initial(ModelSettings(backbone=backbone), ImageSettings(size=size, channels=channels), 10, seed=0)


def whole(blocks) -> EmbeddedBlock:
    parts = list(blocks)
    return EmbeddedBlock(
        torch.cat([part.index_n for part in parts]),
        torch.cat([part.embeddings_nD for part in parts]),
        torch.cat([part.logits_nK for part in parts]),
    )


def assert_cuts_change_no_bit(digits, backbone, size, channels, rows, batch_size, cuts):
    model = network(backbone, size, channels)
    options = {"batch_size": batch_size, "dtype": "float32", "device": CPU}
    images = digits.images(range(rows), size, channels)
    reference = whole(embed(model, images, **options))
    assert len(reference.index_n) == rows
    for cut in cuts:
        for part in (range(cut), range(cut, rows)):
            found = whole(embed(model, digits.images(part, size, channels), **options))
            assert torch.equal(found.embeddings_nD, reference.embeddings_nD[list(part)])
            assert torch.equal(found.logits_nK, reference.logits_nK[list(part)])


@pytest.mark.parametrize("backbone", ["mlp", "small_cnn"])
@pytest.mark.parametrize(("size", "batch_size"), [(8, 64), (8, 50), (13, 7), (28, 32)])
def test_any_cut_of_the_pool_leaves_every_bit(digits, backbone, size, batch_size):
    assert_cuts_change_no_bit(digits, backbone, size, "grey", 200, batch_size, [1, 2, 63, 101, 199])


def test_any_cut_of_the_pool_leaves_every_bit_with_two_threads(digits):
    """Blocks of exactly 7 rows would differ: two threads share them as 4 and 3."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert_cuts_change_no_bit(digits, "mlp", 8, "grey", 60, 7, [1, 2, 3, 31])
    finally:
        torch.set_num_threads(threads)


def test_any_cut_of_the_pool_leaves_every_bit_of_a_resnet(digits):
    assert_cuts_change_no_bit(digits, "resnet18", 32, "colour", 40, 32, [1, 7, 33])


@pytest.mark.slow
def test_any_cut_of_the_pool_leaves_every_bit_of_a_vision_transformer(digits):
    assert_cuts_change_no_bit(digits, "vit_b_16", 32, "colour", 40, 32, [1, 13])


def test_a_bad_image_changes_no_bit_of_its_neighbours(digits, tmp_path, reader):
    (tmp_path / "bad.png").write_text("no image")
    uris = list(digits.uris[:20])
    spoilt = [str(tmp_path / "bad.png") if row in (0, 5, 19) else uri for row, uri in enumerate(uris)]
    ids = [str(row) for row in range(20)]
    image = ImageSettings(size=8, channels="grey")
    options = {"batch_size": 8, "dtype": "float16", "device": CPU}
    model = network("small_cnn", 8)
    good = whole(embed(model, SampleImages(reader, ids, uris, image, max_pixels=100), **options))
    images = SampleImages(reader, ids, spoilt, image, max_pixels=100)
    found = whole(embed(model, images, **options))
    kept = [row for row in range(20) if row not in (0, 5, 19)]
    assert found.index_n.tolist() == kept
    assert torch.equal(found.embeddings_nD, good.embeddings_nD[kept])
    assert torch.equal(found.logits_nK, good.logits_nK[kept])
    assert [sample.sample_id for sample in images.quarantined()] == ["0", "5", "19"]


def test_a_batch_of_bad_images_alone_gives_no_block(tmp_path, reader):
    (tmp_path / "bad.png").write_text("no image")
    images = SampleImages(
        reader, ["a"], [str(tmp_path / "bad.png")], ImageSettings(size=8, channels="grey"), max_pixels=9
    )
    assert list(embed(network("mlp", 8), images, batch_size=4, dtype="float16", device=CPU)) == []


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_logits_are_those_of_the_stored_embedding(digits, dtype):
    model = network("mlp", 8)
    found = whole(embed(model, digits.images(range(64)), batch_size=64, dtype=dtype, device=CPU))
    assert found.embeddings_nD.dtype == getattr(torch, dtype)
    assert found.logits_nK.dtype == torch.float32
    with torch.no_grad():
        assert torch.equal(found.logits_nK, model.head(found.embeddings_nD.float()))


def test_float16_is_the_rounded_float32(digits):
    model = network("mlp", 8)
    options = {"batch_size": 32, "device": CPU}
    exact = whole(embed(model, digits.images(range(40)), dtype="float32", **options))
    rounded = whole(embed(model, digits.images(range(40)), dtype="float16", **options))
    assert torch.equal(rounded.embeddings_nD, exact.embeddings_nD.half())


def test_an_embedding_too_large_for_float16_names_the_setting(digits):
    model = network("mlp", 8)
    with torch.no_grad():
        model.encoder[1].weight.mul_(1e6)
    options = {"batch_size": 8, "device": CPU}
    with pytest.raises(InputError, match=r"too large for float16, .* set model.embedding_dtype to float32$"):
        list(embed(model, digits.images(range(8)), dtype="float16", **options))
    assert whole(embed(model, digits.images(range(8)), dtype="float32", **options)).embeddings_nD.isfinite().all()


def test_a_model_of_nan_is_refused(digits):
    model = network("mlp", 8)
    with torch.no_grad():
        model.encoder[1].bias.fill_(torch.nan)
    with pytest.raises(InputError, match="are not finite"):
        list(embed(model, digits.images(range(8)), batch_size=8, dtype="float16", device=CPU))


def test_a_model_in_training_mode_embeds_in_evaluation_mode(digits):
    model = network("resnet18", 32, "colour")
    images = digits.images(range(4), 32, "colour")
    options = {"batch_size": 4, "dtype": "float32", "device": CPU}
    before = whole(embed(model, images, **options))
    after = whole(embed(model.train(), images, **options))
    assert torch.equal(before.embeddings_nD, after.embeddings_nD)
