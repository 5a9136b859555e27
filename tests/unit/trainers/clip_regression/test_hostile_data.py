"""Tables and pictures that somebody made to do harm: refused with the row, or harmless, and quickly."""

import os
import struct
import time
import zlib
from dataclasses import replace

import pytest
from PIL import Image

from trainers.clip_regression.config import DataConfig
from trainers.clip_regression.rows.cells import MAX_TEXT_LENGTH
from trainers.clip_regression.rows.table import read_train_rows
from trainers.interface import FORMULA, DataError

COLUMNS = "id,title,date,description,views"


def read(root, content, **fields):
    """The rows of a table with this content; without pictures if nothing else is said."""
    (root / "train_val.csv").write_bytes(content)
    return read_train_rows(replace(DataConfig(root=str(root), train_pictures=""), **fields))


def make_table(*, row_id="a", title="t", date="2020-01-01", views="1"):
    cells = [cell.replace('"', '""') for cell in (row_id, title, date, "text", views)]
    return (COLUMNS + "\n" + ",".join(f'"{cell}"' for cell in cells) + "\n").encode()


def make_png(width, height, further=b""):
    """A PNG whose header may say anything; `further` are chunks before its data."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = make_chunk(b"IDAT", zlib.compress(bytes(height * (1 + 3 * width)) if width * height < 100 else b""))
    return b"\x89PNG\r\n\x1a\n" + make_chunk(b"IHDR", header) + further + data + make_chunk(b"IEND", b"")


def make_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize(
    ("row_id", "message"),
    [
        *[(path, "could be a path") for path in ("../x", "/etc/passwd", "..", "a/b", "a\\b", "C:\\x", "nul\0byte")],
        *[(control, "could be a path") for control in ("line\nbreak", "\t=1", "\r=1", "\x1b[31mred", "\x9b31m", "a\u202eb")],
        *[(run, "as a formula") for run in ("=cmd|'x'!A0", "=1", "@SUM(1)", "+1+cmd|'x'", "-2+3+cmd|'x'", " =1", "＝1", "a;=1")],
        ("x" * 300, "longer than 200 characters"),
    ],
)  # fmt: skip
def test_an_id_that_is_a_path_a_formula_or_controls_a_terminal_is_refused_with_its_row(tmp_path, row_id, message):
    with pytest.raises(DataError, match=rf"{message}.*: 1 of 1 rows: row 1") as caught:
        read(tmp_path, make_table(row_id=row_id))
    assert len(str(caught.value)) < 600
    assert str(caught.value).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "row_id", ["-dQw4w9WgXcQ", "--_-", "_x", "-1.5e+10", "007", "a,b", 'a"b', "[bold]x", "<b>", "пример", "a=b"]
)
def test_other_ids_stay_as_they_are(tmp_path, row_id):
    assert read(tmp_path, make_table(row_id=row_id)).ids.tolist() == [row_id]
    assert not FORMULA.search(row_id)


def test_a_text_of_100_mb_is_cut_within_seconds(tmp_path):
    began = time.monotonic()
    rows = read(tmp_path, make_table(title="a word " * 15_000_000))
    assert len(rows.texts[0]) == MAX_TEXT_LENGTH
    assert time.monotonic() - began < 20  # measured: 2


@pytest.mark.parametrize("cell", ["row_id", "views", "date"])
def test_a_huge_cell_does_not_make_a_huge_message(tmp_path, cell):
    with pytest.raises(DataError) as caught:
        read(tmp_path, make_table(**{cell: "9" * 5_000_000}))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "content",
    [b",".join(b"c%d" % number for number in range(1_000_000)), b"x" * 5_000_000, bytes(1_000_000)],
    ids=["a million columns", "one line", "zeros"],
)
def test_a_header_without_end_is_refused_at_once(tmp_path, content):
    began = time.monotonic()
    with pytest.raises(DataError, match="header is longer than 100,000 bytes"):
        read(tmp_path, content)
    assert time.monotonic() - began < 2


def test_rows_of_a_million_cells_and_quotes_that_never_close_are_refused(tmp_path):
    for row in (b"b" + b",x" * 1_000_000, b'a,"t,2020-01-01\n' + b"b,t,2020-01-01,x,1\n" * 1000):
        with pytest.raises(DataError, match="the table cannot be read"):
            read(tmp_path, make_table() + row + b"\n")


def test_a_nul_in_a_text_is_harmless_and_in_a_number_is_a_bad_row(tmp_path):
    assert read(tmp_path, make_table(title="a\0b")).texts == ["a\0b text"]
    with pytest.raises(DataError, match=r"is not a finite number: 1 of 1 rows: row 1 \(id 'a': '1\\x00'\)"):
        read(tmp_path, make_table(views="1\0"))


TEXT_BOMB = make_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(20_000_000)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (make_png(60_000, 60_000), "60000 x 60000 pixels, more than 50,000,000"),
        (make_png(8_000, 8_000), "8000 x 8000 pixels, more than 50,000,000"),
        (make_png(2, 2, further=TEXT_BOMB), "Decompressed data too large"),
        (make_png(2, 2)[:-30], "not a whole picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "not a whole picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n", "not a whole picture"),
        (b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", "not a whole picture"),
        (b"", "not a whole picture"),
    ],
    ids=["bomb", "large", "bomb of text", "cut off", "svg", "PostScript", "GIF", "empty"],
)
def test_a_file_that_is_no_harmless_picture_is_refused_unseen(tmp_path, content, message):
    (tmp_path / "train_val").mkdir()
    (tmp_path / "train_val" / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path, make_table(), train_pictures="train_val")


def test_a_pipe_a_device_and_a_folder_in_place_of_a_picture_are_refused_without_waiting(tmp_path):
    picture = tmp_path / "train_val" / "a.jpg"
    picture.parent.mkdir()
    for make in (os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path), lambda path: os.symlink(path, path)):
        make(picture)
        with pytest.raises(DataError, match=r"a\.jpg is not a regular file"):
            read(tmp_path, make_table(), train_pictures="train_val")
        picture.rmdir() if picture.is_dir() else picture.unlink()


def test_a_link_to_a_picture_elsewhere_is_followed_and_nothing_but_a_picture_is_read_through_it(tmp_path):
    """Folders of links are common; a picture's pixels only ever become numbers."""
    (tmp_path / "train_val").mkdir()
    link, elsewhere = tmp_path / "train_val" / "a.jpg", tmp_path / "elsewhere.jpg"
    link.symlink_to(elsewhere)
    Image.new("RGB", (8, 8)).save(elsewhere)
    assert read(tmp_path, make_table(), train_pictures="train_val").pictures == [link]
    elsewhere.write_text("root:x:0:0:secret")
    with pytest.raises(DataError, match="not a whole picture") as caught:
        read(tmp_path, make_table(), train_pictures="train_val")
    assert "secret" not in str(caught.value)
