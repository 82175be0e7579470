"""The numbers by which pixels are normalised."""

import pytest
import torch
from PIL import Image

from alfamix_core.learning.backbones import initial
from alfamix_core.learning.batches import SampleImages
from alfamix_core.learning.embedding import embed
from alfamix_core.learning.pixels import IMAGENET, imagenet, of_images
from alfamix_core.records.model import PixelStatistics
from alfamix_core.records.project import ImageSettings, ModelSettings


@pytest.fixture
def images_of(tmp_path, reader):
    """Return the images of files that are written from tensors (C, 8, 8) uint8; None is a damaged file."""

    def made(*pictures: torch.Tensor | None) -> SampleImages:
        uris = []
        for number, pixels in enumerate(pictures):
            path = tmp_path / f"{number}.png"
            if pixels is None:
                path.write_bytes(b"no image")
            else:
                values = pixels.permute(1, 2, 0).squeeze(2).numpy()
                Image.fromarray(values).save(path)
            uris.append(str(path))
        channels = "colour" if any(p is not None and len(p) == 3 for p in pictures) else "grey"
        settings = ImageSettings(size=8, channels=channels)
        return SampleImages(reader, uris, uris, settings, max_pixels=100)

    return made


def flat(value: int) -> torch.Tensor:
    return torch.full((1, 8, 8), value, dtype=torch.uint8)


def test_black_and_white_by_hand(images_of):
    """The pixels are 0 and 1 in equal numbers: mean 1/2, and every distance from it is 1/2."""
    assert of_images(images_of(flat(0), flat(255))) == PixelStatistics(mean=(0.5,), std=(0.5,))


def test_each_channel_has_the_statistics_of_its_readable_pixels(images_of):
    pictures = list(torch.randint(256, (7, 3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8))
    numbers = of_images(images_of(*pictures[:3], None, *pictures[3:]))
    pixels_C = torch.stack(pictures).double().div(255).transpose(0, 1).flatten(1)
    assert numbers.mean == pytest.approx(pixels_C.mean(dim=1).tolist(), abs=1e-6)
    assert numbers.std == pytest.approx(pixels_C.std(dim=1, correction=0).tolist(), abs=1e-6)
    assert of_images(images_of(*reversed(pictures))) == numbers


def test_equal_pixels_do_not_divide_by_zero(images_of):
    images = images_of(flat(51), flat(51))
    numbers = of_images(images)
    assert numbers == PixelStatistics(mean=(0.2,), std=(0.003922,))
    network = initial(ModelSettings(backbone="mlp"), ImageSettings(size=8, channels="grey"), 2, 0)
    network.pixels = numbers
    (block,) = embed(network, images, batch_size=32, dtype="float16", device=torch.device("cpu"))
    assert block.embeddings_nD.isfinite().all()


def test_without_a_readable_image_all_numbers_are_a_half(images_of):
    half = PixelStatistics(mean=(0.5,), std=(0.5,))
    assert of_images(images_of()) == of_images(images_of(None)) == half


@pytest.mark.parametrize("backbone", ["mlp", "resnet18"])
@pytest.mark.parametrize("channels", ["colour", "grey"])
@pytest.mark.parametrize("normalisation", ["imagenet", "half", "numbers"])
def test_fixed_numbers_are_those_that_the_encoder_sees(backbone, channels, normalisation):
    """Torchvision's models see three channels even of grey images."""
    count = 3 if channels == "colour" else 1
    numbers = {"mean": (0.1, 0.2, 0.3)[:count], "std": (0.4, 0.5, 0.6)[:count]}
    image = ImageSettings(
        size=32, channels=channels, normalisation=normalisation, **(numbers if normalisation == "numbers" else {})
    )
    network = initial(ModelSettings(backbone=backbone), image, 2, 0)
    expected = {
        "imagenet": imagenet(1) if (backbone, channels) == ("mlp", "grey") else IMAGENET,
        "half": PixelStatistics(mean=(0.5,), std=(0.5,)),
        "numbers": PixelStatistics(**numbers),
    }[normalisation]
    assert network.pixels == expected
    pixels = torch.randint(256, (2, count, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(values)[:, None, None] for values in (expected.mean, expected.std))
    with torch.inference_mode():
        normalised = (pixels.float() / 255 - mean) / std
        seen = 3 if backbone == "resnet18" else count
        expected_embedding = network.encoder(normalised.expand(-1, seen, -1, -1))
        torch.testing.assert_close(network.embed(pixels), expected_embedding, rtol=1e-4, atol=1e-4)
