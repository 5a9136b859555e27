"""Pictures in folders of classes, in a flat folder and in a table; and how they become square."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from trainers.interface import DataError
from trainers.pixel_diffusion.config import Config, DataConfig, SamplingConfig, TrainingConfig
from trainers.pixel_diffusion.inventory import take_inventory
from trainers.pixel_diffusion.rows.shapes_data import CLASSES, list_pictures, make_data
from trainers.pixel_diffusion.rows.squares import make_square, read_square
from trainers.reading.picture_rules import PictureRules


def write_pictures(folder, names, size=(20, 24)):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        values = np.random.default_rng([number, len(name)]).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(values).save(folder / name)


def look(root, **data):
    config = Config(data=DataConfig(root=str(root), size=16, **data))
    return take_inventory(config, root)[1]


def test_folders_are_classes_and_the_test_folder_is_none(tmp_path):
    for name in ("cat", "dog"):
        write_pictures(tmp_path / name, ["a.png", "b.png", "c.png"])
        write_pictures(tmp_path / "test" / name, ["t.png"])
    inventory = look(tmp_path)
    assert inventory.ids.tolist() == ["cat_a", "cat_b", "cat_c", "dog_a", "dog_b", "dog_c"]
    assert inventory.target is None
    assert inventory.strata.tolist() == [0, 0, 0, 1, 1, 1]
    assert inventory.test_ids.tolist() == ["cat_t", "dog_t"]
    assert inventory.tables["train"].classes == ("cat", "dog")
    few = look(tmp_path, max_rows=3)
    assert few.ids.tolist() == ["cat_a", "cat_b", "dog_a"]
    write_pictures(tmp_path / "test" / "emu", ["t.png"])
    with pytest.raises(DataError, match=r"are of class 'emu' \(1 such classes\), which no picture to learn from has"):
        look(tmp_path)


def test_one_folder_is_no_class_and_what_sampling_needs_is_checked_first(tmp_path):
    write_pictures(tmp_path / "cat", ["a.png", "b.png"])
    assert look(tmp_path).strata is None
    write_pictures(tmp_path / "dog", ["a.png"])
    config = Config(data=DataConfig(root=str(tmp_path), size=16), training=TrainingConfig(label_drop=0.0))
    with pytest.raises(DataError, match=r"sampling.guidance=2.9: expected 1 with training.label_drop=0"):
        take_inventory(config, tmp_path)
    config = Config(data=config.data, sampling=SamplingConfig(features="nothing.pt"))
    with pytest.raises(DataError, match=r"sampling.features=.*nothing.pt: no such file"):
        take_inventory(config, tmp_path)


def test_a_flat_folder_has_no_classes(tmp_path):
    write_pictures(tmp_path, ["a.png", "b.jpg"])
    (tmp_path / "notes.txt").write_text("x")
    inventory = look(tmp_path)
    assert inventory.ids.tolist() == ["a", "b"]
    assert inventory.strata is None
    assert inventory.tables["train"].label_N.tolist() == [-1, -1]
    assert any("no classes" in note for note in inventory.notes)
    assert any("are left out" in note for note in inventory.notes)


def test_a_table_says_classes_groups_folds_and_test_rows(tmp_path):
    write_pictures(tmp_path / "pictures", [f"p{number}.png" for number in range(5)])
    (tmp_path / "rows.csv").write_text(
        "id,kind,who,fold,part\np0,x,m,0,train\np1,y,m,1,train\np2,x,n,0,train\np4,y,o,0,test\n"
    )
    columns = {"label_column": "kind", "group_column": "who", "fold_column": "fold", "split_column": "part"}
    inventory = look(tmp_path, table="rows.csv", pictures="pictures", **columns)
    assert inventory.ids.tolist() == ["p0", "p1", "p2"]
    assert inventory.strata.tolist() == [0, 1, 0]
    assert inventory.groups.tolist() == ["m", "m", "n"]
    assert inventory.predefined_fold.tolist() == [0, 1, 0]
    assert inventory.test_ids.tolist() == ["p4"]
    with pytest.raises(DataError, match=r"no column 'knid' \(data.label_column; nearest: kind, id\)"):
        look(tmp_path, table="rows.csv", pictures="pictures", label_column="knid")


def test_pictures_that_cannot_be_used_are_named_or_dropped(tmp_path):
    write_pictures(tmp_path / "cat", ["a.png", "b.png"])
    (tmp_path / "cat" / "c.png").write_bytes(b"no picture")
    with pytest.raises(
        DataError, match=r"1 of 3 pictures cannot be used:\n  cat_c: c.png cannot be decoded(.|\n)*on_bad_row=drop"
    ):
        look(tmp_path)
    inventory = look(tmp_path, on_bad_row="drop")
    assert inventory.ids.tolist() == ["cat_a", "cat_b"]
    assert [(row["id"], row["done"]) for row in inventory.bad_rows] == [("cat_c", "dropped")]


def test_names_that_collide_or_are_no_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match="holds no picture: expected folders of classes with"):
        look(tmp_path)
    write_pictures(tmp_path / "cat", ["a.png", "a.jpg"])
    with pytest.raises(DataError, match=r"several pictures of one name: a.jpg, a.png"):
        look(tmp_path)
    with pytest.raises(ValueError, match=r"data.label_column=kind: expected none without a table; set data.table"):
        DataConfig(label_column="kind")
    with pytest.raises(ValueError, match=r"data.size=100: expected a multiple of 16, .*; the nearest is 96"):
        Config(data=DataConfig(size=100))


def test_the_same_pictures_have_the_same_fingerprint_and_others_another(tmp_path):
    write_pictures(tmp_path, ["a.png", "b.png"])
    before = look(tmp_path)
    assert look(tmp_path).fingerprint == before.fingerprint
    write_pictures(tmp_path, ["b.png"])
    assert look(tmp_path).fingerprint != before.fingerprint


def test_the_middle_is_kept_of_what_is_halved_by_boxes_and_then_scaled():
    wide = Image.fromarray(np.tile(np.arange(96, dtype=np.uint8)[None, :, None] * 2, (64, 1, 3)))
    square = np.asarray(make_square(wide, 16))
    assert square.shape == (16, 16, 3)
    boxes = np.asarray(wide).reshape(16, 4, 24, 4, 3).mean(axis=(1, 3))[:, 4:20]
    assert np.abs(square.astype(float) - boxes).max() <= 1
    small = make_square(wide.resize((30, 20)), 16)
    assert small.size == (16, 16)
    buffer = io.BytesIO()
    wide.save(buffer, "PNG")
    assert read_square(buffer.getvalue(), 64, PictureRules()).shape == (3, 64, 64)


def test_made_up_pictures_are_drawn_from_all_that_there_are(tmp_path):
    pictures, class_M = list_pictures()
    assert len(pictures) == len({one.tobytes() for one in pictures}) == 2178
    assert np.bincount(class_M).tolist() == [726] * 3
    root = make_data(tmp_path)
    known = {one.tobytes(): CLASSES[label] for one, label in zip(pictures, class_M.tolist(), strict=True)}
    for path in list(root.glob("*/*.png"))[::97]:
        assert known[np.asarray(Image.open(path)).tobytes()] == path.parent.name
