"""Pictures and tables of the regressor as people have them: read as the user sees them, or told with the likely
cause."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from support.picture_kinds import encode, encode_12_bit_tiff, with_alpha

from trainers.clip_regression.config import Config, DataConfig, ModelConfig
from trainers.clip_regression.inputs.picture_reader import PictureReader
from trainers.clip_regression.inventory import take_inventory
from trainers.clip_regression.rows.table import read_train_rows
from trainers.interface import DataError

PREPROCESSING = {"size": 16, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
MODEL = ModelConfig(clip="ViT-B-32", freeze=False)


def take(root, **data):
    return take_inventory(Config(data=DataConfig(root=str(root), **data), model=MODEL), root)


def refusal(root, **data) -> str:
    with pytest.raises(DataError) as error:
        take(root, **data)
    return str(error.value)


def put(root, row_id: str, content: bytes, ending: str = "png") -> None:
    """Replaces the picture of a row."""
    (root / "train_val" / f"{row_id}.jpg").unlink(missing_ok=True)
    (root / "train_val" / f"{row_id}.{ending}").write_bytes(content)


def decode(content: bytes, **data) -> np.ndarray:
    """As a fold does, (H, W) of the first channel."""
    picture_CHW, problem = PictureReader(PREPROCESSING, DataConfig(**data).picture_rules).decode(content)
    assert problem is None, problem
    return picture_CHW[0]


def test_pictures_of_16_bits_are_as_bright_as_the_same_in_8(small_frame, write_data):
    root = write_data(small_frame)
    deep = (GREY.astype(np.uint16) * 16 + 8).astype(np.uint16)
    for row_id in small_frame["id"]:
        put(root, row_id, encode(deep))
    (root / "train_val" / "v05.png").unlink()
    put(root, "v05", encode_12_bit_tiff(deep), "tif")
    config, inventory = take(root)
    assert config.data.bit_depth == 12
    assert "23 pictures have 16 bits and do not say how many are in use" in inventory.notes[0]
    for content in (encode(deep), encode_12_bit_tiff(deep), encode(deep.astype(np.int32), "TIFF")):
        assert np.abs(decode(content, bit_depth=12).astype(int) - GREY).max() <= 1
    assert take(root, bit_depth=16)[0].data.bit_depth == 16
    assert "more than data.bit_depth=8 allows" in refusal(root, bit_depth=8)


def test_a_model_of_8_bits_says_that_it_cannot_know_16():
    _, problem = PictureReader(PREPROCESSING).decode(encode(GREY.astype(np.uint16) * 16))
    assert problem is not None
    assert problem.startswith("is of mode I;16, and how many of its 16 bits are in use is not known")


def test_transparency_and_orientation_are_what_is_seen():
    drawn = with_alpha(np.zeros((16, 16, 3), np.uint8), GREY)
    np.testing.assert_array_equal(decode(encode(drawn)), 255 - GREY)
    np.testing.assert_array_equal(decode(encode(drawn), background=(0, 0, 0)), 0)
    np.testing.assert_array_equal(decode(encode(GREY, orientation=3)), np.rot90(GREY, 2))
    np.testing.assert_array_equal(decode(encode(GREY, orientation=8)), np.rot90(GREY))


@pytest.mark.parametrize(
    ("content", "ending", "message"),
    [
        (encode(GREY.astype(np.float32), "TIFF"), "tif", "v03.tif is of mode F, floating-point numbers"),
        (encode(GREY, "TIFF", save_all=True, append_images=[Image.fromarray(GREY)]), "tiff", "v03.tiff has 2 pages"),
        (encode(Image.new("LAB", (9, 9)), "TIFF"), "tif", "v03.tif is of mode LAB"),
        (encode(GREY), "heic", "no train_val/v03.jpg; v03.heic is there, and is not read"),
        (encode(GREY, "TIFF")[:150], "tif", "v03.tif is not a whole picture"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_mode_or_ending(small_frame, write_data, content, ending, message):
    root = write_data(small_frame)
    put(root, "v03", content, ending)
    assert message in refusal(root)


def test_other_formats_are_read_and_what_is_left_out_is_counted(small_frame, write_data):
    root = write_data(small_frame)
    for row_id, kind, ending in (("v01", "TIFF", "TIF"), ("v02", "BMP", "bmp"), ("v03", "GIF", "gif")):
        put(root, row_id, encode(GREY, kind), ending)
    (root / "train_val" / "._v01.TIF").write_bytes(bytes(9))
    (root / "train_val" / "notes.txt").touch()
    _, inventory = take(root)
    assert len(inventory.ids) == 24
    assert inventory.notes == ("files of train_val/ are left out, for their endings are no picture's: 1 of .txt",)
    assert [(row["id"], row["done"]) for row in inventory.bad_rows] == [("*.txt", "left out")]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda i: i + ".jpg", "an ending"),
        (lambda i: i + " ", "blanks"),
        (str.upper, "upper and lower case"),
    ],
)
def test_where_all_ids_miss_their_pictures_the_cause_is_named_and_dropping_is_not_advised(
    small_frame, write_data, change, cause
):
    root = write_data(small_frame)
    small_frame.assign(id=small_frame["id"].map(change)).to_csv(root / "train_val.csv", index=False)
    text = refusal(root)
    assert f"24 of 24 would match but for {cause}" in text
    assert "on_bad_row=drop" not in text
    assert f"24 of 24 would match but for {cause}" in refusal(root, on_bad_row="drop")


def test_zeros_that_numbers_have_lost_are_named(small_frame, write_data):
    root = write_data(small_frame.assign(id=[f"{n:03d}" for n in range(24)]))
    for ids in (range(24), [f"{n}.0" for n in range(24)]):
        small_frame.assign(id=ids).to_csv(root / "train_val.csv", index=False)
        assert "24 of 24 would match but for" in refusal(root)
        assert "zeros in front" in refusal(root)


def test_an_id_in_the_index_of_a_parquet_table_is_found(small_frame, write_data):
    root = write_data(small_frame)
    small_frame.set_index("id").to_parquet(root / "t.parquet")
    assert len(take(root, train_table="t.parquet")[1].ids) == 24


def test_test_rows_that_are_mended_are_said(small_frame, write_data):
    root = write_data(small_frame, small_frame.drop(columns="views").head(6))
    (root / "test" / "v02.jpg").unlink()
    assert "data.on_bad_row=drop: these rows are then predicted by what is left of them" in refusal(root)
    _, inventory = take(root, on_bad_row="drop")
    assert inventory.notes[0].startswith("1 of 6 test rows are predicted by what is left of them (the mean colour")
    assert "picture missing or unreadable: 1" in inventory.notes[0]


@pytest.mark.parametrize("cell", ["1,234", "1.234,5", "1 234", "3,5"])
def test_a_number_with_another_notation_is_told(small_frame, write_data, cell):
    root = write_data(small_frame)
    frame = small_frame.astype(str)
    frame.loc[3, "views"] = cell
    frame.to_csv(root / "train_val.csv", index=False)
    assert f"{cell!r}; write 1234.5" in refusal(root)


def test_a_wanted_column_that_is_there_twice_is_refused(small_frame, write_data):
    root = write_data(small_frame)
    text = (root / "train_val.csv").read_text()
    (root / "train_val.csv").write_text(text.replace("channel", "views"))
    assert "has several columns 'views' (data.target)" in refusal(root)
    (root / "train_val.csv").write_text(text.replace("channel", "extra,extra").replace(",c", ",c,c"))
    assert len(read_train_rows(replace(DataConfig(), root=str(root))).ids) == 24


@pytest.mark.parametrize(
    "data", [{"bit_depth": 9}, {"background": (0, 0)}, {"background": (0, 0, 256)}, {"max_pixels": 0}]
)
def test_rules_that_mean_nothing_are_refused(data):
    with pytest.raises(ValueError, match="data"):
        DataConfig(**data)
