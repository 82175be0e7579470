"""Thumbnails of every kind of file that a drop may hold."""

import io
import struct
import zlib

import pytest
from PIL import Image

from alfamix_core.errors import SampleError
from alfamix_core.reports.thumbnails import thumbnail


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(thumbnail(data))).convert("RGB")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_png_of_every_mode_becomes_a_small_webp(mode):
    small = thumbnail(encoded(Image.new("RGB", (300, 200), "teal").convert("L" if mode == "I;16" else mode)))
    assert small[:4] == b"RIFF"
    assert Image.open(io.BytesIO(small)).size == (96, 64)


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "L"), ("JPEG", "RGB"), ("JPEG", "CMYK"), ("WEBP", "RGBA")])
def test_jpeg_and_webp_are_read_too(kind, mode):
    assert opened(encoded(Image.new(mode, (64, 640)), kind)).size == (10, 96)


def test_large_jpeg_keeps_its_colour_through_draft_mode():
    red, green, blue = opened(encoded(Image.new("RGB", (2000, 1500), (200, 40, 40)), "JPEG")).getpixel((48, 36))
    assert abs(red - 200) < 8
    assert abs(green - 40) < 8
    assert abs(blue - 40) < 8


def test_tiny_image_is_enlarged_without_smoothing():
    """8 x 8 becomes 96 x 96: each pixel a block of 12 x 12, so that a block's corners have its one value."""
    image = Image.new("L", (8, 8))
    image.putpixel((3, 5), 255)
    result = opened(encoded(image))
    assert result.size == (96, 96)
    assert {result.getpixel(at) for at in [(36, 60), (47, 60), (36, 71), (47, 71)]} == {(255, 255, 255)}
    assert {result.getpixel(at) for at in [(35, 60), (48, 60), (36, 59), (36, 72)]} == {(0, 0, 0)}


def test_orientation_of_a_camera_is_applied():
    """Orientation 6 says that the picture is to be turned by a quarter: left becomes top."""
    image = Image.new("RGB", (200, 100), "black")
    image.paste("white", (0, 0, 100, 100))
    exif = Image.Exif()
    exif[0x0112] = 6
    result = opened(encoded(image, "JPEG", exif=exif))
    assert result.size == (48, 96)
    assert result.getpixel((24, 10))[0] > 240
    assert result.getpixel((24, 86))[0] < 15


def test_sixteen_bits_are_stretched_to_their_own_range():
    """Values 1000 and 1400 of 65,535 would both be black."""
    deep = Image.new("I;16", (96, 96), 1000)
    deep.paste(1400, (48, 0, 96, 96))
    result = opened(encoded(deep))
    assert result.getpixel((10, 10))[0] < 8
    assert result.getpixel((86, 86))[0] > 247


def test_sixteen_bits_of_one_value_do_not_divide_by_zero():
    assert opened(encoded(Image.new("I;16", (9, 9), 700))).getpixel((0, 0)) == (0, 0, 0)


def test_transparency_lies_on_white():
    assert opened(encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0)))).getpixel((5, 5)) == (255, 255, 255)


def test_equal_input_gives_equal_bytes():
    data = encoded(Image.effect_noise((300, 300), 60), "JPEG")
    assert thumbnail(data) == thumbnail(data)


def test_image_as_wide_as_a_line_keeps_one_pixel_of_height():
    assert opened(encoded(Image.new("L", (5000, 1)))).size == (96, 1)


@pytest.mark.parametrize("data", [b"", b"not an image", b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"])
def test_other_files_are_refused(data):
    with pytest.raises(SampleError, match="cannot be decoded"):
        thumbnail(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_truncated_file_is_refused(kind):
    data = encoded(Image.effect_noise((200, 200), 60), kind)
    with pytest.raises(SampleError, match="cannot be decoded"):
        thumbnail(data[: len(data) // 2])


def test_image_above_the_limit_is_refused_before_it_is_decoded():
    with pytest.raises(SampleError, match="must have at most 39,999 pixels, not 40,000"):
        thumbnail(encoded(Image.new("1", (200, 200))), max_pixels=39_999)


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_decompression_bomb_is_refused(side):
    """A PNG whose header promises more pixels than Pillow itself warns of, and than it refuses."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    with pytest.raises(SampleError, match="pixels"):
        thumbnail(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64))))


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
