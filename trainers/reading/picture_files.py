"""The files of pictures in a folder: which there are, and whether they can be used. `pictures.py` decodes them. No
torch."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from trainers.reading.known_files import Item, KnownFiles
from trainers.reading.picture_rules import PictureRules
from trainers.reading.portions import THREADS
from trainers.storage.whole_files import sha256_file

if TYPE_CHECKING:
    from trainers.storage.remote_files import RemoteFile

NO_PICTURE = "their endings are no picture's"
END_BYTES = 4096
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
        end: see `digest_end`; empty where the file cannot be read, or its whole content is known.
    """

    picture: Path | RemoteFile | None
    problem: str | None
    largest: int = 0
    end: bytes = b""


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
        known: looks at them.
    """

    def __init__(self, root: Path, rules: PictureRules | None = None, known: KnownFiles | None = None) -> None:
        self.root, self.rules, self.known = root, rules or PictureRules(), known or KnownFiles()
        with os.scandir(root) as entries:
            names = [entry.name for entry in entries if is_wanted(entry.name) or not entry.is_dir()]
        self.suffix_of, self.several, self.left_out = sort_names(names)

    def find_all(self, ids: Sequence[str]) -> list[Found]:
        """The picture of each row, one of them where there are several."""
        places = [self.find(row_id) for row_id in ids]
        looked = iter(look_at_pictures(self.known, self.rules, [place for place in places if place is not None]))
        return [
            Found(None, describe_missing(self.root.name, row_id, self.left_out)) if place is None else next(looked)
            for row_id, place in zip(ids, places, strict=True)
        ]

    def find(self, row_id: str) -> Path | None:
        """The picture of a row, one of them where there are several; None: it has none."""
        return self.root / f"{row_id}{self.suffix_of[row_id]}" if row_id in self.suffix_of else None


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


def look_at_pictures(known: KnownFiles, rules: PictureRules, places: Sequence[Path]) -> list[Found]:
    """What is wrong with pictures as far as their headers and their last bytes tell."""
    load_decoders()
    how = f"headers, by {sorted(asdict(rules).items())}"
    looked = known.look_at(how, [(place,) for place in places], partial(_look_at_headers, rules))
    return [
        Found(place, problem, largest, bytes.fromhex(end))
        for place, (problem, largest, end) in zip(places, looked, strict=True)
    ]


def _look_at_headers(rules: PictureRules, items: Sequence[Item]) -> list[tuple[Any, bool]]:
    with ThreadPoolExecutor(THREADS) as pool:
        looked = list(pool.map(partial(_look_at_header, rules), [place for (place,) in items if place is not None]))
    return [(one, one[0] is None) for one in looked]


def _look_at_header(rules: PictureRules, path: Path) -> tuple[str | None, int, str]:
    """What is wrong, `Found.largest`, and `Found.end` in hexadecimals."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            last = _read_last(file, size)
            file.seek(0)
            problem, largest = _check_header(file, path.name, lambda: last[-64:], rules)
            return problem, largest, _describe_end(size, last).hex()
    except IrregularError as error:
        return f"{path.name} {error}", 0, ""
    except OSError as error:
        return f"{path.name} is not a whole picture: {error}", 0, ""


class IrregularError(Exception):
    """What should be a file is none, such as a pipe or a device."""


def open_regular(path: Path) -> BinaryIO:
    """Opens a file to be read, in one call: what could be waited for without end is not opened so.

    Raises:
        IrregularError: it is no regular file, or not there.
        OSError: it cannot be opened.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENXIO, errno.ELOOP):
            raise IrregularError("is not a regular file") from None
        raise
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise IrregularError("is not a regular file")
    return os.fdopen(number, "rb")


def digest_end(path: Path) -> bytes:
    """The size of a file, 8 bytes, and a hash of its last END_BYTES, 16 bytes."""
    return _describe_end(*read_end(path))


def read_end(path: Path) -> tuple[int, bytes]:
    """The size of a file, and its last END_BYTES."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        return size, _read_last(file, size)


def _read_last(file: BinaryIO, size: int) -> bytes:
    file.seek(max(0, size - END_BYTES))
    return file.read()


def _describe_end(size: int, last: bytes) -> bytes:
    return size.to_bytes(8, "little") + hashlib.blake2b(last, digest_size=16).digest()


def digest_contents(known: KnownFiles, places: Sequence[Path]) -> list[bytes]:
    """SHA-256 of whole files.

    Raises:
        OSError: one that was there a moment ago cannot be read.
    """
    return [bytes.fromhex(one) for one in known.look_at("contents", [(place,) for place in places], _look_at_contents)]


def _look_at_contents(items: Sequence[Item]) -> list[tuple[str, bool]]:
    with ThreadPoolExecutor(THREADS) as pool:
        return [(one, True) for one in pool.map(sha256_file, [place for (place,) in items if place is not None])]


def check_picture_content(content: bytes, name: str, rules: PictureRules) -> tuple[str | None, int]:
    """What is wrong with a picture that is in memory, as far as its header and its last bytes tell, or None; and its
    `Found.largest`."""
    return _check_header(io.BytesIO(content), name, lambda: content[-64:], rules)


def _check_header(
    source: BinaryIO, name: str, read_last: Callable[[], bytes], rules: PictureRules
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


def collect_left_out(folders: Mapping[str, LeftOut]) -> tuple[tuple[str, ...], tuple[dict[str, str], ...]]:
    """Sentences for the user, and lines of the list of bad rows, by the folders' names."""
    notes = tuple(note for name, left_out in folders.items() for note in left_out.describe(name))
    return notes, tuple(row for name, left_out in folders.items() for row in left_out.list_rows(name))
