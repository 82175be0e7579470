"""From the bytes of an image file to the pixels that the model sees.

Whatever a file holds (grey, colour, palette, transparency, 16 bits, CMYK, an orientation in its EXIF), a square of
one or three channels of 8 bits comes out. The resizing is the arithmetic of torchvision's transforms v2, to the bit
(a test compares them); torchvision itself is not imported, since that costs as much time as torch and every stage is
a process of its own.
"""

import io
import warnings

import torch
from PIL import Image
from torch import Tensor

from alfamix_core.errors import SampleError, one_line
from alfamix_core.records.image_file import FORMATS, MAX_SCANS, check_pieces
from alfamix_core.records.project import ImageSettings

DECODING = 1
"""Number of the rules by which a file becomes pixels; it grows when a file gives other pixels than before."""

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# what Pillow raises on damaged files (60,000 mutated files raised nothing else); OSError holds UnidentifiedImageError
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError)


def channels(image: ImageSettings) -> int:
    """Return the number of channels of a decoded image: 3, or 1 for grey."""
    return 3 if image.channels == "colour" else 1


def decode(data: bytes, image: ImageSettings, max_pixels: int, max_scans: int = MAX_SCANS) -> Tensor:
    """Decode one PNG, JPEG or WebP file into the square that the model sees.

    The number of the file's pieces and the size in its header are checked before anything is decoded. The first frame
    counts, transparent pixels lie on white, 16 bits become 8 by dropping the lower ones, colour becomes grey by
    Rec. 601 luma. The aspect ratio is not kept: nothing is cut off.

    Args:
        data: The whole file.
        image: Side of the square, and colour or grey.
        max_pixels: Width x height that is still decoded.
        max_scans: Scans of a JPEG that are still decoded.

    Returns:
        (C, size, size) uint8, contiguous; C is 3 for colour (red, green, blue), 1 for grey. Equal bytes give equal
        pixels.

    Raises:
        SampleError: The file is empty, of another format, damaged, too large or made of too many pieces; the reason in
            a few words.
    """
    if not data:
        raise SampleError("the file is empty (0 bytes)")
    check_pieces(data, max_scans)
    with warnings.catch_warnings():
        # Pillow warns of odd metadata and of sizes that we check ourselves
        warnings.simplefilter("ignore")
        try:
            picture: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise SampleError(f"{_sentence(error)}; limits.max_pixels is {max_pixels}") from None
        except _DAMAGE:
            raise SampleError("not a PNG, JPEG or WebP image, or its header is damaged") from None
        width, height = picture.size
        if width * height > max_pixels:
            raise SampleError(f"{width} × {height} pixels are more than limits.max_pixels = {max_pixels}")
        try:
            # a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, if that leaves twice what is asked for
            picture.draft(None, (2 * image.size, 2 * image.size))
            picture.load()
            picture = _plain(_upright(picture), image)
        except _DAMAGE as error:
            raise SampleError(f"the image is damaged: {_sentence(error)}") from None
    return _resized(_pixels(picture), image.size)


def _upright(picture: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF orientation says; one whose EXIF cannot be read stays as it is."""
    try:
        orientation = picture.getexif().get(_EXIF_ORIENTATION)
    except _DAMAGE:
        return picture
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return picture if method is None else picture.transpose(method)


def _plain(picture: Image.Image, image: ImageSettings) -> Image.Image:
    """Return a picture of 8-bit grey or colour without transparency."""
    if picture.mode.startswith("I"):
        samples = torch.frombuffer(bytearray(picture.convert("I").tobytes()), dtype=torch.int32)
        picture = Image.frombytes("L", picture.size, samples.bitwise_right_shift(8).to(torch.uint8).numpy().tobytes())
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    mode = "RGB" if image.channels == "colour" else "L"
    return picture if picture.mode == mode else picture.convert(mode)


def _pixels(picture: Image.Image) -> Tensor:
    """Return (C, height, width) uint8."""
    width, height = picture.size
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return pixels.reshape(height, width, -1).permute(2, 0, 1)


def _resized(pixels: Tensor, size: int) -> Tensor:
    """Return (C, size, size), bilinear with antialiasing."""
    if pixels.shape[1:] == (size, size):
        return pixels.contiguous()
    square = torch.nn.functional.interpolate(pixels[None], size=(size, size), mode="bilinear", antialias=True)
    return square[0].contiguous()


def _sentence(error: Exception) -> str:
    return one_line(error)[:200].rstrip(".")
