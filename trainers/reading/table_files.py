"""What kind of file a table is: packed or not, its encoding, what separates its cells, and where a line of it is wrong.

`tables.py` reads it. No pandas: configs stand on this, too.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import lzma
import re
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from trainers.interface import DataError
from trainers.values import refuse

MAX_HEADER_BYTES = 100_000  # pandas takes a minute for a million columns
SEPARATORS = (",", ";", "\t", "|")
_NAMES = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}
_MARKS |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # behind UTF-32, whose mark begins like it
_EXCEL = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods")
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
_HEAD_BYTES = 65_536
_CONTROLS = re.compile(rb"[\x01-\x08\x0e-\x1f]")
_WORD = re.compile(rb"[^\s,;|\"]+")


@dataclass(frozen=True)
class TableFormat:
    """What the user says of CSV files.

    Attributes:
        encoding: a codec's name; None: UTF-8, or what the file's first bytes say.
        separator: between cells; None: found in the header.
    """

    encoding: str | None = None
    separator: str | None = None

    def __post_init__(self) -> None:
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except LookupError:
                expected = "an encoding that Python knows, such as cp1252, utf-16 or shift_jis, or none"
                raise refuse("data.encoding", self.encoding, expected) from None
        if self.separator is not None and len(self.mark or "") != 1:
            raise refuse("data.separator", self.separator, "one character, or tab, or none")

    @property
    def mark(self) -> str | None:
        """The separator itself."""
        return None if self.separator is None else _NAMES.get(self.separator, self.separator)


@dataclass(frozen=True)
class CsvFile:
    """A file of text, and how it is to be read.

    Attributes:
        path: may be packed.
        encoding: a codec's name.
        separator: one character.
        header: the names of its columns, as they stand there.
    """

    path: Path
    encoding: str
    separator: str
    header: tuple[str, ...]

    def explain_encoding(self) -> str:
        """Which bytes are not of this encoding, and which other they may be of."""
        if self.encoding.startswith(("utf-16", "utf-32")):
            return f"is not whole, or not {self.encoding.upper()}"
        with open_unpacked(self.path) as file:
            for number, line in enumerate(file, start=1):
                try:
                    line.decode(self.encoding)
                except UnicodeDecodeError as error:
                    return _explain_bytes(line, error.start, number, self.encoding)
        return f"is not {self.encoding.upper()}; set data.encoding"

    def find_ragged_line(self) -> str:
        """What is wrong with the first line that has not as many cells as the header; empty where none is."""
        csv.field_size_limit(sys.maxsize)
        with io.TextIOWrapper(open_unpacked(self.path), self.encoding, newline="") as text:
            rows = csv.reader(text, delimiter=self.separator)
            next((cells for cells in rows if cells), None)
            expected, began = len(self.header), rows.line_num
            for cells in rows:
                if cells and len(cells) != expected:
                    if "\n" in cells[-1] and next(rows, None) is None:
                        return self.find_open_quote()
                    is_more = len(cells) > expected
                    return (
                        f"line {began + 1} has {'more' if is_more else 'fewer'} cells than its header has names "
                        f"({len(cells)} and {expected})"
                        + (f"; a {self.separator!r} within a cell wants quotes around the cell" if is_more else "")
                    )
                began = rows.line_num
        return ""

    def find_open_quote(self) -> str:
        """Where the record begins that never ends."""
        csv.field_size_limit(sys.maxsize)
        with io.TextIOWrapper(open_unpacked(self.path), self.encoding, newline="") as text:
            rows = csv.reader(text, delimiter=self.separator)
            began = last = 0
            for _ in rows:
                began, last = last, rows.line_num
        return f"a quote that is opened in line {began + 1} is never closed"


def is_table_name(path: Path) -> bool:
    """Whether a file may be a table by its ending."""
    return path.suffix.lower() in (".csv", ".tsv", ".parquet", ".pq", *_PACKED, *_EXCEL)


def is_parquet(path: Path) -> bool:
    """Whether a file is a Parquet file, by its ending or its first bytes."""
    if path.suffix.lower() in (".parquet", ".pq"):
        return True
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def examine(path: Path, given: TableFormat) -> CsvFile:
    """Finds how a CSV file is to be read.

    Raises:
        DataError: it is of another kind, or nothing says how.
    """
    refuse_other_kinds(path)
    try:
        with open_unpacked(path) as file:
            head = file.read(_HEAD_BYTES)
        encoding = _find_encoding(path, head, given)
        with io.TextIOWrapper(open_unpacked(path), encoding, newline="") as text:
            first = _read_header(path, text, encoding)
    except (OSError, EOFError, zipfile.BadZipFile, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the storage's
            raise
        raise DataError(f"{path}: the table cannot be read: {error}") from None
    separator = given.mark or _find_separator(path, first)
    header = next(csv.reader(io.StringIO(first, newline=""), delimiter=separator), [])
    return CsvFile(path, encoding, separator, tuple(header))


def refuse_other_kinds(path: Path) -> None:
    """Raises DataError of what holds a table and is none that is read."""
    with path.open("rb") as file:
        first = file.read(8)
    is_sheet = first.startswith(b"\xd0\xcf\x11\xe0")
    if first.startswith(b"PK\3\4"):
        members = _list_zip(path)
        is_sheet = any(name.startswith("xl/") or name == "content.xml" for name in members)
    if is_sheet or path.suffix.lower() in _EXCEL:
        raise DataError(
            f'{path} is a spreadsheet: expected CSV or Parquet; save its sheet as CSV, or by `python -c "import '
            f"pandas; pandas.read_excel('{path.name}', dtype=str).to_csv('{path.stem}.csv', index=False)\"`"
        )
    if first.startswith((b"ARROW1", b"\x89HDF", b"%PDF", b"\x89PNG", b"\xff\xd8\xff", b"SQLite f")):
        raise DataError(f"{path} is not a table: expected CSV or Parquet")


def open_unpacked(path: Path) -> IO[bytes]:
    """A file's content, whatever it is packed by."""
    with path.open("rb") as file:
        first = file.read(6)
    if first.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.open(path))
    if first.startswith(b"BZh"):
        return bz2.open(path)
    if first.startswith(b"\xfd7zXZ\0"):
        return lzma.open(path)
    if first.startswith(b"\x28\xb5\x2f\xfd"):
        import pyarrow as pa

        with pa.input_stream(path, compression="zstd") as stream:
            return io.BytesIO(stream.read())
    if first.startswith(b"PK\3\4"):
        members = _list_zip(path)
        if len(members) != 1:
            raise DataError(f"{path} packs {len(members)} files: expected one table; unpack them and name the table")
        with zipfile.ZipFile(path) as archive:
            return io.BytesIO(archive.read(members[0]))
    return path.open("rb")


def _list_zip(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: the table cannot be read: {error}") from None
    return [name for name in names if not name.endswith("/") and not name.startswith("__MACOSX/")]


def _find_encoding(path: Path, head: bytes, given: TableFormat) -> str:
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding
    if given.encoding is not None:
        return given.encoding
    shares = [head[place::2].count(0) / max(1, len(head) // 2) for place in (0, 1)]
    if min(shares) < 0.1 and max(shares) > 0.3:
        name = "utf-16-be" if shares[0] > shares[1] else "utf-16-le"
        raise DataError(
            f"{path} looks like UTF-16 without a byte order mark: expected UTF-8; save the table as UTF-8, or set "
            f"data.encoding={name}"
        )
    return "utf-8-sig"


def _read_header(path: Path, text: io.TextIOWrapper, encoding: str) -> str:
    """The first record, which quotes may spread over lines; empty of an empty file."""
    record = ""
    try:
        while True:
            line = text.readline(MAX_HEADER_BYTES + 1 - len(record))
            record += line
            if len(record) > MAX_HEADER_BYTES:
                raise DataError(
                    f"{path}: the table cannot be read: its header is longer than {MAX_HEADER_BYTES:,} bytes; expected "
                    "CSV or Parquet"
                )
            if not line or (record.strip("\r\n") and record.count('"') % 2 == 0):
                break
    except UnicodeError:
        raise DataError(f"{path}: {CsvFile(path, encoding, ',', ()).explain_encoding()}") from None
    if re.search(r"[\x00-\x08\x0e-\x1f]", record):
        raise DataError(
            f"{path}: the table cannot be read: its header is not text, but {record[:40]!r}; expected CSV or Parquet"
        )
    return record.lstrip("\r\n")


def _find_separator(path: Path, header: str) -> str:
    """The one that stands in the header outside of quotes; a comma among others, unless it would leave them in the
    first name."""
    bare = re.sub(r'"[^"]*"', "", header)
    found = [mark for mark in SEPARATORS if mark in bare]
    if len(found) <= 1:
        return found[0] if found else ","
    first = bare.partition(",")[0] if "," in found else bare
    if "," in found and not any(mark in first for mark in found if mark != ","):
        return ","
    if "\t" in found and path.name.lower().split(".csv")[0].endswith(".tsv"):
        return "\t"
    shown = " or ".join(repr(mark) for mark in found)
    raise DataError(f"{path}: the separator may be {shown}: expected one of them in the header; set data.separator")


def _explain_bytes(line: bytes, place: int, number: int, encoding: str) -> str:
    """Where a line is not of an encoding, and of which other it may be, shown by the word that it would make."""
    name = "UTF-8" if encoding.startswith("utf-8") else encoding
    if _CONTROLS.search(line):
        return f"line {number} is not text; expected CSV or Parquet"
    guess = _guess_encoding(line)
    word = next(match for match in _WORD.finditer(line) if match.end() > place)[0]
    shown = "".join(mark if mark.isprintable() else "?" for mark in word.decode(guess, "replace"))[:40]
    return (
        f"line {number}, byte {place} is not {name}; with {guess} it reads {shown!r}; save the table as UTF-8, or set "
        f"data.encoding={guess} if that is right"
    )


def _guess_encoding(line: bytes) -> str:
    """Lone bytes beyond ASCII are letters with accents; runs of them are another alphabet."""
    runs = re.findall(rb"[\x80-\xff]+", line)
    if sum(map(len, runs)) > 1.5 * len(runs):
        for name in ("cp1251", "shift_jis", "gb18030", "big5", "euc_kr"):
            try:
                foreign = [mark for mark in line.decode(name) if ord(mark) > 127]
            except UnicodeDecodeError:
                continue
            if all(mark.isalpha() and not "\uff61" <= mark <= "\uff9f" for mark in foreign):
                return name
    try:
        line.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"
