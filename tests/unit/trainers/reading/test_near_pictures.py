"""Pictures that are nearly the same."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from support.processes import REPOSITORY

from trainers.interface import NO_KEY
from trainers.reading import near_pictures
from trainers.reading.near_pictures import (
    find_pairs,
    number_near_pictures,
    read_thumbnails,
    without_exact,
)

NUM = 60


def make_picture(seed, size=(120, 90)):
    """Smooth colours with some structure."""
    rng = np.random.default_rng(seed)
    noise = np.stack([gaussian_filter(rng.normal(size=size[::-1]), 9) for _ in range(3)], axis=2)
    noise = (noise - noise.min()) / (noise.max() - noise.min())
    return Image.fromarray((255 * noise).astype(np.uint8))


def save(picture, form="PNG", **options):
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def pictures():
    return [make_picture(seed) for seed in range(NUM)]


@pytest.mark.parametrize(
    "plant",
    [
        lambda one: save(one, "JPEG", quality=60),
        lambda one: save(one.resize((60, 45))),
        lambda one: save(one.crop((3, 2, 120, 90))),
        lambda one: save(one.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "JPEG"),
    ],
    ids=["JPEG 60", "half size", "cropped", "mirrored"],
)
def test_a_picture_that_was_saved_again_is_found_and_no_other(pictures, plant):
    thumbnails = read_thumbnails([save(one) for one in pictures] + [plant(one) for one in pictures])
    first, second = find_pairs(thumbnails)
    found = set(zip(first.tolist(), second.tolist(), strict=True))
    planted = {(number, NUM + number) for number in range(NUM)}
    assert len(found & planted) >= 0.95 * NUM
    assert len(found - planted) <= 1


def test_what_is_connected_over_others_has_one_number_and_what_is_like_none_has_none(pictures):
    contents = [save(pictures[0]), save(pictures[1]), save(pictures[0], "JPEG", quality=50), save(pictures[0])]
    numbers = number_near_pictures(read_thumbnails(contents))
    assert numbers[0] == numbers[2] == numbers[3] != NO_KEY
    assert numbers[1] == NO_KEY


def test_files_are_read_as_their_contents_and_one_that_is_gone_is_no_blank_picture(pictures, tmp_path):
    (tmp_path / "a.png").write_bytes(save(pictures[0]))
    of_file, of_content = read_thumbnails([tmp_path / "a.png", save(pictures[0])])
    np.testing.assert_array_equal(of_file, of_content)
    assert of_file.any()
    with pytest.raises(FileNotFoundError):
        read_thumbnails([tmp_path / "b.png"])


def test_what_is_no_picture_or_blank_is_like_nothing(pictures):
    blank = save(Image.new("RGB", (50, 50), "red"))
    contents = [None, None, b"nothing", blank, blank, save(pictures[0])]
    assert number_near_pictures(read_thumbnails(contents)).tolist() == [NO_KEY] * 6
    assert len(find_pairs(read_thumbnails([]))[0]) == 0


def test_rows_that_have_the_very_same_are_left_to_the_exact_kind():
    near, exact = np.array([1, 1, 2, 2, 0, 3], np.uint64), np.array([7, 7, 8, 9, 0, 4], np.uint64)
    assert without_exact(near, exact).tolist() == [0, 0, 2, 2, 0, 0]


@pytest.mark.parametrize("number", [1, 2, 7, 8, 9, 40, 100])
@pytest.mark.parametrize("tile", [(8, 3), (32, 16)])
def test_candidates_are_all_pairs_of_which_few_bits_differ(monkeypatch, number, tile):
    monkeypatch.setattr(near_pictures, "_TILE", tile[0])
    monkeypatch.setattr(near_pictures, "_TILE_ROWS", tile[1])
    rng = np.random.default_rng(number)
    hashes = rng.integers(0, 2**63, number, dtype=np.uint64)
    for place in range(1, number, 2):  # half of them like the one before, to a few bits
        flipped = rng.choice(64, place % 20, replace=False)
        hashes[place] = hashes[place - 1] ^ np.bitwise_or.reduce(np.uint64(1) << flipped.astype(np.uint64))
    others = rng.permutation(hashes)
    for second in (hashes, others):
        found = near_pictures._find_candidates(hashes, second)
        expected = {
            (a, b)
            for a in range(number)
            for b in range(a + 1, number)
            if (int(hashes[a]) ^ int(second[b])).bit_count() <= 16
        }
        assert set(zip(*(one.tolist() for one in found), strict=True)) == expected
        assert len(found[0]) == len(expected)


@pytest.mark.parametrize("family", ["clip_regression", "unet_segmentation"])
def test_a_start_that_looks_for_nothing_alike_does_not_load_what_the_search_needs(family):
    """A third of a second of each start."""
    code = f"import sys, trainers.{family}.inventory; sys.exit('scipy.sparse' in sys.modules or 'scipy.fft' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
