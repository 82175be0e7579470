import pytest
import torch
from torchvision.transforms import v2

from alfamix_core.learning.pixels import imagenet
from alfamix_core.learning.transforms import augment, normalise


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(count: int, channels: int = 3, size: int = 16) -> torch.Tensor:
    return torch.randint(256, (count, channels, size, size), generator=seeded(9), dtype=torch.uint8)


def test_normalisation_is_that_of_torchvisions_weights():
    theirs = v2.Compose(
        [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    )
    torch.testing.assert_close(normalise(pixels(5), imagenet(3)), theirs(pixels(5)))


def test_grey_is_normalised_with_the_mean_of_the_channels():
    assert normalise(torch.full((1, 1, 2, 2), 255, dtype=torch.uint8), imagenet(1))[0, 0, 0, 0].item() == pytest.approx(
        0.551 / 0.226
    )


def test_none_changes_nothing():
    images = pixels(4)
    assert augment(images, "none", seeded()) is images


def test_flip_mirrors_about_half_of_the_images():
    images = pixels(400, size=4)
    flipped = augment(images, "flip", seeded())
    mirrored = v2.functional.horizontal_flip(images)
    as_before = (flipped == images).flatten(1).all(dim=1)
    as_mirrored = (flipped == mirrored).flatten(1).all(dim=1)
    assert (as_before | as_mirrored).all()
    assert 150 < as_mirrored.sum() < 250


def test_crop_is_a_crop_of_torchvisions_mirrored_padding():
    images = pixels(50)
    cropped = augment(images, "crop", seeded())
    wide = v2.functional.pad(images, [2, 2, 2, 2], padding_mode="reflect")
    places = set()
    for image, outcome in zip(wide, cropped, strict=True):
        found = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if torch.equal(v2.functional.crop(image, top, left, 16, 16), outcome)
        ]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) > 15


@pytest.mark.parametrize("size", [8, 15, 16, 28])
def test_crop_equals_cutting_each_image_from_a_padded_copy(size):
    images, margin = pixels(30, size=size), max(1, size // 8)
    shift_2n = torch.randint(2 * margin + 1, (2, 30), generator=seeded())
    wide = torch.nn.functional.pad(images.float(), (margin,) * 4, mode="reflect").to(torch.uint8)
    cut = [
        image[:, row : row + size, column : column + size]
        for image, row, column in zip(wide, *shift_2n.tolist(), strict=True)
    ]
    assert torch.equal(augment(images, "crop", seeded()), torch.stack(cut))


@pytest.mark.parametrize("kind", ["flip", "crop", "flip_crop"])
def test_the_same_seed_changes_images_in_the_same_way(kind):
    first, again = augment(pixels(20), kind, seeded(1)), augment(pixels(20), kind, seeded(1))
    assert torch.equal(first, again)
    assert not torch.equal(first, augment(pixels(20), kind, seeded(2)))
    assert first.shape == (20, 3, 16, 16)
    assert first.dtype == torch.uint8


def test_crop_works_at_the_smallest_size():
    assert augment(pixels(3, 1, 8), "flip_crop", seeded()).shape == (3, 1, 8, 8)
