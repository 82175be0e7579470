"""Thumbnails of samples."""

import io
import struct
import zlib

from PIL import Image, ImageOps

from alfamix_core.errors import SampleError
from alfamix_core.records.image_file import FORMATS, MAX_SCANS, check_pieces

_DEEP = {"I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def thumbnail(data: bytes, side: int = 96, max_pixels: int = 50_000_000, max_scans: int = MAX_SCANS) -> bytes:
    """Return a WebP thumbnail of at most ``side`` x ``side`` pixels, upright and with the image's proportions.

    A smaller image is enlarged by a whole factor without smoothing, so that 8 x 8 digits can be seen. The values of
    images deeper than 8 bits are stretched from their minimum to their maximum; transparent pixels are put on white.

    Args:
        data: Content of a PNG, JPEG or WebP file.
        side: Greatest side of the thumbnail, in pixels.
        max_pixels: Greatest number of pixels of the image; a larger one is refused before it is decoded.
        max_scans: Greatest number of scans of a JPEG; one with more is refused before it is opened.

    Returns:
        The content of the WebP file; the same input and version of Pillow give the same bytes.

    Raises:
        SampleError: The file has another format, is damaged, too large, or made of too many pieces.
    """
    check_pieces(data, max_scans)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            pixels = opened.width * opened.height
            if pixels > max_pixels:
                raise SampleError(f"the image must have at most {max_pixels:,} pixels, not {pixels:,}")
            # a JPEG is decoded at 1/2, 1/4 or 1/8 of its size if that suffices
            opened.draft(None, (2 * side, 2 * side))
            image = _plain(ImageOps.exif_transpose(opened))
    except Image.DecompressionBombWarning as warning:
        raise SampleError(f"the image is too large: {warning}") from None
    except _DAMAGE as error:
        raise SampleError(f"the image cannot be decoded: {error}") from None
    factor = side // max(image.size)
    if factor > 1:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    else:
        image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    stream = io.BytesIO()
    image.save(stream, "WEBP", lossless=factor > 1, quality=80, method=4)
    return stream.getvalue()


def _plain(image: Image.Image) -> Image.Image:
    if image.mode in _DEEP:
        low, high = image.convert("F").getextrema()
        assert isinstance(low, float)
        assert isinstance(high, float)
        scale = 255 / (high - low) if high > low else 0.0
        return image.convert("F").point(lambda value: value * scale - low * scale).convert("L").convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(background, image).convert("RGB")
    return image.convert("RGB")
