"""Reading tables: whatever a user's file holds ends in rows or in one error that names the offenders."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from trainers.clip_regression.config import DataConfig
from trainers.clip_regression.rows.cells import parse_dates, parse_reference_date
from trainers.clip_regression.rows.table import read_test_rows, read_train_rows
from trainers.clip_regression.rows.text import clean_text
from trainers.interface import DataError
from trainers.reading.picture_rules import MAX_PICTURE_PIXELS

DATA = DataConfig()


def read(root, **fields):
    return read_train_rows(replace(DATA, root=str(root), **fields))


def test_a_clean_table_becomes_rows(small_frame, write_data):
    rows = read(write_data(small_frame), numeric_columns=("yt_link_count", "url_count"), group_column="channel")
    assert rows.ids.tolist() == small_frame["id"].tolist()
    assert rows.texts[3] == "title 3 see [YT_LINK]"
    np.testing.assert_array_equal(rows.target, small_frame["views"])
    np.testing.assert_array_equal(rows.numbers, [[1, 0]] * 24)
    assert rows.pictures[0].name == "v00.jpg"
    assert set(rows.groups) == {f"c{i}" for i in range(6)}


def test_bom_quotes_line_breaks_unicode_and_the_word_na_are_kept_as_text(small_frame, write_data):
    small_frame.loc[0, "title"] = 'NA "quoted", пример\nsecond line 🎬'
    small_frame.loc[1, "id"] = "007"
    root = write_data(small_frame)
    path = root / "train_val.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    rows = read(root)
    assert rows.texts[0].startswith('NA "quoted", пример\nsecond line 🎬')
    assert rows.ids[1] == "007"
    assert len(rows) == 24


def test_a_parquet_table_gives_the_same_rows_as_the_csv(small_frame, write_data):
    root = write_data(small_frame)
    pd.read_csv(root / "train_val.csv", parse_dates=["date"]).to_parquet(root / "train_val.parquet")
    csv, parquet = read(root), read(root, train_table="train_val.parquet")
    assert csv.texts == parquet.texts
    np.testing.assert_array_equal(csv.time, parquet.time)
    np.testing.assert_array_equal(csv.target, parquet.target)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("views", "-3", "target 'views' is negative: 1 of 24 rows: row 6 (id 'v05': -3)"),
        ("views", "", "target 'views' is not a finite number: 1 of 24 rows: row 6 (id 'v05': '')"),
        ("views", "nan", "is not a finite number"),
        ("views", "inf", "is not a finite number"),
        ("views", "many", "is not a finite number"),
        ("date", "31/12/2020", "'date' is not an ISO date (2019-05-31 or 2019-05-31T18:00:00)"),
        ("date", "", "'date' is not an ISO date"),
        ("id", "../x", "id is empty or could be a path"),
        ("id", "", "id is empty or could be a path"),
        ("id", "v04", "duplicate id: 1 of 24 rows: row 6 (id 'v04': first in row 5)"),
    ],
)
def test_a_bad_cell_is_reported_with_its_row_and_id(small_frame, write_data, column, value, message):
    root = write_data(small_frame)
    small_frame = small_frame.astype(str)
    small_frame.loc[5, column] = value
    small_frame.to_csv(root / "train_val.csv", index=False)
    with pytest.raises(DataError) as caught:
        read(root)
    assert message in str(caught.value)


def test_all_problems_are_reported_at_once_with_counts_and_first_offenders(small_frame, write_data):
    root = write_data(small_frame)
    small_frame = small_frame.astype(str)
    small_frame.loc[2:8, "views"] = "?"
    small_frame.loc[3, "date"] = "yesterday"
    (root / "train_val" / "v01.jpg").unlink()
    small_frame.to_csv(root / "train_val.csv", index=False)
    with pytest.raises(DataError) as caught:
        read(root)
    for part in (
        "7 of 24 rows: row 3",
        "and 4 more",
        "'date' is not an ISO date",
        "no train_val/v01.jpg",
        "on_bad_row=drop",
    ):
        assert part in str(caught.value)


def test_dropping_goes_on_without_bad_rows_and_lists_them(small_frame, write_data):
    root = write_data(small_frame)
    small_frame = small_frame.astype(str)
    small_frame.loc[2, "views"] = "?"
    (root / "train_val" / "v01.jpg").unlink()
    small_frame.to_csv(root / "train_val.csv", index=False)
    rows = read(root, on_bad_row="drop")
    assert len(rows) == 22
    assert not {"v01", "v02"} & set(rows.ids)
    assert {row["id"] for row in rows.bad_rows} == {"v01", "v02"}


def test_dropping_never_hides_a_duplicate_id(small_frame, write_data):
    small_frame.loc[5, "id"] = "v04"
    with pytest.raises(DataError, match="duplicate id"):
        read(write_data(small_frame), on_bad_row="drop")


def test_test_rows_are_never_dropped(small_frame, write_data):
    test = small_frame.drop(columns="views").head(6)
    root = write_data(small_frame, test)
    (root / "test" / "v02.jpg").write_bytes(b"no picture")
    data = replace(DATA, root=str(root))
    with pytest.raises(DataError, match=r"v02.jpg is not a whole picture"):
        read_test_rows(data)
    rows = read_test_rows(replace(data, on_bad_row="drop"))
    assert len(rows) == 6
    assert rows.pictures[2] is None
    assert rows.bad_rows[0]["done"] == "mended"
    assert np.isnan(rows.target).all()


def test_no_test_table_is_no_error(small_frame, write_data):
    assert read_test_rows(replace(DATA, root=str(write_data(small_frame)))) is None


def test_truncated_and_giant_pictures_are_found_in_their_headers(small_frame, write_data):
    root = write_data(small_frame)
    whole = (root / "train_val" / "v03.jpg").read_bytes()
    (root / "train_val" / "v03.jpg").write_bytes(whole[:-12])
    side = int(MAX_PICTURE_PIXELS**0.5) + 100
    Image.new("1", (side, side)).save(root / "train_val" / "v04.png")
    (root / "train_val" / "v04.jpg").unlink()
    with pytest.raises(DataError) as caught:
        read(root)
    assert "v03.jpg is not a whole picture: image file is truncated" in str(caught.value)
    assert f"v04.png has {side} x {side} pixels" in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target": "likes"}, "no column 'likes' (data.target"),
        ({"text_columns": ("title", "body")}, "'body' (data.text_columns)"),
        ({"train_table": "no.csv"}, "no such file"),
        ({"train_pictures": "thumbs"}, "no such folder of the pictures"),
        ({"numeric_columns": ("title",)}, "'title' is not a finite number"),
    ],
)
def test_fields_that_do_not_fit_the_table_are_named(small_frame, write_data, fields, message):
    with pytest.raises(DataError) as caught:
        read(write_data(small_frame), **fields)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,title,date,description,views\n", "holds no row"),
        (b"", "the table cannot be read"),
        (b"id;title;date;description;views\na;t;2020-01-01;x;1,5\n", r"'1,5'; write 1234\.5, without separators"),
        (
            b"id;a,title;date,description;views\na;t;2020-01-01;x;1\n",
            "the separator may be ',' or ';': expected one of them in the header; set data.separator",
        ),
        (
            b"id,title,date,description,views\na,t,2020-01-01,x,1,\nb,t,2020-01-01,x,1,\n",
            r"line 2 has more cells than its header has names \(6 and 5\)",
        ),
        (b"id,title,date,description,views\na,\xff\xfe,2020-01-01,x,1\n", "is not UTF-8"),
        (b'id,title,date,description,views\na,"open,2020-01-01,x,1\n', "the table cannot be read"),
    ],
)
def test_files_that_are_no_tables_are_refused(small_frame, write_data, content, message):
    root = write_data(small_frame)
    (root / "train_val.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(root)


def test_dates_are_read_in_utc_with_and_without_zone():
    seconds = parse_dates(
        pd.Series(["1970-01-02", "1970-01-01T01:00:00+01:00", "1970-01-01 00:00:10", "soon", "now", "today"])
    )
    np.testing.assert_array_equal(seconds, [86400, 0, 10, np.nan, np.nan, np.nan])
    assert parse_dates(pd.Series(["9999-12-31", "0001-01-01"]))[0] > 2.5e11


def test_a_picture_is_judged_by_its_content_not_its_name(small_frame, write_data):
    root = write_data(small_frame)
    (root / "train_val" / "v03.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    with pytest.raises(DataError, match=r"v03.jpg is not a whole picture"):
        read(root)


def test_bytes_after_the_end_of_a_picture_do_no_harm(small_frame, write_data):
    root = write_data(small_frame)
    with (root / "train_val" / "v03.jpg").open("ab") as file:
        file.write(bytes(300))
    assert len(read(root)) == 24


def test_an_empty_group_is_a_bad_row(small_frame, write_data):
    small_frame.loc[5, "channel"] = ""
    with pytest.raises(DataError, match=r"group column 'channel' is empty: 1 of 24 rows: row 6"):
        read(write_data(small_frame), group_column="channel")


@pytest.mark.parametrize("fields", [{"numeric_columns": ("views",)}, {"text_columns": ("title", "views")}])
def test_the_target_cannot_be_an_input(fields):
    with pytest.raises(ValueError, match=r"column 'views' is data\.target or data\.fold_column, and an input"):
        DataConfig(**fields)


@pytest.mark.parametrize("date", ["today", "junk"])
def test_a_reference_date_that_is_none_is_refused_before_launch(date):
    with pytest.raises(DataError, match=f"data.reference_date={date}: expected an ISO date"):
        parse_reference_date(replace(DATA, reference_date=date))


def test_max_rows_takes_the_first_rows(small_frame, write_data):
    assert read(write_data(small_frame), max_rows=5).ids.tolist() == [f"v{i:02d}" for i in range(5)]


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("watch https://www.youtube.com/watch?v=abc, now", ("watch [YT_LINK], now", 1, 0)),
        ("http://youtu.be/x and www.example.org/a?b=1.", ("[YT_LINK] and [URL].", 1, 1)),
        ("(https://m.youtube.com/x) https://notyoutube.com", ("([YT_LINK]) [URL]", 1, 1)),
        ("no link: http is a word", ("no link: http is a word", 0, 0)),
    ],
)
def test_links_become_tokens(text, cleaned):
    assert clean_text(text) == cleaned
