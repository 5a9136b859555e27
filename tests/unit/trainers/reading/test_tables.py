"""Tables as people have them: the same cells whatever the file, or one sentence with the line and the way."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile

import pandas as pd
import pyarrow as pa
import pytest

from trainers.interface import DataError
from trainers.reading.likeness import explain_mismatch, find_suffix
from trainers.reading.table_files import TableFormat
from trainers.reading.tables import NAMED_TWICE, read_blocks, read_frame

TEXT = 'id,name,views\n007,Müller,3\nb,"a, b\nc",4\nNA,,1e3\n'
CELLS = [["007", "Müller", "3"], ["b", "a, b\nc", "4"], ["NA", "", "1e3"]]


def pack_zip(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # of the same bytes each time: they name tests
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name.replace("xl__", "xl/")), text)
    return buffer.getvalue()


def pack_zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def to_parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


FRAME = pd.DataFrame({"id": ["007", "b", "NA"], "name": ["Müller", "a, b\nc", ""], "views": ["3", "4", "1e3"]})


@pytest.mark.parametrize(
    ("name", "content", "given"),
    [
        ("a.csv", TEXT.encode(), {}),
        ("A.CSV", TEXT.encode(), {}),
        ("a.csv", TEXT.encode("utf-8-sig"), {}),
        ("a.csv", TEXT.encode("utf-16"), {}),
        ("a.csv", TEXT.encode("utf-16-le"), {"encoding": "utf-16-le"}),
        ("a.csv", TEXT.encode("cp1252"), {"encoding": "cp1252"}),
        ("a.csv", TEXT.replace("\n", "\r\n").replace("b\r\nc", "b\nc").encode(), {}),
        ("a.csv", b"\n\n" + TEXT.encode() + b"\n\n", {}),
        ("a.csv", TEXT.replace(",", ";").replace("a;", "a,").encode(), {}),
        ("a.tsv", TEXT.replace(",", "\t").replace("a\t", "a,").encode(), {}),
        ("a.csv", TEXT.replace(",", "|").replace("a|", "a,").encode(), {}),
        ("a.csv", TEXT.replace(",", "#").replace("a#", "a,").encode(), {"separator": "#"}),
        ("a.csv", TEXT.replace(",", "\t").replace("a\t", "a,").encode(), {"separator": "tab"}),
        ("a.csv.gz", gzip.compress(TEXT.encode(), mtime=0), {}),
        ("a.csv", gzip.compress(TEXT.encode(), mtime=0), {}),
        ("a.csv.bz2", bz2.compress(TEXT.encode()), {}),
        ("a.csv.xz", lzma.compress(TEXT.encode()), {}),
        ("a.csv.zst", pack_zstd(TEXT.encode()), {}),
        ("a.csv.zip", pack_zip(**{"a.csv": TEXT, "__MACOSX/._a.csv": "x"}), {}),
        ("a.parquet", to_parquet(FRAME), {}),
        ("a.PARQUET", to_parquet(FRAME.set_index("id")), {}),
        ("a.csv", to_parquet(FRAME.set_index(["id", "name"])), {}),
    ],
)  # fmt: skip
def test_the_same_cells_come_of_any_file(tmp_path, name, content, given):
    path = tmp_path / name
    path.write_bytes(content)
    frame = read_frame(path, TableFormat(**given))
    assert frame.columns.tolist() == ["id", "name", "views"]
    assert frame.to_numpy().tolist() == CELLS
    blocks = list(read_blocks(path, 2, ["views", "id"], TableFormat(**given)))
    assert [block.to_numpy().tolist() for block in blocks] == [[["3", "007"], ["4", "b"]], [["1e3", "NA"]]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", TEXT.encode("cp1252"), "line 2, byte 5 is not UTF-8; with cp1252 it reads 'Müller'; .*data.encoding=cp1252"),
        ("a.csv", "id,name\n1,Привет мир\n".encode("cp1251"), "with cp1251 it reads 'Привет'"),
        ("a.csv", "id,name\n1,日本語テキスト\n".encode("shift_jis"), "with shift_jis it reads '日本語テキスト'"),
        ("a.csv", TEXT.encode("utf-16-le"), "looks like UTF-16 without a byte order mark: .* set data.encoding=utf-16-le"),
        ("a.csv", TEXT.encode("utf-16-be"), "set data.encoding=utf-16-be"),
        ("a.csv", TEXT.encode() + b"x,y\n", "line 6 has fewer cells than its header has names .2 and 3."),
        ("a.csv", TEXT.encode() + b"x,1,234,5\n", "line 6 has more cells .* a ',' within a cell wants quotes"),
        ("a.csv", TEXT.encode() + b'x,"y,3\nz,u,4\n', "a quote that is opened in line 6 is never closed"),
        ("a.csv", b"", "the table cannot be read: it is empty"),
        ("a.csv", b"id;a,b;c\n1;2,3;4\n", "the separator may be ',' or ';'"),
        ("a.csv", b"id\x01\x02,x\n1,2\n", "its header is not text"),
        ("a.csv", bytes(range(1, 256)) * 9, "is not text"),
        ("a.csv.gz", gzip.compress(TEXT.encode() * 99, mtime=0)[:60], "the table cannot be read: Compressed file ended"),
        ("a.zip", pack_zip(a=TEXT, b=TEXT), "packs 2 files: expected one table"),
        ("a.xlsx", pack_zip(xl__workbook="x"), r"is a spreadsheet: .*pandas.read_excel\('a.xlsx', dtype=str\).to_csv"),
        ("a.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is a spreadsheet: expected CSV or Parquet"),
        ("a.csv", b"\x89PNG\r\n\x1a\n", "is not a table"),
        ("a.parquet", b"PAR1", "the table cannot be read"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_sentence_with_the_place_and_the_way(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"(?s){message}") as error:
        read_frame(path)
    assert len(str(error.value)) < 500
    assert str(error.value).isprintable()


def test_a_header_alone_is_a_table_without_rows(tmp_path):
    (tmp_path / "a.csv").write_text("id,name\n")
    assert read_frame(tmp_path / "a.csv").shape == (0, 2)


def test_names_that_several_columns_have_are_known(tmp_path):
    (tmp_path / "a.csv").write_text("id,a,a\n1,2,3\n")
    assert read_frame(tmp_path / "a.csv").attrs[NAMED_TWICE] == ["a"]


def test_an_index_without_a_name_is_a_column(tmp_path):
    FRAME.set_axis(["x", "y", "z"]).to_parquet(tmp_path / "a.parquet")
    assert read_frame(tmp_path / "a.parquet")["index"].tolist() == ["x", "y", "z"]
    FRAME.iloc[[2, 0]].to_parquet(tmp_path / "b.parquet")
    assert read_frame(tmp_path / "b.parquet").columns.tolist() == ["id", "name", "views"]


@pytest.mark.parametrize("given", [{"encoding": "utf-99"}, {"separator": ""}, {"separator": ",,"}])
def test_a_format_that_means_nothing_is_refused(given):
    with pytest.raises(ValueError, match="data"):
        TableFormat(**given)


@pytest.mark.parametrize(
    ("ids", "names", "cause"),
    [
        (["7", "8"], ["007", "008"], "2 of 2 would match but for zeros in front"),
        (["7.0", "8.0"], ["7", "8"], "2 of 2 would match but for a .0"),
        (["7.0", "8.0"], ["007", "008"], "a .0, as pandas .* and zeros in front"),
        (["a.jpg", "b.PNG"], ["a", "b"], "2 of 2 would match but for an ending"),
        (["a ", "x"], ["a", "b"], "1 of 2 would match but for blanks"),
        (["IMG_a"], ["img_A"], "but for upper and lower case"),
        (["caf\u00e9"], ["cafe\u0301"], "but for the form of their Unicode letters"),
        (["x"], ["y"], "^$"),
        (["1"], ["01", "001"], "^$"),
    ],
)
def test_the_likely_cause_is_named_with_how_many_would_match(ids, names, cause):
    assert pd.Series([explain_mismatch(ids, names)]).str.contains(cause).all()


def test_the_suffix_of_masks_is_found():
    assert find_suffix(["a", "b", "ab"], ["a_mask", "b_mask", "ab_mask", "b_x"]) == ("_mask", 3)
    assert find_suffix(["a"], ["q"]) == ("", 0)
