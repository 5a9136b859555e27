"""How files of pictures become numbers: what the user sees, or a refusal that names the mode."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageOps
from support.picture_kinds import encode, encode_12_bit_tiff, encode_deep_colours, with_alpha

from trainers.reading.picture_files import check_picture_content, sort_names
from trainers.reading.picture_rules import PictureRules, find_depth
from trainers.reading.pictures import UnusableError, decode, decode_rgb, sum_pairwise

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 30), dtype=np.uint8)
COLOURS = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
HALF = np.where(np.arange(30) < 15, 255, 0).astype(np.uint8)[None].repeat(20, 0)  # opaque on the left
DEEP = (np.arange(600, dtype=np.uint16) * 6).reshape(20, 30)  # up to 3,594: 12 bits
RULES = PictureRules()


def read(content: bytes, channels: int = 3, rules: PictureRules = RULES) -> np.ndarray:
    """Both ways of reading say the same of 8 bits."""
    values_CHW = decode(io.BytesIO(content), channels, rules).values_CHW
    if channels == 3:
        shown = np.asarray(decode_rgb(io.BytesIO(content), rules)).transpose(2, 0, 1)
        seen = values_CHW if values_CHW.dtype == np.uint8 else (values_CHW.astype(int) + 128) // 257
        np.testing.assert_array_equal(shown, seen)
    return values_CHW


def refusal(content: bytes, rules: PictureRules = RULES) -> str:
    """Why it is refused, by whoever decodes and by whoever only checks."""
    with pytest.raises(UnusableError) as error:
        decode(io.BytesIO(content), 3, rules)
    with pytest.raises(UnusableError):
        decode_rgb(io.BytesIO(content), rules)
    problem, _ = check_picture_content(content, "a.png", rules)
    assert problem is not None
    assert str(error.value) in problem or problem.startswith("a.png is not a whole picture")
    return str(error.value)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM", "GIF", "JPEG2000"])
def test_grey_files_of_any_format_are_read_as_they_are(kind):
    np.testing.assert_array_equal(read(encode(GREY, kind), 1)[0], GREY)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM", "JPEG2000"])
def test_colours_are_read_as_they_are_and_as_their_luminance(kind):
    content = encode(COLOURS, kind)
    np.testing.assert_array_equal(read(content), COLOURS.transpose(2, 0, 1))
    np.testing.assert_array_equal(read(content, 1)[0], np.asarray(Image.fromarray(COLOURS).convert("L")))


def test_what_was_right_before_keeps_its_bits():
    palette = Image.fromarray(COLOURS).quantize(16)
    files = [encode(COLOURS, "JPEG"), encode(GREY, "JPEG"), encode(palette), encode(GREY > 99), encode(COLOURS, "WEBP")]
    files.append(encode(with_alpha(COLOURS, np.full((20, 30), 255, np.uint8))))
    for content in files:
        image = Image.open(io.BytesIO(content))
        np.testing.assert_array_equal(read(content), np.asarray(image.convert("RGB")).transpose(2, 0, 1))
        np.testing.assert_array_equal(read(content, 1)[0], np.asarray(image.convert("L")))


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 10, 20)])
def test_transparency_of_every_kind_is_laid_on_the_background(background):
    rules = PictureRules(background=background)
    palette = Image.fromarray(COLOURS).quantize(16)
    index = np.asarray(palette)
    files = {
        "LA": (encode(with_alpha(GREY, HALF)), HALF > 0, np.stack([GREY] * 3, -1)),
        "RGBA": (encode(with_alpha(COLOURS, HALF), "TIFF"), HALF > 0, COLOURS),
        "P": (encode(palette, transparency=3), index != 3, np.asarray(palette.convert("RGB"))),
        "L and a value": (encode(GREY, transparency=int(GREY[0, 0])), GREY[0, 0] != GREY, np.stack([GREY] * 3, -1)),
        "RGB and a value": (
            encode(COLOURS, transparency=tuple(COLOURS[0, 0].tolist())), (COLOURS[0, 0] != COLOURS).any(-1), COLOURS
        ),
    }  # fmt: skip
    for name, (content, is_opaque_HW, colours_HW3) in files.items():
        decoded = decode(io.BytesIO(content), 3, rules)
        assert decoded.is_transparent, name
        expected = np.where(is_opaque_HW[..., None], colours_HW3, background).transpose(2, 0, 1)
        np.testing.assert_array_equal(read(content, rules=rules), expected, name)
    half = read(encode(with_alpha(np.full((2, 2), 200, np.uint8), np.full((2, 2), 128, np.uint8))), 1)
    assert half[0, 0, 0] == pytest.approx(255 + (200 - 255) * 128 / 255, abs=1)


def test_a_palette_with_alpha_is_read():
    image = Image.fromarray(COLOURS).quantize(16).convert("PA")
    image.putalpha(Image.fromarray(HALF))
    values_CHW = read(encode(image, "TIFF"))
    assert (values_CHW[:, :, 15:] == 255).all()
    np.testing.assert_array_equal(
        values_CHW[:, :, :15],
        np.asarray(Image.fromarray(COLOURS).quantize(16).convert("RGB")).transpose(2, 0, 1)[:, :, :15],
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
def test_a_picture_stands_as_viewers_show_it(orientation, kind):
    content = encode(GREY, kind, orientation=orientation, **({"lossless": True} if kind == "WEBP" else {}))
    shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))
    np.testing.assert_array_equal(read(content), shown.transpose(2, 0, 1))
    assert decode(io.BytesIO(content), 3, RULES).is_turned == (orientation != 1)


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_turned_too(orientation, kind):
    values_HW = read(encode(DEEP, kind, orientation=orientation), 1, PictureRules(bit_depth=16))[0]
    np.testing.assert_array_equal(values_HW, np.rot90(DEEP, {3: 2, 6: -1, 8: 1}[orientation]))


def test_an_orientation_that_is_none_is_passed_over():
    exif = Image.Exif()
    exif[0x0112] = 77
    assert (read(encode(GREY, exif=exif), 1)[0] == GREY).all()


@pytest.mark.parametrize(
    "content",
    [
        encode(DEEP),
        encode(DEEP, "TIFF"),
        encode(Image.frombytes("I;16B", (30, 20), DEEP.astype(">u2").tobytes()), "TIFF"),
        encode(DEEP.astype(np.int32), "TIFF"),
    ],
    ids=["I;16", "I;16 TIFF", "I;16B", "I"],
)
def test_16_bits_are_scaled_by_the_bits_in_use(content):
    rules = PictureRules(bit_depth=12)
    shown = np.asarray(decode_rgb(io.BytesIO(content), rules))[..., 0]
    assert np.abs(shown - DEEP / 4095 * 255).max() <= 0.51
    decoded = decode(io.BytesIO(content), 1, rules)
    assert (decoded.kind, decoded.largest) == ("16 bits", 3594)
    assert np.abs(decoded.values_CHW[0] / 65535 - DEEP / 4095).max() < 1e-5
    assert "how many of its 16 bits are in use is not known" in refusal(content)
    assert "has the value 3,594: more than data.bit_depth=10 allows" in refusal(content, PictureRules(bit_depth=10))
    assert check_picture_content(content, "a", PictureRules(finds_depth=True)) == (None, 3594)


def test_bits_in_use_are_the_fewest_that_hold_all_values_unless_the_user_says_otherwise():
    assert find_depth([], None) == (None, ())
    assert find_depth([200], None)[0] == 8
    depth, (note,) = find_depth([3594, 100], None)
    assert depth == 12
    assert "2 pictures have 16 bits" in note
    assert find_depth([16384], None)[0] == 16
    assert find_depth([3594], 16) == (16, ())


def test_a_file_that_says_how_many_bits_are_in_use_needs_no_field():
    tiff = encode_12_bit_tiff(DEEP)
    assert np.abs(read(tiff, 1)[0] / 65535 - DEEP / 4095).max() < 1e-5
    assert decode(io.BytesIO(tiff), 1, RULES).largest == 0
    np.testing.assert_array_equal(read(encode(DEEP * 16, "PPM"), 1)[0], DEEP * 16)


def test_whole_16_bits_are_known_by_their_values():
    np.testing.assert_array_equal(read(encode(DEEP * 18), 1)[0], DEEP * 18)


def test_16_bits_of_colours_are_read_only_where_their_upper_half_is_enough():
    whole = COLOURS.astype(np.uint16) * 257
    np.testing.assert_array_equal(read(encode_deep_colours(whole)), COLOURS.transpose(2, 0, 1))
    dark = encode_deep_colours(whole // 16)
    assert "is of mode RGB;16B, of which only the upper 8 bits can be read, and these are 15 at most" in refusal(dark)
    assert "RGB;16B" in refusal(dark, PictureRules(bit_depth=12))
    assert read(dark, rules=PictureRules(bit_depth=16)).max() == 15


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (encode(GREY.astype(np.float32), "TIFF"), "is of mode F, floating-point numbers"),
        (encode(Image.new("LAB", (9, 9)), "TIFF"), "is of mode LAB"),
        (encode(DEEP.astype(np.int32) - 5, "TIFF"), "is of mode I with values from -5 to 3589: outside of 16 bits"),
        (encode(DEEP.astype(np.int32) * 99, "TIFF"), "outside of 16 bits"),
        (encode(DEEP, transparency=0), "is of mode I;16 with a transparent value"),
        (encode(GREY, "TIFF", save_all=True, append_images=[Image.fromarray(GREY)] * 2), "has 3 pages: expected one"),
        (b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", "cannot be decoded"),
        (encode(GREY)[:200], "cannot be decoded"),
        (encode(GREY, "TIFF")[:200], "cannot be decoded"),
        (b"", "cannot be decoded: cannot identify image file"),
    ],
    ids=["F", "LAB", "negative", "32 bits", "transparent value", "pages", "GIF", "cut PNG", "cut TIFF", "empty"],
)
def test_what_no_rule_settles_is_refused_with_its_mode(content, message):
    assert message in refusal(content)


def test_cmyk_is_read_where_its_sense_is_known():
    image = Image.fromarray(np.full((8, 8, 3), (200, 40, 90), np.uint8)).convert("CMYK")
    for content in (encode(image, "TIFF"), encode(image, "JPEG", quality=100)):
        assert np.abs(read(content)[:, 4, 4].astype(int) - (200, 40, 90)).max() <= 3
    content = encode(image, "JPEG")
    place = content.index(b"Adobe") - 4
    length = int.from_bytes(content[place + 2 : place + 4], "big")
    assert "is of mode CMYK without Adobe's mark" in refusal(content[:place] + content[place + 2 + length :])


def test_of_moving_pictures_the_first_is_read():
    other = Image.fromarray(255 - GREY)
    np.testing.assert_array_equal(read(encode(GREY, "GIF", save_all=True, append_images=[other]), 1)[0], GREY)
    moving = encode(COLOURS, "WEBP", save_all=True, append_images=[Image.fromarray(255 - COLOURS)], lossless=True)
    np.testing.assert_array_equal(read(moving), COLOURS.transpose(2, 0, 1))


def test_ycbcr_becomes_rgb():
    content = encode(Image.fromarray(COLOURS).convert("YCbCr"), "TIFF")
    assert np.abs(read(content).astype(int) - COLOURS.transpose(2, 0, 1)).max() <= 4


def test_the_largest_size_is_a_field():
    content = encode(GREY)
    assert "has 30 x 20 pixels, more than 599 (data.max_pixels)" in refusal(content, PictureRules(max_pixels=599))
    assert read(content, rules=PictureRules(max_pixels=600)).shape == (3, 20, 30)


@pytest.mark.parametrize("channels", [1, 3])
def test_decoding_holds_no_more_than_the_picture_and_its_numbers(channels):
    """Pillow's own memory is not counted here: it holds the picture once, with 4 bytes a pixel at most."""
    side = 3000
    content = encode(np.zeros((side, side, 3), np.uint8)[..., :channels].squeeze())
    tracemalloc.start()
    decode(io.BytesIO(content), channels, RULES)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1.7 * channels * side * side + 10_000_000


@pytest.mark.parametrize("length", [0, 10, 2**20, 2**20 + 1, 3 * 2**20 + 77])
def test_sums_in_parts_have_the_bits_of_a_sum(length):
    values_N = RNG.integers(0, 256, length).astype(np.uint8)
    assert sum_pairwise(values_N, lambda part: part / 255) == (values_N / 255).sum()


def test_hidden_files_are_passed_over_and_others_counted_by_their_ending():
    names = ["a.png", "._a.png", ".hidden.jpg", "b.TIF", "c.heic", "d.HEIC", "notes", "Thumbs.db", "b.gif"]
    suffix_of, several, left_out = sort_names(names)
    assert suffix_of == {"a": ".png", "b": ".gif"}
    assert several == {"b": ["b.TIF", "b.gif"]}
    said = "files of x/ are left out, for their endings are no picture's: 2 of .heic, 1 of no ending"
    assert left_out.describe("x") == (said,)
    assert [row["id"] for row in left_out.list_rows("x")] == ["*.heic", "*"]


def test_beside_a_picture_that_was_always_read_others_of_its_name_are_left_out():
    suffix_of, several, left_out = sort_names(["a.tif", "a.jpg", "b.bmp", "c.png", "c.webp"])
    assert (suffix_of["a"], suffix_of["b"], list(several)) == (".jpg", ".bmp", ["c"])
    said = "files of x/ are left out, for there are JPEG, PNG or WebP files of the same names: 1 of .tif"
    assert left_out.describe("x") == (said,)


def test_an_ending_is_shown_without_what_runs_in_a_terminal_or_a_spreadsheet():
    left_out = sort_names(["a.\x1b[31m,=1+1"])[2]
    assert left_out.list_rows("x")[0]["id"] == "*.??31m??1+1"
