"""Which rows have the same picture, text or group."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
from PIL import Image

from trainers.clip_regression.config import Config, DataConfig, ModelConfig
from trainers.clip_regression.inventory import take_inventory
from trainers.clip_regression.rows.row_keys import collect_row_keys, hash_pictures
from trainers.clip_regression.rows.table import read_test_rows, read_train_rows
from trainers.interface import NO_KEY
from trainers.reading.known_files import KnownFiles
from trainers.reading.picture_files import digest_end


def collect(root, **fields):
    data = replace(DataConfig(root=str(root)), **fields)
    return collect_row_keys(read_train_rows(data), read_test_rows(data))


def find_equal(keys):
    """Positions of each key that stands more than once."""
    values, times = np.unique(keys[keys != NO_KEY], return_counts=True)
    return [np.flatnonzero(keys == value).tolist() for value in values[times > 1]]


def hash_all(paths):
    return hash_pictures(paths, [b"" if path is None else digest_end(path) for path in paths], KnownFiles())


def test_pictures_are_the_same_where_their_bytes_are(tmp_path):
    rng = np.random.default_rng(0)
    contents = {name: rng.bytes(9000) for name in "abc"}
    contents["same_end"] = rng.bytes(4904) + contents["a"][4904:]  # the last 4,096 bytes of a
    contents["longer"] = contents["a"] + b"\0"
    contents["small"] = contents["twin_of_small"] = b"x"
    contents["twin_of_a"] = contents["a"]
    paths = []
    for name, content in contents.items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(content)
    (tmp_path / "link").symlink_to(tmp_path / "b")
    keys = hash_all([*paths, tmp_path / "link", None, None])
    names = [*contents, "link", "none", "none"]
    assert {frozenset(names[row] for row in rows) for rows in find_equal(keys)} == {
        frozenset(pair) for pair in (("a", "twin_of_a"), ("b", "link"), ("small", "twin_of_small"))
    }
    assert keys[-2:].tolist() == [NO_KEY, NO_KEY]


def test_the_whole_of_a_picture_is_read_only_where_size_and_end_are_anothers(tmp_path):
    places = [tmp_path / str(number) for number in range(3)]
    ends = [bytes(8) + b"one", bytes(8) + b"another", bytes(7) + b"\1" + b"one"]
    assert len(set(hash_pictures(places, ends, KnownFiles()))) == 3  # none of them is there


def test_texts_are_the_same_whatever_their_case_white_space_and_links(small_frame, write_data):
    small_frame.loc[0, "title"] = "A  Red\tvase"
    small_frame.loc[7, "title"] = "a red VASE "
    small_frame.loc[7, "description"] = "see https://youtu.be/another"
    small_frame.loc[[3, 4], ["title", "description"]] = ""
    keys = collect(write_data(small_frame))["text"]
    assert find_equal(keys.train) == [[0, 7]]
    assert keys.train[[3, 4]].tolist() == [NO_KEY, NO_KEY]
    assert keys.shown == {int(keys.train[0]): "A Red vase see [YT_LINK]"}


def test_long_texts_are_shown_short(small_frame, write_data):
    small_frame.loc[[1, 2], "title"] = "word " * 100
    (shown,) = collect(write_data(small_frame))["text"].shown.values()
    assert shown == "word " * 8 + "…"


def test_test_rows_share_pictures_texts_and_groups_with_training_rows(small_frame, write_data):
    test = small_frame.drop(columns="views").head(4).assign(id=list("wxyz"))
    test.loc[1, "channel"] = ""
    root = write_data(small_frame, test)
    shutil.copy(root / "train_val" / "v05.jpg", root / "test" / "w.jpg")
    keys = collect(root, group_column="channel")
    assert keys["picture"].test[0] == keys["picture"].train[5]
    assert keys["text"].test.tolist() == keys["text"].train[:4].tolist()
    assert keys["group"].test[1] == NO_KEY
    assert keys["group"].test[0] == keys["group"].train[6]
    assert keys["group"].shown[int(keys["group"].test[0])] == "c0"


def test_a_test_table_without_groups_has_no_keys_of_groups(small_frame, write_data):
    root = write_data(small_frame, small_frame.drop(columns=["views", "channel"]).head(4))
    assert collect(root, group_column="channel")["group"].test.tolist() == [NO_KEY] * 4


def test_kinds_that_no_row_has_are_left_out(small_frame, write_data):
    root = write_data(small_frame, pictures=False)
    assert set(collect(root, train_pictures="")) == {"text"}
    assert set(collect(root, train_pictures="", text_columns=())) == set()


def test_the_inventory_has_the_keys(small_frame, write_data, tmp_path):
    data = DataConfig(root=str(write_data(small_frame, small_frame.drop(columns="views").head(4))))
    config = Config(data=data, model=ModelConfig(clip="tiny-clip", freeze=False))
    _, inventory = take_inventory(config, tmp_path)
    assert inventory.test_ids.tolist() == ["v00", "v01", "v02", "v03"]
    assert {kind: (len(keys.train), len(keys.test)) for kind, keys in inventory.row_keys.items()} == {
        "picture": (24, 4),
        "text": (24, 4),
    }


def test_pictures_and_texts_that_are_nearly_the_same_are_kinds_of_their_own_where_it_is_asked_for(tmp_path):
    rng = np.random.default_rng(0)
    words = [f"word{number}" for number in range(200)]
    texts = [" ".join(rng.permutation(words)[:30]) for _ in range(6)]
    texts[3] = f"{texts[0]} sold"  # nearly the same
    texts[4] = texts[1].upper()  # the very same
    (tmp_path / "train_val").mkdir()
    pictures = [Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((90, 90)) for _ in range(6)]
    pictures[5] = pictures[2].resize((45, 45)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / "train_val" / f"r{number}.jpg", quality=90)
    shutil.copy(tmp_path / "train_val" / "r0.jpg", tmp_path / "train_val" / "r1.jpg")
    frame = pd.DataFrame({"id": [f"r{n}" for n in range(6)], "views": range(6), "title": texts})
    frame.to_csv(tmp_path / "train_val.csv", index=False)
    data = DataConfig(root=str(tmp_path), text_columns=("title",), date_column=None, test_table="")
    rows = read_train_rows(data)
    assert set(collect_row_keys(rows, None)) == {"picture", "text"}
    keys = collect_row_keys(rows, None, near=True)
    near = {kind: np.flatnonzero(keys[kind].train).tolist() for kind in ("near_picture", "near_text")}
    assert near == {"near_picture": [2, 5], "near_text": [0, 3]}
    assert keys["near_text"].shown[int(keys["near_text"].train[0])].startswith(texts[0][:30])
