"""Files of pictures of every mode and format that matters, in memory."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

ORIENTATION = 0x0112


def encode(picture: Image.Image | np.ndarray, kind: str = "PNG", *, orientation: int = 1, **options: Any) -> bytes:
    """A picture as the bytes of a file; with an EXIF orientation, if it is not 1."""
    buffer = io.BytesIO()
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    if orientation != 1:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        options["exif"] = exif
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def encode_deep_colours(values_HW3: np.ndarray) -> bytes:
    """A PNG with 16 bits a channel, which Pillow reads and does not write."""
    height, width, _ = values_HW3.shape
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values_HW3)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def encode_12_bit_tiff(values_HW: np.ndarray) -> bytes:
    """A TIFF whose samples have 12 bits, two of them in three bytes; the width is even."""
    height, width = values_HW.shape
    pairs = values_HW.reshape(-1, 2).astype(np.uint32)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], -1)
    data = packed.astype(np.uint8).tobytes()
    tags = (
        (256, width),
        (257, height),
        (258, 12),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, height),
        (279, len(data)),
    )
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def with_alpha(picture: np.ndarray, alpha_HW: np.ndarray) -> Image.Image:
    """A picture with a channel of transparency; 255 is opaque."""
    image = Image.fromarray(picture)
    image.putalpha(Image.fromarray(alpha_HW))
    return image
