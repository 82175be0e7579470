"""Files that are small and cost much: each is made here, and refused within the time that a harmless file takes."""

import io
import random
import re
import struct
import time
import zlib

import pytest
import torch
from PIL import Image

from alfamix_core.errors import SampleError
from alfamix_core.learning.images import decode
from alfamix_core.records.image_file import FORMATS, check_pieces
from alfamix_core.records.project import MAX_SCANS, ImageSettings, LimitSettings
from alfamix_core.reports.thumbnails import thumbnail

SQUARE = ImageSettings(size=8, channels="grey")
SIDE = 7_000  # 49 million pixels, within limits.max_pixels


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture(scope="module")
def plain() -> bytes:
    return encoded(Image.new("L", (SIDE, SIDE), 128), "JPEG", progressive=True)


@pytest.fixture(scope="module")
def small() -> bytes:
    return encoded(Image.new("RGB", (64, 64), (1, 2, 3)), "JPEG", progressive=True)


def scans_of(data: bytes) -> list[bytes]:
    starts = [found.start() for found in re.finditer(rb"\xff\xda", data)]
    return [data[start:end] for start, end in zip(starts, [*starts[1:], len(data) - 2], strict=True)]


def with_scans(data: bytes, count: int) -> bytes:
    """A JPEG whose shortest scan comes again and again, so that it has so many."""
    scans = scans_of(data)
    return data[:-2] + min(scans, key=len) * (count - len(scans)) + b"\xff\xd9"


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(chunks: bytes, *, at_the_end: bool = False) -> bytes:
    data = encoded(Image.new("L", (8, 8)), "PNG")
    place = len(data) - 12 if at_the_end else 33  # before IEND, or behind IHDR
    return data[:place] + chunks + data[place:]


def seconds(work) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def test_a_jpeg_with_many_scans_is_refused_before_it_is_decoded(plain):
    """0.3 MB that cost ten times what the plain picture of the same size does, were they decoded."""
    bomb = with_scans(plain, 1_000)
    assert len(bomb) < 400_000

    def refused():
        with pytest.raises(SampleError, match=r"^more scans than limits.max_scans = 100$"):
            decode(bomb, SQUARE, SIDE * SIDE)
        with pytest.raises(SampleError, match=r"^more scans than limits.max_scans = 100$"):
            thumbnail(bomb)

    assert seconds(refused) < 0.1


def test_the_limit_of_scans_is_a_setting_and_the_limit_itself_is_allowed(small):
    check_pieces(with_scans(small, 100), LimitSettings().max_scans)
    decode(with_scans(small, 100), SQUARE, 4_096)
    check_pieces(with_scans(small, 20), 20)
    with pytest.raises(SampleError, match=r"^more scans than limits.max_scans = 20$"):
        decode(with_scans(small, 21), SQUARE, 4_096, max_scans=20)


def test_a_file_whose_thumbnail_or_trailing_video_looks_like_scans_is_no_bomb(small):
    """Bytes inside a segment, and behind the end of the image, are not scans."""
    noise = b"\xff\xda" * 5_000
    data = small[:2] + segment(0xE3, noise) + small[2:] + noise
    assert len(scans_of(data)) > MAX_SCANS
    assert torch.equal(decode(data, SQUARE, 4_096), decode(small, SQUARE, 4_096))


def test_scans_behind_noise_of_every_kind_are_counted(small):
    """Fill bytes, stuffed zeros, restart markers and reserved codes lie between the scans, and libjpeg reads on."""
    scan = min(scans_of(small), key=len)
    for noise in (
        b"\xff\xff\xff",
        b"\xff\x00",
        b"\xff\xd3",
        b"\xff\xd3\xff\xd3",
        b"\x00\x01",
        segment(0xFE, b"\xff\xd9"),
    ):
        data = small[:-2] + (noise + scan) * 101 + b"\xff\xd9"
        with pytest.raises(SampleError, match="more scans than"):
            check_pieces(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(lambda jpeg: jpeg[:2] + segment(0xFE, b"") * 500_000 + jpeg[2:], "segments in", id="comments"),
        pytest.param(lambda jpeg: jpeg[:2] + b"\xff\xd9" * 500_000 + jpeg[2:], "stray bytes", id="ends"),
        pytest.param(lambda jpeg: jpeg[:20] + b"\x00" * 500_000 + jpeg[20:], "stray bytes", id="zeros"),
        pytest.param(lambda jpeg: jpeg[:2] + b"\xff\xd0" * 500_000 + jpeg[2:], "stray bytes", id="restarts"),
        pytest.param(
            lambda jpeg: jpeg[:2] + segment(0xE1, b"Exif\0\0" + b"x" * 2_000) * 1_000 + jpeg[2:], "EXIF", id="exif"
        ),
        pytest.param(
            lambda jpeg: jpeg[:2] + segment(0xF0, segment(0xFE, b"") * 10_000) * 20 + jpeg[2:], "0xF0", id="hidden"
        ),
        pytest.param(lambda _: png_with(chunk(b"prVt", b"") * 200_000), "chunks in", id="chunks"),
        pytest.param(lambda _: png_with(chunk(b"prVt", b"") * 200_000, at_the_end=True), "chunks in", id="last chunks"),
        pytest.param(lambda _: png_with(chunk(b"IDAT", b"") * 200_000), "chunks in", id="pixels"),
        pytest.param(
            lambda _: png_with(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1_000_000))) * 500), "compressed", id="ICC"
        ),
        pytest.param(
            lambda _: png_with(chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(b"\xff" * 1_000_000)) * 500),
            "compressed",
            id="text",
        ),
    ],
)
def test_a_file_of_many_pieces_is_refused_within_a_tenth_of_a_second(small, data, reason):
    bomb = data(small)

    def refused():
        with pytest.raises(SampleError, match=reason):
            decode(bomb, SQUARE, 4_096)

    assert seconds(refused) < 0.1


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_what_encoders_write_passes(kind, mode):
    picture = Image.effect_noise((700, 500), 90).convert(mode)
    exif = Image.Exif()
    exif[0x010E] = "x" * 40_000
    options = {"progressive": True, "comment": b"hello"} if kind == "JPEG" else {}
    data = encoded(picture, kind, exif=exif, icc_profile=random.Random(1).randbytes(300_000), **options)
    check_pieces(data, 20)
    decode(data, SQUARE, 350_000)


def test_an_animation_passes():
    frames = [Image.effect_noise((40, 40), 90) for _ in range(300)]
    for kind in ("PNG", "WEBP"):
        check_pieces(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))


def test_a_webp_of_many_chunks_costs_little():
    """It needs no check: libwebp walks over its chunks."""
    picture = encoded(Image.new("RGB", (64, 64), (1, 2, 3)), "WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0")
    data = picture + b"prVt\0\0\0\0" * 500_000
    data = b"RIFF" + struct.pack("<I", len(data) - 8) + data[8:]
    assert seconds(lambda: decode(data, SQUARE, 4_096)) < 0.5
