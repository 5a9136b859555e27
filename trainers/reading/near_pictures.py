"""Pictures that are nearly the same: saved again, resized, slightly cropped or mirrored. Thumbnails in, pairs out.

Two steps. A hash of 64 bits (the signs of the lowest frequencies of a cosine transform, as pHash has them: Zauner 2010,
"Implementation and Benchmarking of Perceptual Image Hash Functions") finds candidates among all pairs. Their thumbnails
decide. Own code on SciPy, where the library imagehash would be asked: a mirrored picture's hash follows from the signs
of the odd frequencies, so that no picture is transformed twice, and the thumbnails are made in the same reading.

Shape suffixes: B pictures, P pairs, T pixels of a thumbnail's side.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from trainers.interface import NO_KEY

SIDE = 32  # pixels of a thumbnail
_BITS, _MOST_BITS = 8, 16  # bits a side of the hash; of 64 so many may differ in candidates
_LEAST_ROUGHLY, _LEAST_LIKENESS = 0.85, 0.96  # correlation of means of 4 x 4, and of 2 x 2 pixels
_CROPPED = 0.03  # of height and width that one of two pictures may lack
_WINDOWS = [(0.0, 0.0), (0.0, _CROPPED), (_CROPPED, 0.0), (_CROPPED, _CROPPED), (_CROPPED / 2, _CROPPED / 2)]
_LEAST_DEVIATION = 4.0  # of grey values: a blank picture is like every other blank one
_TILE, _TILE_ROWS, _BLOCK_CANDIDATES = 2**14, 32, 4096


def read_thumbnails(pictures: Sequence[Path | bytes | None]) -> np.ndarray:
    """The thumbnails of pictures, (B, T, T, 3) uint8; of one that is missing or cannot be decoded black.

    Args:
        pictures: files or their contents.

    Raises:
        OSError: a file cannot be read.
    """
    Image.init()  # threads import nothing
    thumbnails = np.empty((len(pictures), SIDE, SIDE, 3), np.uint8)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for row, thumbnail in enumerate(pool.map(_read_thumbnail, pictures)):
            thumbnails[row] = thumbnail
    return thumbnails


_EMPTY = np.zeros((SIDE, SIDE, 3), np.uint8)


def _read_thumbnail(picture: Path | bytes | None) -> np.ndarray:
    if picture is None:
        return _EMPTY
    content = picture.read_bytes() if isinstance(picture, Path) else picture
    try:
        with Image.open(io.BytesIO(content)) as opened:
            opened.draft("RGB", (2 * SIDE, 2 * SIDE))  # a JPEG is decoded at a fraction of its size
            small = opened.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # what is wrong the check says
        return _EMPTY
    return np.asarray(small)


def number_near_pictures(thumbnails_BTT3: np.ndarray) -> np.ndarray:
    """(B,) uint64: pictures that are nearly the same, directly or over others, have one number; NO_KEY: like none."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first_P, second_P = find_pairs(thumbnails_BTT3)
    num_pictures = len(thumbnails_BTT3)
    linked = coo_array((np.ones(len(first_P), bool), (first_P, second_P)), shape=(num_pictures, num_pictures))
    numbers_B: np.ndarray = connected_components(linked, directed=False)[1].astype(np.uint64) + np.uint64(1)
    is_alone = np.ones(num_pictures, bool)
    is_alone[first_P] = is_alone[second_P] = False
    numbers_B[is_alone] = NO_KEY
    return numbers_B


def without_exact(near_B: np.ndarray, exact_B: np.ndarray) -> np.ndarray:
    """Keys of what is nearly the same, (B,) uint64, without those of rows that have the very same anyway.

    Args:
        near_B, exact_B: keys of each row; NO_KEY: none.
    """
    kept_B = near_B.copy()
    order = np.argsort(near_B, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(near_B[order])) + 1):
        if near_B[rows[0]] != NO_KEY and exact_B[rows[0]] != NO_KEY and (exact_B[rows] == exact_B[rows[0]]).all():
            kept_B[rows] = NO_KEY
    return kept_B


def find_pairs(thumbnails_BTT3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of pictures that are nearly the same, (P,) and (P,), the lower number first."""
    red_BTT, green_BTT, blue_BTT = (thumbnails_BTT3[..., channel].astype(np.float32) for channel in range(3))
    grey_BTT = (red_BTT + green_BTT + blue_BTT) / np.float32(3)
    usable = np.flatnonzero(grey_BTT.std(axis=(1, 2)) >= _LEAST_DEVIATION)
    if len(usable) < 2:
        return usable[:0], usable[:0]
    hash_b, mirrored_b = _hash(grey_BTT[usable])
    pairs = {False: _find_candidates(hash_b, hash_b), True: _find_candidates(hash_b, mirrored_b)}
    found, rough_BV = [], _describe_roughly(thumbnails_BTT3)
    for is_mirrored, (first_P, second_P) in pairs.items():
        first, second = usable[first_P], usable[second_P]
        is_like = _are_alike(thumbnails_BTT3, rough_BV, first, second, is_mirrored=is_mirrored)
        found.append(np.stack([first[is_like], second[is_like]]))
    both = np.unique(np.concatenate(found, axis=1), axis=1)
    return both[0], both[1]


def _hash(grey_BTT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The hashes of pictures and of their mirror images, (B,) and (B,) uint64: which of the lowest frequencies, but for
    the mean, are above 0."""
    from scipy.fft import dctn

    low_BFF = dctn(grey_BTT, axes=(1, 2), norm="ortho")[:, : _BITS + 1, : _BITS + 1]
    flat = low_BFF.reshape(len(grey_BTT), -1)[:, 1 : _BITS * _BITS + 1]
    signs = np.where(np.arange(_BITS + 1) % 2, -1.0, 1.0).astype(np.float32)
    mirrored = (low_BFF * signs).reshape(len(grey_BTT), -1)[:, 1 : _BITS * _BITS + 1]
    return _pack(flat > 0), _pack(mirrored > 0)


def _pack(bits_B64: np.ndarray) -> np.ndarray:
    return np.packbits(bits_B64, axis=1).view(np.uint64).ravel()


def _find_candidates(hash_B: np.ndarray, other_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs, the lower number first, of which few bits differ: each is met once, as of mirrored pictures the relation
    holds both ways. All pairs are compared, in tiles that the processor's cache holds: an index by parts of the hash
    leaves little out where a quarter of the bits may differ."""
    number = len(hash_B)
    other_B = np.concatenate([other_B, np.zeros(-number % 8, np.uint64)])
    firsts, seconds = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for top in range(0, number, _TILE_ROWS):
        own = hash_B[top : top + _TILE_ROWS]
        for left in range(top // 8 * 8, number, _TILE):
            row, column = _find_few(own, other_B[left : left + _TILE])
            row, column = row + top, column + left
            is_pair = (column > row) & (column < number)
            firsts.append(row[is_pair])
            seconds.append(column[is_pair])
    return np.concatenate(firsts), np.concatenate(seconds)


def _find_few(own: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of hashes of which few bits differ. They are rare: of eight others one look says that there is
    none."""
    different, counts = np.empty(len(others), np.uint64), np.empty(len(others), np.uint8)
    is_few = np.empty((len(own), len(others)), np.bool_)
    for place, one in enumerate(own):
        np.bitwise_xor(one, others, out=different)
        np.bitwise_count(different, out=counts)
        np.less_equal(counts, _MOST_BITS, out=is_few[place])
    eights = is_few.view(np.uint64)
    row, eight = np.divmod(np.flatnonzero(eights), eights.shape[1])
    which, within = np.nonzero(eights[row, eight][:, None].view(np.bool_))
    return row[which], eight[which] * 8 + within


def _are_alike(
    thumbnails: np.ndarray, rough_BV: np.ndarray, first_P: np.ndarray, second_P: np.ndarray, *, is_mirrored: bool
) -> np.ndarray:
    """(P,) bool: whether thumbnails are alike, or one of them and a part of the other.

    Args:
        thumbnails: of all pictures.
        rough_BV: what `_describe_roughly` says of them.
        first_P, second_P: the pairs.
        is_mirrored: whether the second ones are to be mirrored.
    """
    near = _are_roughly_alike(rough_BV, first_P, second_P, is_mirrored=is_mirrored)
    is_like = np.zeros(len(first_P), bool)
    for start in range(0, len(near), _BLOCK_CANDIDATES):
        block = near[start : start + _BLOCK_CANDIDATES]
        one, other = (thumbnails[rows[block]].astype(np.float32) for rows in (first_P, second_P))
        other = other[:, :, ::-1] if is_mirrored else other
        halves = [_shrink(pictures, 2) for pictures in (one, other)]
        best = _correlate(*halves)
        for window in _WINDOWS:
            best = np.maximum(best, _correlate(_shrink(_cut_out(one, *window), 2), halves[1]))
            best = np.maximum(best, _correlate(halves[0], _shrink(_cut_out(other, *window), 2)))
        is_like[block] = best >= _LEAST_LIKENESS
    return is_like


def _describe_roughly(thumbnails: np.ndarray) -> np.ndarray:
    """Means of 4 x 4 pixels, (B, T / 4, T / 4, 3), of which the sum of products is the correlation of two pictures."""
    number, side = len(thumbnails), SIDE // 4
    of_rows = thumbnails.reshape(number, side, 4, SIDE * 3).sum(axis=2, dtype=np.uint16)
    parts = of_rows.reshape(number, side, side, 4, 3)
    small: np.ndarray = np.sum([parts[:, :, :, place].astype(np.float32) for place in range(4)], axis=0)
    small -= small.mean(axis=(1, 2, 3), keepdims=True)
    small /= np.maximum(np.sqrt((small**2).sum(axis=(1, 2, 3), keepdims=True)), 1e-6)
    return small


def _are_roughly_alike(
    rough_BV: np.ndarray, first_P: np.ndarray, second_P: np.ndarray, *, is_mirrored: bool
) -> np.ndarray:
    """Places of the pairs that may be alike."""
    other_BV = rough_BV[:, :, ::-1] if is_mirrored else rough_BV
    found = [np.empty(0, np.int64)]
    for start in range(0, len(first_P), _BLOCK_CANDIDATES):
        block = slice(start, start + _BLOCK_CANDIDATES)
        products = np.einsum("pyxc,pyxc->p", rough_BV[first_P[block]], other_BV[second_P[block]])
        found.append(start + np.flatnonzero(products >= _LEAST_ROUGHLY))
    return np.concatenate(found)


def _shrink(pictures: np.ndarray, factor: int) -> np.ndarray:
    """Means of squares of so many pixels, (P, T / factor, T / factor, 3)."""
    number, side = len(pictures), pictures.shape[1] // factor
    means: np.ndarray = pictures.reshape(number, side, factor, side, factor, 3).mean(axis=(2, 4))
    return means


def _cut_out(pictures: np.ndarray, top: float, left: float) -> np.ndarray:
    """A part of pictures, at their full size: all but _CROPPED of height and width, from a place on (shares)."""
    places = [(np.arange(SIDE) + 0.5) * (1 - _CROPPED) + start * SIDE - 0.5 for start in (top, left)]
    for axis, place in enumerate(places, start=1):
        low = np.clip(np.floor(place).astype(int), 0, SIDE - 2)
        share = (place - low).astype(np.float32).reshape([-1 if n == axis else 1 for n in range(4)])
        pictures = np.take(pictures, low, axis) * (1 - share) + np.take(pictures, low + 1, axis) * share
    return pictures


def _correlate(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The correlation of two pictures' values, all channels together, (P,)."""
    one, other = (values.reshape(len(values), -1) for values in (one, other))
    one, other = (values - values.mean(axis=1, keepdims=True) for values in (one, other))
    norms = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    products: np.ndarray = (one * other).sum(axis=1) / np.maximum(norms, 1e-6)
    return products
