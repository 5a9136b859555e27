"""The pictures of a table's rows: which files they are, and whether these can be used. No torch."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
PICTURE_FORMATS = ("JPEG", "PNG", "WEBP")  # whatever the file is called: other decoders run programs of their own
_END_MARKS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
MAX_PICTURE_PIXELS = 50_000_000  # 150 MB decoded; a larger header is a mistake or a decompression bomb


class PictureFolder:
    """The pictures of a folder by the ids that they are named after. It is read once, and only names are kept: it may hold
    millions.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.suffix_of: dict[str, str] = {}
        self.several: dict[str, list[str]] = {}
        with os.scandir(root) as entries:
            for entry in entries:
                stem, suffix = os.path.splitext(entry.name)
                if suffix.lower() not in PICTURE_SUFFIXES:
                    continue
                if stem in self.suffix_of:
                    self.several.setdefault(stem, [stem + self.suffix_of[stem]]).append(entry.name)
                self.suffix_of[stem] = sys.intern(suffix)

    def find(self, row_id: str) -> Path | None:
        """The picture of a row, one of them where there are several; None: it has none."""
        return self.root / f"{row_id}{self.suffix_of[row_id]}" if row_id in self.suffix_of else None


def check_picture_header(path: Path) -> str | None:
    """What is wrong with a picture as far as its header and its last bytes tell, or None."""
    from PIL import Image  # here: a table without pictures needs no Pillow

    if not path.is_file():  # a pipe or a device: opening it could wait for ever
        return f"{path.name} is no regular file"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is stricter
            with Image.open(path, formats=PICTURE_FORMATS) as picture:
                width, height, kind = *picture.size, picture.format
                if width * height > MAX_PICTURE_PIXELS:
                    return f"{path.name} has {width} x {height} pixels, more than {MAX_PICTURE_PIXELS:,}"
                end = read_end(path, path.stat().st_size, 64)
                if _END_MARKS.get(kind, b"") not in end:  # cut off, or followed by something else: decoding tells
                    picture.load()
    except Image.DecompressionBombError:
        return f"larger than {MAX_PICTURE_PIXELS:,} pixels"
    except (OSError, ValueError, SyntaxError) as error:
        return f"{path.name} is no whole picture: {error}"
    return None


def read_end(path: Path, size: int, length: int) -> bytes:
    """The last bytes of a file of this size."""
    with path.open("rb") as file:
        file.seek(max(0, size - length))
        return file.read()
