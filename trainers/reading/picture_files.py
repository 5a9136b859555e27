"""The files of pictures in a folder: which there are, and whether they can be used. `pictures.py` decodes them. No
torch."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from trainers.reading.picture_rules import PictureRules

if TYPE_CHECKING:
    from trainers.storage.remote_files import RemoteFile

NO_PICTURE = "their endings are no picture's"
_FIRST = (".jpg", ".jpeg", ".png", ".webp")
PICTURE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".jp2", ".j2k",
    ".jpx",
    ".ppm", ".pgm", ".pbm", ".pnm", ".avif",
)  # fmt: skip
_END_MARKS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND", "WEBP": b""}  # of others all is decoded


class Found(NamedTuple):
    """The picture of a row; None: there is none.

    Attributes:
        picture: its file.
        problem: what is wrong with it, or None.
        largest: value of a channel of 16 bits that does not say how many are in use; 0 of other files.
    """

    picture: Path | RemoteFile | None
    problem: str | None
    largest: int = 0


@dataclass
class LeftOut:
    """Files of a folder of pictures that are not read.

    Attributes:
        kinds: by why and ending how many there are.
        ending_of: of files whose ending is no picture's, by their names without it.
    """

    kinds: dict[tuple[str, str], int] = field(default_factory=dict)
    ending_of: dict[str, str] = field(default_factory=dict)

    def add(self, stem: str, ending: str, why: str = NO_PICTURE) -> None:
        """Counts a file."""
        shown = re.sub(r"[^\w.~+-]", "?", ending.lower())[:20]  # it is for terminals and spreadsheets
        self.kinds[why, shown] = self.kinds.get((why, shown), 0) + 1
        if why == NO_PICTURE:
            self.ending_of[stem] = sys.intern(ending)

    def describe(self, folder: str) -> tuple[str, ...]:
        """Sentences."""
        said: dict[str, list[str]] = {}
        for (why, ending), num in self.kinds.items():
            said.setdefault(why, []).append(f"{num:,} of {ending or 'no ending'}")
        return tuple(f"files of {folder}/ are left out, for {why}: {', '.join(kinds)}" for why, kinds in said.items())

    def list_rows(self, folder: str) -> tuple[dict[str, str], ...]:
        """Lines of the list of bad rows, one for each ending."""
        return tuple(
            {
                "table": f"{folder}/",
                "id": f"*{ending}",
                "problem": f"{num:,} files with {ending or 'no ending'}: {why}",
                "done": "left out",
            }
            for (why, ending), num in self.kinds.items()
        )


def load_decoders() -> None:
    """Imports what decodes pictures. To be called before several threads open some: Pillow would import it in whichever
    is first."""
    import trainers.reading.pictures  # noqa: F401  (here: a table without pictures needs no Pillow)


class PictureFolder:
    """The pictures of a folder by the ids that they are named after. It is read once, and only names are kept: it may
    hold millions.

    Args:
        root: the folder.
        rules: by which its pictures are read.
    """

    def __init__(self, root: Path, rules: PictureRules | None = None) -> None:
        self.root, self.rules = root, rules or PictureRules()
        with os.scandir(root) as entries:
            names = [entry.name for entry in entries if is_wanted(entry.name) or not entry.is_dir()]
        self.suffix_of, self.several, self.left_out = sort_names(names)

    def find_all(self, ids: Sequence[str]) -> list[Found]:
        """The picture of each row, one of them where there are several."""
        return [self._check(row_id) for row_id in ids]

    def find(self, row_id: str) -> Path | None:
        """The picture of a row, one of them where there are several; None: it has none."""
        return self.root / f"{row_id}{self.suffix_of[row_id]}" if row_id in self.suffix_of else None

    def _check(self, row_id: str) -> Found:
        path = self.find(row_id)
        if path is None:
            return Found(None, describe_missing(self.root.name, row_id, self.left_out))
        return Found(path, *check_picture_header(path, self.rules))


def describe_missing(folder: str, row_id: str, left_out: LeftOut) -> str:
    """What is said of a row without a picture."""
    ending = left_out.ending_of.get(row_id)
    return f"no {folder}/{row_id}.jpg" + (f"; {row_id}{ending} is there, and is not read" if ending else "")


def is_wanted(name: str) -> bool:
    """Whether a file is taken for a picture. Hidden files are not: macOS leaves one of its own beside each that it
    packs."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES


def sort_names(names: Iterable[str]) -> tuple[dict[str, str], dict[str, list[str]], LeftOut]:
    """The names of pictures: the suffix by the id that each is named after, all names of an id that has several, and
    what is not read. Beside a JPEG, PNG or WebP file one of another format is taken for what it was made from."""
    suffix_of: dict[str, str] = {}
    several: dict[str, list[str]] = {}
    left_out = LeftOut()
    others = []
    for name in names:
        stem, suffix = os.path.splitext(name)
        if not is_wanted(name):
            if not name.startswith(".") and name.lower() not in ("thumbs.db", "desktop.ini"):
                left_out.add(stem, suffix)
        elif suffix.lower() in _FIRST:
            _add(stem, suffix, suffix_of, several)
        else:
            others.append((stem, suffix))
    first = set(suffix_of) if others else set()
    for stem, suffix in others:
        if stem in first:
            left_out.add(stem, suffix, "there are JPEG, PNG or WebP files of the same names")
        else:
            _add(stem, suffix, suffix_of, several)
    return suffix_of, several, left_out


def _add(stem: str, suffix: str, suffix_of: dict[str, str], several: dict[str, list[str]]) -> None:
    if stem in suffix_of:
        several.setdefault(stem, [stem + suffix_of[stem]]).append(stem + suffix)
    suffix_of[stem] = sys.intern(suffix)


def check_picture_header(path: Path, rules: PictureRules) -> tuple[str | None, int]:
    """What is wrong with a picture as far as its header and its last bytes tell, or None; and its `Found.largest`."""
    if not path.is_file():  # a pipe or a device: opening it could wait for ever
        return f"{path.name} is not a regular file", 0
    try:
        with path.open("rb") as file:
            return _check_header(file, path.name, lambda: read_end(path, path.stat().st_size, 64), rules)
    except OSError as error:
        return f"{path.name} is not a whole picture: {error}", 0


def check_picture_content(content: bytes, name: str, rules: PictureRules) -> tuple[str | None, int]:
    """As `check_picture_header`, of a picture that is in memory."""
    return _check_header(io.BytesIO(content), name, lambda: content[-64:], rules)


def _check_header(
    source: io.BufferedReader | io.BytesIO, name: str, read_last: Callable[[], bytes], rules: PictureRules
) -> tuple[str | None, int]:
    from trainers.reading.pictures import (  # here: a table without pictures needs no Pillow
        DamagedError,
        UnusableError,
        check_mode,
        load,
        open_picture,
        settle_depth,
    )

    try:
        opened = open_picture(source, rules.max_pixels)
        check_mode(opened)
        # Without its end it is cut off, or followed by something else: decoding tells.
        mark = _END_MARKS.get(opened.picture.format or "")
        has_16_bits = opened.is_deep or opened.is_cut
        if has_16_bits or mark is None or mark not in read_last():
            load(opened)
        return None, settle_depth(opened, rules)[1] if has_16_bits else 0
    except DamagedError as error:
        return f"{name} is not a whole picture: {error.cause}", 0
    except UnusableError as error:
        return f"{name} {error}", 0


def read_end(path: Path, size: int, length: int) -> bytes:
    """The last bytes of a file of this size."""
    with path.open("rb") as file:
        file.seek(max(0, size - length))
        return file.read()


def collect_left_out(folders: Mapping[str, LeftOut]) -> tuple[tuple[str, ...], tuple[dict[str, str], ...]]:
    """Sentences for the user, and lines of the list of bad rows, by the folders' names."""
    notes = tuple(note for name, left_out in folders.items() for note in left_out.describe(name))
    return notes, tuple(row for name, left_out in folders.items() for row in left_out.list_rows(name))
