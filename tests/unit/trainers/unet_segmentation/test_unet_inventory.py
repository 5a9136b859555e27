"""What is found out about pictures and masks before anything is launched."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainers.interface import NO_KEY, DataError
from trainers.unet_segmentation.config import Config, DataConfig, ModelConfig
from trainers.unet_segmentation.inputs.data import Normalisation
from trainers.unet_segmentation.inventory import open_backgrounds, take_inventory, write_inputs
from trainers.unet_segmentation.rows.rows_file import place_rows, read_mask, read_picture, read_rows
from trainers.unet_segmentation.rows.synthetic_data import make_data

SIZE = (20, 30)


@pytest.fixture
def root(tmp_path):
    """Six good pairs."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        save(tmp_path / "images" / f"p{number // 2}_{number}.png", rng.integers(0, 256, SIZE).astype(np.uint8))
        save(tmp_path / "masks" / f"p{number // 2}_{number}.png", (rng.random(SIZE) < 0.3).astype(np.uint8) * 255)
    return tmp_path


def save(path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(path)


def take(root, **data):
    return take_inventory(Config(data=DataConfig(root=str(root), size=32, **data)), root)


def refusal(root, **data) -> str:
    with pytest.raises(DataError) as error:
        take(root, **data)
    return str(error.value)


def test_good_pairs_become_rows_with_their_share_of_foreground(root):
    config, inventory = take(root, group_pattern="^(p[0-9])_")
    assert inventory.ids.tolist() == ["p0_0", "p0_1", "p1_2", "p1_3", "p2_4", "p2_5"]
    assert inventory.groups.tolist() == ["p0", "p0", "p1", "p1", "p2", "p2"]
    assert config.data.mask_values == (0, 255)
    mask = np.asarray(Image.open(root / "masks" / "p1_3.png"))
    assert inventory.target[3] == (mask > 0).mean()
    assert (inventory.num_test, inventory.test_ids, inventory.notes) == (0, None, ())
    assert take(root, group_pattern="^(p[0-9])_")[1].fingerprint == inventory.fingerprint
    save(root / "masks" / "p1_3.png", 255 - mask)
    assert take(root)[1].fingerprint != inventory.fingerprint


def test_every_problem_is_told_with_the_names_that_have_it(root):
    (root / "masks" / "p0_0.png").unlink()
    save(root / "masks" / "p0_1.png", np.zeros((20, 31), np.uint8))
    save(root / "masks" / "p1_2.png", np.full(SIZE, 7, np.uint8))
    (root / "images" / "p1_3.png").write_bytes((root / "images" / "p1_3.png").read_bytes()[:200])
    save(root / "masks" / "lone.png", np.zeros(SIZE, np.uint8))
    save(root / "masks" / "p2_4.png", np.stack([np.zeros(SIZE), np.ones(SIZE), np.ones(SIZE)], -1).astype(np.uint8))
    text = refusal(root)
    for part in (
        "no mask of this name in masks/ (1): p0_0",
        "mask of another size than its picture (1): p0_1: picture 30 x 20, mask 31 x 20",
        "mask with unexpected values (1): p1_2: p1_2.png has the values 7: expected 0 and 255",
        "picture that cannot be used (1): p1_3: p1_3.png cannot be decoded",
        "mask in masks/ without a picture in images/ (1): lone",
        "mask that cannot be used (1): p2_4: p2_4.png has colours",
        "data.on_bad_row=drop",
    ):
        assert part in text
    _, inventory = take(root, on_bad_row="drop")
    assert inventory.ids.tolist() == ["p2_5"]
    assert {row["id"] for row in inventory.bad_rows} == {"p0_0", "p0_1", "p1_2", "p1_3", "p2_4", "lone"}


def test_names_that_collide_are_refused_even_where_bad_rows_are_dropped(root):
    save(root / "images" / "p0_0.jpg", np.zeros(SIZE, np.uint8))
    assert "several files of one name in images/ (1): p0_0: p0_0.jpg, p0_0.png" in refusal(root, on_bad_row="drop")
    (root / "images" / "p0_0.jpg").rename(root / "images" / "=cmd.jpg")
    save(root / "masks" / "=cmd.png", np.zeros(SIZE, np.uint8))
    assert "formula" in refusal(root, on_bad_row="drop")


def test_what_is_no_file_of_a_sane_size_is_not_read(root):
    (root / "images" / "p0_0.png").unlink()
    os.mkfifo(root / "images" / "p0_0.png")
    (root / "masks" / "p0_1.png").unlink()
    (root / "masks" / "p0_1.png").symlink_to("/dev/zero")
    with (root / "masks" / "p1_2.png").open("r+b") as file:
        file.truncate(2**33)  # a hole: it takes no space
    text = refusal(root)
    assert "p0_0.png is not a regular file" in text
    assert "p0_1.png is not a regular file" in text
    assert "p1_2.png is larger than 512 MiB" in text


def test_empty_masks_are_counted_and_only_empty_ones_refused(root):
    save(root / "masks" / "p0_0.png", np.zeros(SIZE, np.uint8))
    assert take(root)[1].notes == ("1 of 6 train masks are empty: such pictures are all background",)
    for path in (root / "masks").iterdir():
        save(path, np.zeros(SIZE, np.uint8))
    assert "all 6 masks are empty" in refusal(root)


def test_masks_of_0_and_1_mean_the_same_but_not_beside_255(root):
    for path in (root / "masks").iterdir():
        save(path, np.asarray(Image.open(path)) // 255)
    config, inventory = take(root)
    assert config.data.mask_values == (0, 1)
    assert inventory.target.mean() > 0.2
    save(root / "masks" / "p0_0.png", np.full(SIZE, 255, np.uint8))
    assert "has the values 1: expected 0 and 255" in refusal(root)


def test_smooth_masks_are_cut_at_half_only_where_the_user_says_so(root):
    soft = np.linspace(0, 255, 600).astype(np.uint8).reshape(SIZE)
    save(root / "masks" / "p0_0.png", soft)
    assert "data.soft_masks=true" in refusal(root)
    config, inventory = take(root, soft_masks=True)
    assert inventory.target[0] == (soft > 127.5).mean()
    write_inputs(config, inventory, root / "inputs")
    rows = read_rows(place_rows(root / "inputs", config.data, "train"))
    assert (read_mask(rows, 0, config.data, scaled=False) == (soft > 127.5)).all()


def test_colours_palettes_and_16_bits_are_read_as_what_they_are(root):
    deep = np.arange(600, dtype=np.uint16).reshape(SIZE) * 100
    save(root / "images" / "p0_0.png", deep)
    save(root / "images" / "p0_1.png", np.full((*SIZE, 3), (255, 0, 0), np.uint8))
    mask = np.asarray(Image.open(root / "masks" / "p1_2.png")) // 255
    palette = Image.fromarray(mask, "P")
    palette.putpalette([0, 0, 0, 200, 30, 40])
    for number, path in enumerate(sorted((root / "masks").iterdir())):
        palette.save(path) if number % 2 else save(path, mask.astype(bool))
    config, inventory = take(root)
    assert (inventory.target == mask.mean()).all()
    colours, bits = inventory.notes
    assert colours.startswith("1 train pictures have colours")
    assert "the largest value is 59,900, so the whole range of 65,536 values is read" in bits
    assert config.data.bit_depth == 16
    write_inputs(config, inventory, root / "inputs")
    rows = read_rows(place_rows(root / "inputs", config.data, "train"))
    keep = replace(config.data, scaling="keep")
    assert (read_picture(rows, 0, keep) == deep).all()
    assert Normalisation.fit(rows.take(np.array([0]))).mean[0] == pytest.approx(deep.mean() / 65535)
    assert read_picture(rows, 1, keep).max() == 76  # the luminance of red
    coloured = take(root, channels=3)[0]
    assert read_picture(rows, 1, coloured.data)[:, 0, 0].tolist() == [255, 0, 0]
    assert open_backgrounds(config, root / "inputs", "train")("p0_0").shape == (*SIZE, 3)


def test_a_table_says_which_pictures_are_used_and_which_are_only_predicted(root):
    lines = [
        "name,patient,part,fold",
        *(f"p{n // 2}_{n},a{n % 3},{'test' if n > 3 else 'fit'},{n % 2}" for n in range(5)),
    ]
    (root / "index.csv").write_text("\n".join(lines))
    names = {
        "table": "index.csv",
        "id_column": "name",
        "split_column": "part",
        "group_column": "patient",
        "fold_column": "fold",
    }
    _, inventory = take(root, **names)
    assert inventory.ids.tolist() == ["p0_0", "p0_1", "p1_2", "p1_3"]
    assert inventory.test_ids.tolist() == ["p2_4"]
    assert inventory.groups.tolist() == ["a0", "a1", "a2", "a0"]
    assert inventory.predefined_fold.tolist() == [0, 1, 0, 1]
    assert set(inventory.row_keys) == {"picture", "group"}
    assert "no column 'part2'" in refusal(root, **(names | {"split_column": "part2"}))
    assert "no row has data.test_split=none" in refusal(root, **(names | {"test_split": "none"}))
    (root / "index.csv").write_text("\n".join(lines).replace("p0_1,a1", "p0_1,").replace("p2_4,a1", "p2_4,"))
    assert "'patient' is empty in index.csv (1): p0_1" in refusal(root, **names)
    assert take(root, **names, on_bad_row="drop")[1].ids.tolist() == ["p0_0", "p1_2", "p1_3"]
    (root / "index.csv").write_text("\n".join(lines))
    with (root / "index.csv").open("a") as file:
        file.write("\nlost,a,fit,0")
    assert "no picture in images/, though the table names it (1): lost" in refusal(root, **names)


def test_a_picture_that_is_only_predicted_needs_no_mask_but_has_to_be_one(root):
    for folder in ("test_images", "test_masks"):
        (root / folder).mkdir()
    for name in ("a", "b", "c"):
        save(root / "test_images" / f"{name}.png", np.full(SIZE, 9, np.uint8))
    save(root / "test_masks" / "a.png", np.full(SIZE, 255, np.uint8))
    save(root / "test_masks" / "b.png", np.full(SIZE, 7, np.uint8))
    (root / "masks" / "p0_0.png").unlink()
    text = refusal(root)
    assert "mask with unexpected values (1): b" in text
    assert "no mask of this name in masks/ (1): p0_0" in text  # of both tables together
    config, inventory = take(
        root, on_bad_row="drop", group_pattern="^(p[0-9])_"
    )  # which fits no name of the test pictures
    assert inventory.row_keys["group"].test.tolist() == [NO_KEY] * 3
    assert inventory.test_ids.tolist() == ["a", "b", "c"]
    assert {(row["table"], row["id"], row["done"]) for row in inventory.bad_rows} == {
        ("train", "p0_0", "dropped"),
        ("test", "b", "mask left out"),
    }
    write_inputs(config, inventory, root / "inputs")
    rows = read_rows(place_rows(root / "inputs", config.data, "test"))
    assert [mask is None for mask in rows.masks] == [False, True, True]
    (root / "test_images" / "c.png").write_bytes(b"no picture")
    assert "c.png cannot be decoded" in refusal(root, on_bad_row="drop")
    save(root / "test_images" / "p0_1.png", np.zeros(SIZE, np.uint8))
    assert "both have a picture 'p0_1'" in refusal(root)


@pytest.mark.parametrize(
    ("data", "part"),
    [
        ({"images": "nothing"}, "no such folder"),
        ({"group_pattern": "^(x)"}, "finds nothing in 6 names, such as 'p0_0'"),
        ({"table": "none.csv"}, "no such file"),
        ({"classes": 3}, "has the values 255: expected 0, 1 and 2"),
        ({"mask_values": (0, 128)}, "has the values 255: expected 0 and 128"),
    ],
)
def test_what_does_not_fit_the_files_is_refused(root, data, part):
    assert part in refusal(root, **data)


@pytest.mark.parametrize(
    "data",
    [
        {"classes": 1}, {"size": 8}, {"mask_values": (0, 1, 2)}, {"group_column": "a"}, {"group_pattern": "("},
        {"group_pattern": "p"}, {"group_pattern": "(p)", "table": "t.csv", "group_column": "g"}, {"masks": ""},
        {"soft_masks": True, "classes": 3}, {"max_rows": 0},
    ],
)  # fmt: skip
def test_a_config_that_means_nothing_is_refused(data):
    with pytest.raises(ValueError, match="data"):
        DataConfig(**data)


def test_squares_that_the_stages_would_halve_to_nothing_are_refused():
    with pytest.raises(ValueError, match=r"data.size=32: expected above 32 pixels, as each of the 5 stages"):
        Config(data=DataConfig(size=32), model=ModelConfig(features=(2, 2, 2, 2, 2)))


def test_made_up_pictures_are_always_the_same_and_have_masks(tmp_path):
    first, second = make_data(tmp_path / "a"), make_data(tmp_path / "b")
    assert [p.read_bytes() for p in sorted(first.rglob("*.png"))] == [
        p.read_bytes() for p in sorted(second.rglob("*.png"))
    ]
    _, inventory = take_inventory(Config(), tmp_path / "a")
    assert (len(inventory.ids), inventory.num_test) == (60, 12)
    assert 0.03 < inventory.target.mean() < 0.2


@pytest.mark.real_data
def test_real_radiographs_have_lungs_in_two_classes_and_findings_in_four(real_data_root):
    data = {"table": "index.csv", "split_column": "split"}
    config, inventory = take(real_data_root / "lung_xray", masks="masks_lung", **data)
    assert (config.data.mask_values, len(inventory.ids), inventory.num_test) == ((0, 255), 90, 10)
    assert 0.3 < inventory.target.mean() < 0.5
    assert inventory.notes == ()
    config, inventory = take(real_data_root / "lung_xray", classes=4, **data)
    assert config.data.mask_values == (0, 1, 2, 3)
    shares = inventory.tables["train"].counts_NC.sum(0) / inventory.tables["train"].counts_NC.sum()
    assert shares.argsort().tolist() == [3, 2, 1, 0]  # consolidation is rarest
    assert "has the values 2" in refusal(real_data_root / "lung_xray", **data)
