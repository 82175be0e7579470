import io
import random
import struct
import zlib

import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as v2

from alfamix_core.errors import SampleError
from alfamix_core.learning.images import decode
from alfamix_core.records.project import ImageSettings

COLOUR = ImageSettings(size=8, channels="colour")
GREY = ImageSettings(size=8, channels="grey")
MANY = 1_000_000


def square(colour, mode="RGB") -> Image.Image:
    return Image.new(mode, (8, 8), colour)


def pixel(data: bytes, settings: ImageSettings = COLOUR) -> list[int]:
    return decode(data, settings, MANY)[:, 3, 3].tolist()


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_colours_come_out_as_they_went_in(as_file, kind):
    assert pixel(as_file(square((200, 100, 50)), kind, lossless=True)) == [200, 100, 50]


def test_jpeg_colours_come_out_nearly_as_they_went_in(as_file):
    assert pixel(as_file(square((200, 100, 50)), "JPEG")) == pytest.approx([200, 100, 50], abs=3)


def test_an_image_of_the_right_size_is_not_resampled(as_file, photo):
    picture = photo.crop((0, 0, 8, 8))
    decoded = decode(as_file(picture, "PNG"), COLOUR, MANY)
    assert decoded.dtype == torch.uint8
    assert decoded.is_contiguous()
    assert decoded.permute(1, 2, 0).flatten().tolist() == list(picture.tobytes())


@pytest.mark.parametrize("size", [8, 13, 40])
@pytest.mark.parametrize("settings", ["colour", "grey"])
def test_resizing_is_that_of_torchvision_to_the_bit(as_file, photo, size, settings):
    image = ImageSettings(size=size, channels=settings)
    picture = photo if settings == "colour" else photo.convert("L")
    theirs = v2.resize(v2.pil_to_tensor(picture), [size, size], antialias=True)
    assert torch.equal(decode(as_file(picture, "PNG"), image, MANY), theirs)


def test_grey_files_have_three_equal_channels_where_colour_is_asked_for(as_file):
    assert pixel(as_file(square(77, "L"), "PNG")) == [77, 77, 77]


def test_colour_files_become_luma_where_grey_is_asked_for(as_file):
    # 0.299 R + 0.587 G + 0.114 B
    assert pixel(as_file(square((255, 0, 0)), "PNG"), GREY) == [76]
    assert pixel(as_file(square((0, 255, 0)), "PNG"), GREY) == [150]


def test_palette_colours_are_looked_up(as_file):
    assert pixel(as_file(square((200, 100, 50)).quantize(4), "PNG")) == [200, 100, 50]


def test_one_bit_images_are_black_and_white(as_file):
    assert pixel(as_file(square(1, "1"), "PNG"), GREY) == [255]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparent_pixels_lie_on_white(as_file, kind):
    assert pixel(as_file(square((200, 100, 50, 0), "RGBA"), kind, lossless=True)) == [255, 255, 255]
    assert pixel(as_file(square((0, 100, 50, 128), "RGBA"), kind, lossless=True))[0] == 127


def test_transparency_of_a_palette_and_of_grey_lies_on_white(as_file):
    assert pixel(as_file(square((0, 0), "LA"), "PNG")) == [255, 255, 255]
    assert pixel(as_file(square(0, "P"), "PNG", transparency=0)) == [255, 255, 255]


@pytest.mark.parametrize(("value", "byte"), [(0, 0), (255, 0), (256, 1), (0x80FF, 0x80), (65535, 255)])
def test_of_sixteen_bits_the_upper_eight_stay(as_file, value, byte):
    picture = Image.frombytes("I;16", (8, 8), struct.pack("<H", value) * 64)
    assert pixel(as_file(picture, "PNG"), GREY) == [byte]
    assert pixel(as_file(picture, "PNG")) == [byte] * 3


def test_cmyk_becomes_colour(as_file):
    # no black, full yellow
    assert pixel(as_file(square((0, 0, 255, 0), "CMYK"), "JPEG")) == pytest.approx([255, 255, 0], abs=3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_is_turned_as_its_exif_says(as_file, kind):
    """Orientation 6: turn a quarter to the right, so that the white left half becomes the upper half."""
    picture = Image.new("L", (16, 16), 0)
    picture.paste(255, (0, 0, 8, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode(as_file(picture.convert("RGB"), kind, exif=exif), GREY, MANY)[0]
    assert decoded[:3].float().mean() > 250
    assert decoded[5:].float().mean() < 5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation_is_the_turn_that_pillow_makes(as_file, photo, orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = as_file(photo, "PNG", exif=exif)
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert torch.equal(decode(data, COLOUR, MANY), decode(as_file(turned, "PNG", exif=Image.Exif()), COLOUR, MANY))


def test_of_an_animation_the_first_frame_counts(as_file):
    frames = [square((255, 0, 0)), square((0, 0, 255))]
    data = as_file(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert pixel(data) == [255, 0, 0]


def test_a_large_jpeg_decoded_at_a_fraction_looks_the_same(as_file):
    picture = Image.radial_gradient("L").resize((640, 480))
    exact = decode(as_file(picture, "PNG"), GREY, MANY).float()
    assert (decode(as_file(picture, "JPEG"), GREY, MANY).float() - exact).abs().max() <= 4


def test_equal_bytes_give_equal_pixels(as_file, photo):
    data = as_file(photo, "JPEG")
    assert torch.equal(decode(data, COLOUR, MANY), decode(data, COLOUR, MANY))


def test_an_empty_file_is_refused():
    with pytest.raises(SampleError, match=r"^the file is empty \(0 bytes\)$"):
        decode(b"", COLOUR, MANY)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF"])
def test_other_formats_are_refused(as_file, kind):
    with pytest.raises(SampleError, match=r"^not a PNG, JPEG or WebP image"):
        decode(as_file(square((1, 2, 3)), kind), COLOUR, MANY)


def test_text_is_refused():
    with pytest.raises(SampleError, match=r"^not a PNG, JPEG or WebP image"):
        decode(b"<html>404 not found</html>", COLOUR, MANY)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_file_is_refused(as_file, kind):
    data = as_file(Image.effect_noise((64, 64), 50).convert("RGB"), kind)
    with pytest.raises(SampleError, match="damaged"):
        decode(data[: len(data) // 2], COLOUR, MANY)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds a few bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def test_a_decompression_bomb_is_refused_by_its_header():
    with pytest.raises(SampleError, match=r"^12000 × 12000 pixels are more than limits.max_pixels = 50000000$"):
        decode(png_header(12_000, 12_000), COLOUR, 50_000_000)
    with pytest.raises(SampleError, match="max_pixels is 50000000"):
        decode(png_header(100_000, 100_000), COLOUR, 50_000_000)


def test_the_pixel_limit_itself_is_allowed(as_file, photo):
    data = as_file(photo, "PNG")
    decode(data, COLOUR, 24 * 16)
    with pytest.raises(SampleError, match="24 × 16"):
        decode(data, COLOUR, 24 * 16 - 1)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_damaged_bytes_give_pixels_or_a_reason_in_one_line_and_nothing_else(as_file, photo, kind):
    chance = random.Random(3)
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = [as_file(photo.convert(mode), kind, exif=exif) for mode in ("RGB", "L")]
    if kind == "PNG":
        whole += [as_file(photo.convert(mode), kind) for mode in ("P", "LA", "1")]
    for _ in range(1500):
        data = bytearray(chance.choice(whole))
        for _ in range(chance.choice([1, 2, 6])):
            place = chance.randrange(len(data) if chance.random() < 0.3 else min(100, len(data)))
            data[place] = chance.randrange(256)
        if chance.random() < 0.2:
            del data[chance.randrange(1, len(data)) :]
        reason = ""
        try:
            assert decode(bytes(data), COLOUR, MANY).shape == (3, 8, 8)
        except SampleError as error:
            reason = str(error)
        assert "\n" not in reason
        assert " at 0x" not in reason
