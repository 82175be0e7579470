"""Limits on the structure of a sample's file, so that no file costs more to open than its size suggests.

Pixels alone do not bound the work. A JPEG may repeat a progressive scan of a few bytes, and each costs a pass over the
whole image; a PNG may hold thousands of chunks that unpack to 1 MiB each; Pillow walks over segments, chunks and stray
bytes one by one in Python, and joins the pieces of an EXIF block by copying all that came before. The walk here visits
the same pieces first and stops at a bound. A WebP file needs none: its one frame is decoded once, and its chunks are
walked in C. Formats other than these three are never opened.
"""

import re
import struct

from alfamix_core.errors import SampleError

FORMATS = ("PNG", "JPEG", "WEBP")
"""Formats of samples, by Pillow's names."""

MAX_SCANS = 100
"""Default limit on the scans of a JPEG."""

_FREE_PIECES = 1_000  # segments or chunks allowed in any file, and one more per _PIECE_BYTES of its size
_PIECE_BYTES = 1_024
_MAX_STRAY = 65_536  # bytes between the segments of a JPEG's header
_MAX_EXIF = 16  # segments that an EXIF block of a JPEG may be split into; the standard allows one
_MAX_PACKED = 100  # compressed chunks of a PNG beside its pixels; each may unpack to 1 MiB

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_PACKED = (b"iCCP", b"zTXt", b"iTXt")
# fill bytes, stuffed zeros, restart markers and what libjpeg takes for noise are no segments
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
_END, _SCAN, _APP1 = 0xD9, 0xDA, 0xE1
# frames that libjpeg decodes, tables, restart interval, number of lines, scans, applications, comments
_SEGMENTS = {0xC0, 0xC1, 0xC2, 0xC4, 0xC9, 0xCA, 0xCC, _SCAN, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE}


def check_pieces(data: bytes, max_scans: int = MAX_SCANS) -> None:
    """Refuse a file whose pieces cost more to open than its size and its pixels suggest.

    Args:
        data: The whole file; other formats pass, since opening them fails anyway.
        max_scans: Maximum number of scans of a JPEG, at least 1.

    Raises:
        SampleError: Too many scans, segments or chunks, or a segment that no JPEG has; the reason in a few words.
    """
    if data.startswith(_JPEG):
        _check_jpeg(data, max_scans)
    elif data.startswith(_PNG):
        _check_png(data)


def _check_jpeg(data: bytes, max_scans: int) -> None:
    """Walk over the segments as libjpeg does, to the first scan or, where there may be too many, to the end."""
    has_few_scans = data.count(b"\xff\xda") <= max_scans  # also counts such bytes inside segments and behind the end
    offset, scans, segments, exif, stray = 2, 0, 0, 0, 0
    while match := _MARKER.search(data, offset):
        marker, gap = data[match.end() - 1], match.start() - offset
        offset = match.end()
        if marker == _END and scans:
            return
        stray += 0 if scans else gap + 2 * (marker == _END)
        if stray > _MAX_STRAY:
            raise SampleError(f"the image is damaged: more than {_MAX_STRAY} stray bytes before its first scan")
        if marker == _END:
            continue
        if marker not in _SEGMENTS:
            raise SampleError(f"the image is damaged: a JPEG has no segment 0x{marker:02X}")
        segments += 1
        _check_count(segments, len(data), "segments")
        if marker == _SCAN:
            scans += 1
            if has_few_scans:
                return
            if scans > max_scans:
                raise SampleError(f"more scans than limits.max_scans = {max_scans}")
        if marker == _APP1 and data[offset + 2 : offset + 6] == b"Exif":
            exif += 1
            if exif > _MAX_EXIF:
                raise SampleError(f"its EXIF block has more than {_MAX_EXIF} pieces")
        offset += max(2, int.from_bytes(data[offset : offset + 2]))


def _check_png(data: bytes) -> None:
    offset, chunks, packed = len(_PNG), 0, 0
    while offset + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, offset)
        if kind == b"IEND":
            return
        chunks += 1
        _check_count(chunks, len(data), "chunks")
        packed += kind in _PACKED
        if packed > _MAX_PACKED:
            raise SampleError(f"more than {_MAX_PACKED} compressed chunks beside its pixels")
        offset += 12 + size


def _check_count(count: int, size: int, pieces: str) -> None:
    most = _FREE_PIECES + size // _PIECE_BYTES
    if count > most:
        raise SampleError(f"more than {most} {pieces} in {size} bytes")
