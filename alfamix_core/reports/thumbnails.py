"""From a sample's file to a small picture of it."""

import io
import struct
import zlib

from PIL import Image, ImageOps

from alfamix_core.errors import SampleError
from alfamix_core.records.image_file import FORMATS, MAX_SCANS, check_pieces

_DEEP = {"I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def thumbnail(data: bytes, side: int = 96, max_pixels: int = 50_000_000, max_scans: int = MAX_SCANS) -> bytes:
    """Return a WebP picture of at most ``side`` x ``side`` pixels, upright, proportions kept.

    A smaller image is enlarged by a whole factor without smoothing, so that 8 x 8 digits can be seen. Samples deeper
    than 8 bits are stretched to their own darkest and lightest value; transparency lies on white.

    Args:
        data: a PNG, JPEG or WebP file.
        side: of the result, pixels.
        max_pixels: of the decoded image; a larger one is refused before it is decoded.
        max_scans: of a JPEG; one with more is refused before it is opened.

    Returns:
        The file's bytes; the same for the same input and Pillow.

    Raises:
        SampleError: not such a file, broken, too large, or made of too many pieces.
    """
    check_pieces(data, max_scans)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            pixels = opened.width * opened.height
            if pixels > max_pixels:
                raise SampleError(f"the image has {pixels:,} pixels, at most {max_pixels:,} are allowed")
            opened.draft(None, (2 * side, 2 * side))  # a JPEG is decoded at an eighth … of its size where that suffices
            image = _plain(ImageOps.exif_transpose(opened))
    except Image.DecompressionBombWarning as warning:
        raise SampleError(f"the image is too large: {warning}") from None
    except _BROKEN as error:
        raise SampleError(f"the image cannot be decoded: {error}") from None
    enlarge = side // max(image.size)
    if enlarge > 1:
        image = image.resize((image.width * enlarge, image.height * enlarge), Image.Resampling.NEAREST)
    else:
        image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    out = io.BytesIO()
    image.save(out, "WEBP", lossless=enlarge > 1, quality=80, method=4)
    return out.getvalue()


def _plain(image: Image.Image) -> Image.Image:
    if image.mode in _DEEP:
        low, high = image.convert("F").getextrema()
        assert isinstance(low, float)
        assert isinstance(high, float)
        scale = 255 / (high - low) if high > low else 0.0
        return image.convert("F").point(lambda value: value * scale - low * scale).convert("L").convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(ground, image).convert("RGB")
    return image.convert("RGB")
