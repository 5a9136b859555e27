"""The pictures of a table's rows: which files they are, and whether these can be used. No torch."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
PICTURE_FORMATS = ("JPEG", "PNG", "WEBP")  # whatever the file is called: other decoders run programs of their own
_END_MARKS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
MAX_PICTURE_PIXELS = 50_000_000  # 150 MB decoded; a larger header is a mistake or a decompression bomb


def load_decoders() -> None:
    """Imports what decodes pictures. To be called before several threads open some: Pillow would import it in whichever is first."""
    from PIL import Image, WebPImagePlugin  # noqa: F401  (here: a table without pictures needs no Pillow)

    Image.preinit()


class PictureFolder:
    """The pictures of a folder by the ids that they are named after. It is read once, and only names are kept: it may hold
    millions.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        with os.scandir(root) as entries:
            self.suffix_of, self.several = sort_names(entry.name for entry in entries)

    def find_all(self, ids: Sequence[str]) -> list[tuple[Path | None, str | None]]:
        """The picture of each row, one of them where there are several, or None; and what is wrong with it, or None."""
        return [self._check(row_id) for row_id in ids]

    def find(self, row_id: str) -> Path | None:
        """The picture of a row, one of them where there are several; None: it has none."""
        return self.root / f"{row_id}{self.suffix_of[row_id]}" if row_id in self.suffix_of else None

    def _check(self, row_id: str) -> tuple[Path | None, str | None]:
        path = self.find(row_id)
        return (None, f"no {self.root.name}/{row_id}.jpg") if path is None else (path, check_picture_header(path))


def sort_names(names: Iterable[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The names of pictures: the suffix by the id that each is named after, and all names of an id that has several."""
    suffix_of: dict[str, str] = {}
    several: dict[str, list[str]] = {}
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() not in PICTURE_SUFFIXES:
            continue
        if stem in suffix_of:
            several.setdefault(stem, [stem + suffix_of[stem]]).append(name)
        suffix_of[stem] = sys.intern(suffix)
    return suffix_of, several


def check_picture_header(path: Path) -> str | None:
    """What is wrong with a picture as far as its header and its last bytes tell, or None."""
    if not path.is_file():  # a pipe or a device: opening it could wait for ever
        return f"{path.name} is no regular file"
    return _check_header(path, path.name, lambda: read_end(path, path.stat().st_size, 64))


def check_picture_content(content: bytes, name: str) -> str | None:
    """As `check_picture_header`, of a picture that is in memory."""
    return _check_header(_NamedBytes(content, name), name, lambda: content[-64:])


class _NamedBytes(io.BytesIO):
    """Pillow's messages show what it reads from."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.shown = name

    def __repr__(self) -> str:
        return repr(self.shown)


def _check_header(source: Path | io.BytesIO, name: str, read_last: Callable[[], bytes]) -> str | None:
    from PIL import Image  # here: a table without pictures needs no Pillow

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is stricter
            with Image.open(source, formats=PICTURE_FORMATS) as picture:
                (width, height), kind = picture.size, picture.format
                if width * height > MAX_PICTURE_PIXELS:
                    return f"{name} has {width} x {height} pixels, more than {MAX_PICTURE_PIXELS:,}"
                # Without its end it is cut off, or followed by something else: decoding tells.
                if _END_MARKS.get(kind or "", b"") not in read_last():
                    picture.load()
    except Image.DecompressionBombError:
        return f"larger than {MAX_PICTURE_PIXELS:,} pixels"
    except (OSError, ValueError, SyntaxError) as error:
        return f"{name} is no whole picture: {error}"
    return None


def read_end(path: Path, size: int, length: int) -> bytes:
    """The last bytes of a file of this size."""
    with path.open("rb") as file:
        file.seek(max(0, size - length))
        return file.read()
