"""Features of a frozen encoder are computed once, and nobody can see from the results which were kept."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from alfamix_core.learning.backbones import initial
from alfamix_core.learning.batches import SampleImages
from alfamix_core.learning.embedding import embed
from alfamix_core.learning.kept_features import KeptFeatures, identity, kept_features
from alfamix_core.learning.scaling import fitted
from alfamix_core.records.feature_parts import list_parts
from alfamix_core.records.model import PixelStatistics
from alfamix_core.records.project import ImageSettings, ModelSettings
from alfamix_core.storage import open_store

ROOT = "features/"
IMAGE = ImageSettings(size=8, channels="grey", normalisation="half")
MODEL = ModelSettings(backbone="small_cnn", encoder="frozen", embedding_dtype="float16")


class Encoder:
    """A frozen encoder, whose features a test keeps in one project."""

    def __init__(self, folder: Path, digits):
        self.folder, self.store, self.digits = folder, open_store((folder / "project").as_uri()), digits
        self.network = initial(MODEL, IMAGE, 10, seed=0)
        self.network.features = fitted("l2", torch.zeros(0, 256))
        self.name = identity(self.network, MODEL, IMAGE)

    def kept(self, **sizes) -> KeptFeatures:
        return KeptFeatures(self.store, ROOT, self.name, **sizes)

    def embed(self, images: SampleImages, kept: KeptFeatures | None = None, columns=frozenset(), stop_after=None):
        """Return all columns, and the number of bytes of images that were read."""
        blocks = []
        for number, block in enumerate(
            embed(
                self.network,
                images,
                batch_size=32,
                dtype="float16",
                device=torch.device("cpu"),
                columns=columns,
                parameters={"passes": 2, "classes": 2},
                kept=kept,
            ),
            start=1,
        ):
            blocks.append({"index": block.index_n} | block.columns())
            if number == stop_after:
                break
        return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}, images.bytes_read

    def parts(self):
        return list_parts(self.store, f"{ROOT}{self.name}/")


@pytest.fixture
def encoder(tmp_path, digits):
    return Encoder(tmp_path, digits)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_second_pass_opens_no_image_and_gives_the_bits_of_a_pass_without_kept_features(encoder, digits):
    """The pass without is the slow twin."""
    twin, _ = encoder.embed(digits.images(range(300)))
    first, read = encoder.embed(digits.images(range(300)), encoder.kept())
    assert read > 0
    assert same(first, twin)
    second, read = encoder.embed(digits.images(range(300)), encoder.kept())
    assert read == 0
    assert same(second, twin)


@pytest.mark.parametrize("earlier", [range(0, 300, 7), range(150), range(299, 300), range(40, 75)])
def test_whatever_is_kept_already_no_bit_depends_on_it(encoder, digits, earlier):
    twin, whole = encoder.embed(digits.images(range(300)))
    _, once = encoder.embed(digits.images(list(earlier)), encoder.kept())
    found, rest = encoder.embed(digits.images(range(300)), encoder.kept())
    assert same(found, twin)
    assert once + rest == whole, "each image is opened once"


def test_the_number_of_shards_may_change(encoder, digits):
    twin, _ = encoder.embed(digits.images(range(200)))
    for shard in (range(100), range(100, 200)):
        encoder.embed(digits.images(shard), encoder.kept())
    for shard in (range(67), range(67, 134), range(134, 200)):
        found, read = encoder.embed(digits.images(shard), encoder.kept())
        assert read == 0
        assert torch.equal(found["logits"], twin["logits"][list(shard)])


def test_a_kill_half_way_loses_at_most_one_part(encoder, digits):
    """A part of 32 samples; the encoder dies after its fifth batch, of which a part may not be written yet."""
    sizes = {"part_bytes": 32 * 256 * 2}
    encoder.embed(digits.images(range(300)), encoder.kept(**sizes), stop_after=5)
    done = torch.zeros(300, 256, dtype=torch.float16)
    assert encoder.kept().read([f"{row:04d}" for row in range(300)], done).sum() >= 4 * 32
    twin, whole = encoder.embed(digits.images(range(300)))
    found, read = encoder.embed(digits.images(range(300)), encoder.kept(**sizes))
    assert same(found, twin)
    assert read < whole / 2


def test_a_part_is_written_after_a_time_however_slow_the_encoder(encoder, digits):
    encoder.embed(digits.images(range(96)), encoder.kept(part_seconds=0.0))
    assert len(encoder.parts()) == 3


DAMAGES = {
    "cut": lambda data: data[:-1],
    "emptied": lambda data: b"",
    "changed": lambda data: data[:99] + bytes([data[99] ^ 1]) + data[100:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_part_is_named_and_computed_again(encoder, digits, damage, capsys):
    twin, _ = encoder.embed(digits.images(range(64)), encoder.kept(part_seconds=0.0))
    broken = encoder.parts()[0].key
    path = encoder.folder / "project" / broken
    path.write_bytes(damage(path.read_bytes()))
    found, read = encoder.embed(digits.images(range(64)), encoder.kept(part_seconds=0.0))
    assert same(found, twin)
    assert read > 0
    assert f"{broken} is damaged: its bytes are not those of its digest; its samples" in capsys.readouterr().out
    assert encoder.embed(digits.images(range(64)), encoder.kept())[1] == 0, "the new part has another name"


def test_a_part_with_another_content_is_named_and_computed_again(encoder, digits, capsys):
    """Its digest is right: another program has written it."""
    other = KeptFeatures(encoder.store, ROOT, encoder.name)
    other.add(["0000"], torch.zeros(1, 3))
    other.close()
    assert encoder.embed(digits.images(range(10)), encoder.kept())[1] > 0
    assert "must have the columns sample_id (string) and output (512 bytes)" in capsys.readouterr().out


def test_a_file_with_another_name_is_no_part(encoder, digits):
    encoder.store.create(f"{ROOT}{encoder.name}/notes.txt", b"mine")
    assert encoder.parts() == []


def test_writers_at_the_same_moment_never_conflict(encoder, digits):
    """Four writers of equal parts, and four of parts that overlap."""
    spans = [range(100)] * 4 + [range(start, start + 80) for start in (0, 20, 40, 60)]
    torch.set_num_threads(1)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda span: Encoder.embed(encoder, digits.images(span), encoder.kept()), spans))
    twin, _ = encoder.embed(digits.images(range(140)))
    found, read = encoder.embed(digits.images(range(140)), encoder.kept())
    assert same(found, twin)
    assert read == 0


def test_a_sample_that_cannot_be_read_is_not_kept_and_is_tried_again(encoder, digits, tmp_path, reader):
    uris = [str(tmp_path / f"{row}.png") for row in range(40)]
    for row, uri in enumerate(uris):
        shutil.copy(digits.uris[row], uri)
    Path(uris[7]).write_text("no image")
    images = [SampleImages(reader, [f"{row:04d}" for row in range(40)], uris, IMAGE, max_pixels=99) for _ in range(2)]
    found, _ = encoder.embed(images[0], encoder.kept())
    assert 7 not in found["index"]
    assert [bad.sample_id for bad in images[0].quarantined()] == ["0007"]
    shutil.copy(digits.uris[7], uris[7])
    found, read = encoder.embed(images[1], encoder.kept())
    assert read == Path(uris[7]).stat().st_size
    assert same(found, encoder.embed(digits.images(range(40)))[0])


def test_columns_of_pixels_open_every_image(encoder, digits):
    twin, whole = encoder.embed(digits.images(range(40)), columns={"deepfool"})
    encoder.embed(digits.images(range(40)), encoder.kept())
    found, read = encoder.embed(digits.images(range(40)), encoder.kept(), columns={"deepfool"})
    assert same(found, twin)
    assert read == whole


def test_ids_of_any_text_find_their_features(encoder, digits):
    ids = ["z", "a" * 200, "a" * 200 + "b", "ß/日本", "\U0001f600", "0"]
    kept = encoder.kept(part_seconds=0.0)
    for number, name in enumerate(ids):
        kept.add([name], torch.full((1, 256), number, dtype=torch.float16))
    for subset in (ids, ids[::-1], ids[2:3], ["unknown", *ids[3:5]]):
        rows = torch.full((len(subset), 256), -1, dtype=torch.float16)
        known = encoder.kept().read(subset, rows)
        assert rows[:, 0].tolist() == [ids.index(name) if name in ids else -1 for name in subset]
        assert known.tolist() == [name in ids for name in subset]


def test_the_name_of_an_encoder_changes_with_all_that_changes_its_output():
    def name(seed=0, pixels=None, model=MODEL, image=IMAGE):
        network = initial(model, image, 10, seed)
        network.pixels = pixels or network.pixels
        return identity(network, model, image)

    others = [
        name(seed=1),
        name(pixels=PixelStatistics(mean=(0.1,), std=(0.5,))),
        name(model=MODEL.model_copy(update={"embedding_dtype": "float32"})),
        name(model=MODEL.model_copy(update={"backbone": "mlp"})),
        name(image=IMAGE.model_copy(update={"size": 9})),
    ]
    assert len({name(), *others}) == 6
    head_and_batch = {"head_penalty": 3.0, "features": "raw", "embedding_batch": 7, "dropout": 0.5}
    assert name() == name(model=MODEL.model_copy(update=head_and_batch))


def test_a_trained_encoder_keeps_nothing(encoder):
    settings = MODEL.model_copy(update={"encoder": "trained"})
    assert kept_features(encoder.store, ROOT, encoder.network, settings, IMAGE) is None
