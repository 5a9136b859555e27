"""Pictures, masks and tables of a segmentation as people have them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from support.picture_kinds import encode, encode_12_bit_tiff, encode_deep_colours, with_alpha

from trainers.interface import DataError
from trainers.unet_segmentation.config import Config, DataConfig
from trainers.unet_segmentation.inputs.data import Normalisation
from trainers.unet_segmentation.inventory import open_backgrounds, take_inventory, write_inputs
from trainers.unet_segmentation.network.evaluation import count_pixels
from trainers.unet_segmentation.network.loss import add_up
from trainers.unet_segmentation.new_rows import find_new_rows
from trainers.unet_segmentation.rows.pictures import IGNORED, decode_mask
from trainers.unet_segmentation.rows.rows_file import place_rows, read_mask, read_picture, read_rows
from trainers.unet_segmentation.train import weigh_classes

SIDE = 32
SHAPE = np.zeros((SIDE, SIDE), bool)
SHAPE[4:12, 6:14] = True
PICTURE = np.where(SHAPE, 200, 80).astype(np.uint8)
MASK = SHAPE.astype(np.uint8) * 255


def write(folder: Path, pairs: dict[str, tuple[bytes, bytes]], mask_name: str = "{}") -> Path:
    """Pairs of files by the picture's name; a mask has the same ending, or .png."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(exist_ok=True)
    for name, (picture, mask) in pairs.items():
        (folder / "images" / name).write_bytes(picture)
        (folder / "masks" / f"{mask_name.format(Path(name).stem)}.png").write_bytes(mask)
    return folder


def same(
    picture: bytes | None = None, mask: bytes | None = None, ending: str = "png"
) -> dict[str, tuple[bytes, bytes]]:
    """Four pairs, alike but for a pixel."""
    pairs = {}
    for number in range(4):
        values = PICTURE.copy()
        values[0, 0] = number
        pairs[f"p{number}.{ending}"] = (picture or encode(values), mask or encode(MASK))
    return pairs


def take(root: Path, **data):
    return take_inventory(Config(data=DataConfig(root=str(root), size=SIDE, **data)), root)


def refusal(root: Path, **data) -> str:
    with pytest.raises(DataError) as error:
        take(root, **data)
    return str(error.value)


def read_first(root: Path, **data):
    """Picture and mask of the first row as a fold reads them, and what lies under a map."""
    config, inventory = take(root, **data)
    write_inputs(config, inventory, root / "inputs")
    rows = read_rows(place_rows(root / "inputs", config.data, "train"))
    under = open_backgrounds(config, root / "inputs", "train")(str(rows.ids[0]))
    return read_picture(rows, 0, config.data), read_mask(rows, 0, config.data, scaled=True), under


# ---- masks


@pytest.mark.parametrize("colours", [255, 1, 77])
def test_a_mask_drawn_in_the_alpha_channel_is_what_is_seen(tmp_path, colours):
    drawn = with_alpha(np.full((SIDE, SIDE, 3), colours, np.uint8), MASK)
    data = {"mask_values": (0, colours)}
    _, mask_HW, _ = read_first(write(tmp_path, same(mask=encode(drawn))), **data)
    np.testing.assert_array_equal(mask_HW, SHAPE)
    grey = with_alpha(np.full((SIDE, SIDE), colours, np.uint8), MASK)
    (tmp_path / "masks" / "p0.png").write_bytes(encode(grey))
    np.testing.assert_array_equal(read_first(tmp_path, **data)[1], SHAPE)


def test_an_opaque_mask_keeps_its_values_and_nothing_drawn_is_background():
    data = DataConfig()
    opaque = encode(with_alpha(np.stack([MASK] * 3, -1), np.full((SIDE, SIDE), 255, np.uint8)))
    np.testing.assert_array_equal(decode_mask(opaque, data), MASK)
    nothing = encode(with_alpha(np.full((SIDE, SIDE), 255, np.uint8), np.zeros((SIDE, SIDE), np.uint8)))
    assert not decode_mask(nothing, data).any()
    part = encode(Image.merge("PA", (Image.fromarray(np.ones((SIDE, SIDE), np.uint8)), Image.fromarray(MASK))), "TIFF")
    np.testing.assert_array_equal(decode_mask(part, data), SHAPE)


HALF = np.where(SHAPE, 128, 0).astype(np.uint8)
FULL = np.full((SIDE, SIDE), 255, np.uint8)
GREYS = Image.fromarray(SHAPE.astype(np.uint8), "P")
GREYS.putpalette([255, 255, 255, 0, 0, 0])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (encode(with_alpha(np.zeros((SIDE, SIDE), np.uint8), MASK)), "is of mode LA and black where it is not transparent"),
        (encode(with_alpha(MASK, np.zeros((SIDE, SIDE), np.uint8))), "is of mode LA and wholly transparent, with values below"),
        (encode(with_alpha(np.stack([FULL] * 3, -1), HALF)), "is of mode RGBA and half transparent in places"),
        (encode(GREYS), "is of mode P with greys that fall where its numbers rise"),
        (encode_deep_colours(np.stack([SHAPE] * 3, -1).astype(np.uint16)), "is of mode RGB;16B"),
        (encode(MASK.astype(np.float32), "TIFF"), "is of mode F"),
        (encode(Image.fromarray(MASK).convert("CMYK"), "TIFF"), "is of mode CMYK: expected one channel"),
        (encode(Image.new("LAB", (SIDE, SIDE)), "TIFF"), "is of mode LAB"),
        (encode(MASK, "TIFF", save_all=True, append_images=[Image.fromarray(MASK)]), "has 2 pages"),
    ],
    ids=["black alpha", "transparent", "half", "falling greys", "deep colours", "F", "CMYK", "LAB", "pages"],
)  # fmt: skip
def test_a_mask_of_which_it_is_not_known_what_it_means_is_refused_with_its_mode(tmp_path, mask, message):
    root = write(tmp_path, same())
    (root / "masks" / "p1.png").write_bytes(mask)
    assert f"p1: p1.png {message}" in refusal(root)


def test_a_mask_in_a_gif_has_the_greys_of_its_palette(tmp_path):
    classes = SHAPE.astype(np.uint8) * 2
    root = write(tmp_path, same(mask=encode(classes, "GIF")))
    (root / "masks" / "p3.png").write_bytes(encode(SHAPE.astype(np.uint8)))
    np.testing.assert_array_equal(read_first(root, classes=3)[1], classes)


def test_a_palette_means_its_numbers(tmp_path):
    colours = Image.fromarray(SHAPE.astype(np.uint8), "P")
    colours.putpalette([10, 20, 30, 200, 30, 40])
    np.testing.assert_array_equal(read_first(write(tmp_path, same(mask=encode(colours))))[1], SHAPE)


def draw_border() -> np.ndarray:
    """1 inside, 255 around it, as in Pascal VOC."""
    grown = np.zeros_like(SHAPE)
    grown[3:13, 5:15] = True
    return np.where(SHAPE, 1, np.where(grown, 255, 0)).astype(np.uint8)


def test_255_beside_other_values_proposes_the_field_and_never_soft_masks(tmp_path):
    root = write(tmp_path, same(mask=encode(draw_border())))
    for data in ({}, {"soft_masks": True}):
        text = refusal(root, **data)
        assert "if 255 marks pixels that count nowhere, data.ignore_value=255 leaves them out" in text
        assert "data.soft_masks=true" not in text
    for path in (root / "masks").iterdir():
        path.write_bytes(encode(np.where(SHAPE, 255, np.where(draw_border() == 255, 128, 0)).astype(np.uint8)))
    assert "if 128 marks pixels that count nowhere, data.ignore_value=128" in refusal(root)


def test_ignored_pixels_are_in_no_count_no_loss_and_no_weight(tmp_path):
    border = draw_border()
    root = write(tmp_path, same(mask=encode(border)))
    config, inventory = take(root, ignore_value=255)
    assert config.data.mask_values == (0, 1)
    counted = border != 255
    assert inventory.target.tolist() == [SHAPE.sum() / counted.sum()] * 4
    counts_NC = inventory.tables["train"].counts_NC
    assert counts_NC[0].tolist() == [counted.sum() - SHAPE.sum(), SHAPE.sum()]
    weighted = replace(config, loss=replace(config.loss, positive_weight="auto"))
    assert float(weigh_classes(weighted, counts_NC)[0]) == pytest.approx((counted.sum() - SHAPE.sum()) / SHAPE.sum())
    write_inputs(config, inventory, root / "inputs")
    rows = read_rows(place_rows(root / "inputs", config.data, "train"))
    mask_HW = read_mask(rows, 0, config.data, scaled=True)
    np.testing.assert_array_equal(mask_HW, np.where(counted, border, IGNORED))
    mask, wild = torch.from_numpy(mask_HW), torch.from_numpy(np.where(counted, -1.0, 9.0).astype(np.float32))
    calm = torch.full_like(wild, -1.0)
    for one, other in zip(
        add_up(wild[None, None], mask[None], torch.ones(1)).stack(),
        add_up(calm[None, None], mask[None], torch.ones(1)).stack(),
        strict=True,
    ):
        assert one == other
    assert count_pixels(wild[None], mask)[1].tolist() == [0]


def test_a_mask_of_nothing_but_ignored_pixels_is_a_bad_row(tmp_path):
    root = write(tmp_path, same(mask=encode(draw_border())))
    (root / "masks" / "p1.png").write_bytes(encode(FULL))
    assert "mask in which no pixel counts (1): p1" in refusal(root, ignore_value=255)
    assert take(root, ignore_value=255, on_bad_row="drop")[1].ids.tolist() == ["p0", "p2", "p3"]


def test_classes_are_the_numbers_that_are_not_ignored(tmp_path):
    border = draw_border()
    root = write(tmp_path, same(mask=encode(np.where(border == 255, 0, border + 1).astype(np.uint8))))
    assert take(root, classes=3, ignore_value=0)[0].data.mask_values == (1, 2, 3)
    assert take(root, ignore_value=0, mask_values=(1, 2))[1].target[0] == SHAPE.sum() / (border != 255).sum()
    assert "set data.mask_values" in refusal(root, ignore_value=0)


def test_an_ignored_value_is_no_class():
    with pytest.raises(ValueError, match=r"data\.ignore_value=255: expected none of data.mask_values"):
        DataConfig(ignore_value=255, mask_values=(0, 255))


def test_full_masks_are_counted_and_only_full_ones_refused(tmp_path):
    root = write(tmp_path, same())
    (root / "masks" / "p1.png").write_bytes(encode(FULL))
    assert take(root)[1].notes == ("1 of 4 train masks are full: such pictures are all foreground",)
    for path in (root / "masks").iterdir():
        path.write_bytes(encode(FULL))
    assert "all 4 masks are full: every pixel has the value 255. Expected some with 0" in refusal(root)


# ---- pictures


def test_pictures_stand_as_viewers_show_them_in_training_and_under_maps(tmp_path):
    for orientation, turned in ((3, np.rot90(PICTURE, 2)), (6, np.rot90(PICTURE)), (5, PICTURE.T)):
        stored = encode(np.ascontiguousarray(turned), orientation=orientation)
        picture_CHW, mask_HW, under = read_first(write(tmp_path, same(picture=stored)))
        np.testing.assert_array_equal(picture_CHW[0], PICTURE)
        np.testing.assert_array_equal(mask_HW, SHAPE)
        np.testing.assert_array_equal(under[..., 0], PICTURE)
    assert "4 train pictures are turned as their EXIF orientation says" in take(tmp_path)[1].notes[0]


def test_a_mask_is_turned_too_and_one_drawn_on_the_stored_picture_is_told(tmp_path):
    wide = np.concatenate([PICTURE, PICTURE], 1)
    stored = np.ascontiguousarray(np.rot90(wide))
    drawn = np.concatenate([MASK, MASK], 1)
    pairs = same(
        picture=encode(stored, orientation=6), mask=encode(np.ascontiguousarray(np.rot90(drawn)), orientation=6)
    )
    root = write(tmp_path, pairs)
    np.testing.assert_array_equal(read_first(root)[1], drawn == 255)
    (root / "masks" / "p2.png").write_bytes(encode(np.ascontiguousarray(np.rot90(drawn))))
    text = refusal(root)
    assert "picture 64 x 32, mask 32 x 64; the picture is turned as its EXIF orientation says" in text


def test_tiff_bmp_and_gif_are_read_beside_png_and_what_is_left_out_is_counted(tmp_path):
    root = write(tmp_path, same())
    for number, (kind, ending) in enumerate((("TIFF", "tif"), ("BMP", "bmp"), ("GIF", "gif"), ("TIFF", "TIFF"))):
        (root / "images" / f"q{number}.{ending}").write_bytes(encode(PICTURE, kind))
        (root / "masks" / f"q{number}.{ending}").write_bytes(encode(MASK, kind))
    for folder in ("images", "masks"):
        for path in list((root / folder).iterdir()):
            (path.parent / f"._{path.name}").write_bytes(b"\0\5\x16\7" + bytes(80))
    (root / "images" / "r.heic").touch()
    (root / "images" / "s.HEIC").touch()
    _, inventory = take(root, on_bad_row="drop")
    assert inventory.ids.tolist() == ["p0", "p1", "p2", "p3", "q0", "q1", "q2", "q3"]
    assert inventory.notes == ("files of images/ are left out, for their endings are no picture's: 2 of .heic",)
    assert [(row["table"], row["id"], row["done"]) for row in inventory.bad_rows] == [("images/", "*.heic", "left out")]


def test_bits_in_use_are_found_and_kept_and_a_brighter_picture_is_refused(tmp_path):
    deep = np.where(SHAPE, 3800, 500).astype(np.uint16)
    root = write(tmp_path, same(picture=encode(deep)))
    (root / "images" / "p3.png").unlink()
    (root / "images" / "p3.tif").write_bytes(encode_12_bit_tiff(deep))
    config, inventory = take(root)
    assert config.data.bit_depth == 12
    assert "3 pictures have 16 bits" in inventory.notes[0]
    rows = inventory.tables["train"]
    mean = Normalisation.fit(rows).mean[0]
    assert mean == pytest.approx(deep.mean() / 4095, abs=1e-4)
    write_inputs(config, inventory, root / "inputs")
    read = read_rows(place_rows(root / "inputs", config.data, "train"))
    for row in (0, 3):
        np.testing.assert_array_equal(
            read_picture(read, row, config.data)[0], (deep.astype(int) * 65535 + 2047) // 4095
        )
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.png").write_bytes(encode(deep * 2))
    with pytest.raises(DataError, match=r"a\.png is of mode I;16 and has the value 7,600: more than data.bit_depth=12"):
        find_new_rows([config], tmp_path / "new").check()
    assert take(root, bit_depth=16)[0].data.bit_depth == 16


def test_a_model_of_8_bits_is_given_no_16_bits(tmp_path):
    config, _ = take(write(tmp_path, same()))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.png").write_bytes(encode(np.where(SHAPE, 3800, 500).astype(np.uint16)))
    with pytest.raises(DataError, match=r"a\.png is of mode I;16 .* more than data.bit_depth=8 allows"):
        find_new_rows([config], tmp_path / "new").check()


def test_a_picture_of_no_known_sense_is_refused_with_its_mode(tmp_path):
    root = write(tmp_path, same())
    (root / "images" / "p1.png").write_bytes(encode(PICTURE.astype(np.float32), "TIFF"))
    assert "p1: p1.png is of mode F, floating-point numbers" in refusal(root)
    (root / "images" / "p1.png").write_bytes(encode(PICTURE))
    assert "has 32 x 32 pixels, more than 1,000 (data.max_pixels)" in refusal(root, max_pixels=1000)


# ---- names


def test_masks_with_a_suffix_are_proposed_and_found(tmp_path):
    root = write(tmp_path, same(), "{}_mask")
    text = refusal(root)
    assert "4 of 4 pictures without a mask have one with data.mask_suffix=_mask" in text
    assert "data.on_bad_row=drop" not in text
    config, inventory = take(root, mask_suffix="_mask")
    assert len(inventory.ids) == 4
    assert next(find_new_rows([config], root / "images").read(9))["mask"].to_pylist()[0] == str(
        root / "masks/p0_mask.png"
    )
    for path in list((root / "masks").iterdir()):
        path.rename(root / "images" / path.name)
    assert len(take(root, masks="images", mask_suffix="_mask")[1].ids) == 4


def test_masks_of_no_picture_that_the_user_names_are_refused_before_predicting(tmp_path):
    root = write(tmp_path, same(), "{}_mask")
    with pytest.raises(
        DataError, match=r"--masks=.*: none of 4 pictures has a mask .*\(4 have a mask with _mask behind"
    ):
        find_new_rows([Config()], root / "images", root / "masks").check()


def test_advice_to_drop_is_given_only_where_something_is_left(tmp_path):
    root = write(tmp_path, same())
    (root / "masks" / "p0.png").unlink()
    assert "data.on_bad_row=drop" in refusal(root)
    (root / "test_images").mkdir()
    (root / "test_images" / "t.png").write_bytes(b"no picture")
    assert "data.on_bad_row=drop" not in refusal(root)  # it has to be predicted


# ---- tables

FRAME = pd.DataFrame({"id": [f"p{n}" for n in range(4)], "patient": ["Müller", "a"] * 2, "fold": [0.0, 1.0] * 2})
COLUMNS = {"fold_column": "fold", "group_column": "patient"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (FRAME.to_csv(index=False).encode("latin-1"), "with cp1252 it reads 'Müller'"),
        (FRAME.to_csv(index=False).encode() + b"p9,a,0,x\n", "line 6 has more cells"),
        (FRAME.to_csv(index=False).replace("p3,", 'p3,"').encode(), "a quote that is opened in line 5 is never closed"),
        (b"", "the table cannot be read"),
        (b"id,patient,fold\n", "holds no row"),
        (b"id,id,patient,fold\np0,p0,a,0\n", "has several columns 'id'"),
        (bytes(range(256)) * 9, "is not text"),
        (FRAME.assign(fold="x").to_csv(index=False).encode(), "'fold' (data.fold_column) holds 'x' of 'p0': expected a whole number, at least -2 (4 such rows)"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_read_is_one_sentence(tmp_path, content, message):
    root = write(tmp_path, same())
    (root / "t.csv").write_bytes(content)
    text = refusal(root, table="t.csv", **COLUMNS)
    assert message in text
    assert text.replace("\n", "").isprintable()


def test_tables_of_any_kind_say_the_same(tmp_path):
    root = write(tmp_path, same())
    text = FRAME.to_csv(index=False)
    (root / "a.csv").write_bytes(text.encode("utf-16"))
    (root / "B.CSV").write_text(text.replace(",", ";"))
    FRAME.set_index("id").to_parquet(root / "c.parquet")
    for name in ("a.csv", "B.CSV", "c.parquet"):
        _, inventory = take(root, table=name, **COLUMNS)
        assert inventory.groups.tolist() == ["Müller", "a"] * 2
        assert inventory.predefined_fold.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("change", "cause"),
    [(lambda i: f"{i}.png", "an ending"), (lambda i: f"{i} ", "blanks"), (str.upper, "upper and lower case")],
)
def test_ids_that_are_almost_names_of_pictures_are_explained(tmp_path, change, cause):
    root = write(tmp_path, same())
    FRAME.assign(id=FRAME["id"].map(change)).to_csv(root / "t.csv", index=False)
    text = refusal(root, table="t.csv", **COLUMNS)
    assert f"4 of 4 would match but for {cause}" in text
    assert "data.on_bad_row=drop" not in text


def test_runs_from_before_find_the_rows_that_they_have_left():
    """The name is that of a config without the fields for kinds of files."""
    data = DataConfig(root="/data", mask_values=(0, 255))
    for now in (data, replace(data, bit_depth=8), replace(data, bit_depth=16, max_pixels=9)):
        assert place_rows(Path("i"), now, "train") == Path("i/train-485f6e198f36.arrow")
    for other in ({"bit_depth": 12}, {"background": (0, 0, 0)}, {"ignore_value": 7}, {"mask_suffix": "_m"}):
        assert place_rows(Path("i"), replace(data, **other), "train") != Path("i/train-485f6e198f36.arrow")
