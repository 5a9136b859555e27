"""Finding, checking and reading a table of rows to predict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainers.clip_regression import new_rows
from trainers.clip_regression.config import DataConfig, TrainingConfig
from trainers.clip_regression.new_rows import find_new_rows
from trainers.interface import DataError
from trainers.reading.tables import read_blocks, read_frame

TEXT = DataConfig(train_pictures="")


@pytest.fixture
def config():
    """A config whose model reads texts and dates."""
    from ray_jobs.config.recipes import RECIPES

    return replace(RECIPES["clip_multimodal_small"]().trainer, data=TEXT)


def write(tmp_path, frame, name="test.csv"):
    frame.to_parquet(tmp_path / name) if name.endswith("parquet") else frame.to_csv(tmp_path / name, index=False)
    return tmp_path / name


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
@pytest.mark.parametrize("num_rows", [1, 5, 24, 100])
def test_blocks_hold_what_the_whole_table_holds(small_frame, tmp_path, name, num_rows):
    small_frame.loc[3, ["title", "description"]] = ['a "quoted", word\nand a second line', ""]
    path = write(tmp_path, small_frame, name)
    blocks = list(read_blocks(path, num_rows))
    assert [len(block) for block in blocks[:-1]] == [num_rows] * (len(blocks) - 1)
    pd.testing.assert_frame_equal(pd.concat(blocks, ignore_index=True), read_frame(path))


def test_groups_of_rows_in_a_parquet_file_do_not_decide_what_a_block_is(small_frame, tmp_path):
    pq.write_table(pa.Table.from_pandas(small_frame), tmp_path / "t.parquet", row_group_size=7)
    blocks = list(read_blocks(tmp_path / "t.parquet", 10, ["id", "title"]))
    assert [len(block) for block in blocks] == [10, 10, 4]
    assert np.concatenate([block["id"] for block in blocks]).tolist() == small_frame["id"].tolist()


def test_a_folder_or_a_table_is_found_and_only_what_is_needed_is_read(small_frame, tmp_path, config):
    path = write(tmp_path, small_frame)
    for place in (tmp_path, path):
        rows = find_new_rows([config], place)
        assert rows.check() == 24
        blocks = list(rows.read(16))
        assert [block.num_rows for block in blocks] == [16, 8]
        assert blocks[0].column_names == ["id", "title", "date", "description"]
    other = replace(config, data=replace(TEXT, text_columns=("channel",)), training=TrainingConfig(eval_batch_size=48))
    both = find_new_rows([config, other], tmp_path)
    assert both.columns == ("id", "channel", "title", "date", "description")
    assert both.batch_rows == 768  # 256 and 48


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns=["title", "date"]), "no column 'title' .data.text_columns.*, 'date'"),
        (lambda f: f.head(0), "holds no row"),
        (lambda f: f.assign(id=["v00", *f["id"][1:20], "v07", *f["id"][21:]]), r"duplicate id: 1 of 24 rows: row 21 \(id 'v07': first in row 8\)"),
        (lambda f: f.assign(id=["", *f["id"][1:]]), "id is empty"),
        (lambda f: f.assign(id=[*f["id"][:-1], "../x"]), r"could be a path .*row 24 \(id '../x'\)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["test.csv", "test.parquet"])
def test_what_cannot_be_predicted_is_told_before_anything_is_launched(
    small_frame, tmp_path, config, change, message, name, monkeypatch
):
    monkeypatch.setattr(new_rows, "_ROWS_AT_ONCE", 5)  # so that two rows with one id are in different blocks
    path = write(tmp_path, change(small_frame), name)
    with pytest.raises(DataError, match=message):
        find_new_rows([config], path).check()


def test_a_place_without_a_table_is_told(tmp_path, config):
    with pytest.raises(DataError, match=r"no such file; set --data to .* or to a folder that holds test"):
        find_new_rows([config], tmp_path)
    (tmp_path / "notes.txt").write_text("id\n1\n")
    with pytest.raises(DataError, match=r"notes\.txt: expected another file"):
        find_new_rows([config], tmp_path / "notes.txt")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="the table cannot be read"):
        find_new_rows([config], tmp_path / "torn.parquet")


def test_pictures_are_looked_for_beside_the_table(small_frame, write_data, config):
    root = write_data(small_frame, small_frame)
    pictures = replace(config, data=DataConfig())
    assert find_new_rows([pictures], root).check() == 24
    (root / "test" / "v03.png").write_bytes((root / "test" / "v03.jpg").read_bytes())
    with pytest.raises(DataError, match=r"several pictures of one id: 1 of 24 rows: row 4 .*v03.jpg, v03.png"):
        find_new_rows([pictures], root).check()
    (root / "test").rename(root / "elsewhere")
    with pytest.raises(DataError, match="no such folder of the pictures of test"):
        find_new_rows([pictures], root).check()
