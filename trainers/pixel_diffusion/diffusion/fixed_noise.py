"""Times and noise that belong to a row or to the number of a sample, whoever trains and whenever: so that losses of
models, epochs and runs are of the same task, and folds draw the same sample from the same noise.

Of each row there are DRAWS times, one in each part of the distribution of equal probability, at the same place in each
part. Noise is of standard deviation 1.

Shape suffixes: N rows, S draws, C colours, H height, W width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from trainers.pixel_diffusion.process import Process

DRAWS = 4
_ROW, _SAMPLE = b"row", b"sample"
_PLACES, _CHOICE = 1000, 1001  # told apart from the numbers of draws


def place_times(ids: Sequence[str], process: Process) -> np.ndarray:
    """The times of each row, (N, S) float64, rising."""
    inverse, times_NS = NormalDist().inv_cdf, np.empty((len(ids), DRAWS))
    for row, row_id in enumerate(ids):
        place = (_number(_ROW, row_id, 0) + 0.5) / 2**64
        for draw in range(DRAWS):
            quantile = min(max((draw + place) / DRAWS, 1e-12), 1 - 1e-12)
            times_NS[row, draw] = process.time_mean + process.time_spread * inverse(quantile)
    return 1 / (1 + np.exp(-times_NS))


def choose_draws(ids: Sequence[str]) -> np.ndarray:
    """One of the draws of each row, (N,), all about equally often: where one is enough."""
    return np.array([_number(_ROW, row_id, 1) % DRAWS for row_id in ids], np.int64)


def choose_rows(ids: np.ndarray, places: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the places of rows, as good as drawn by their ids, in their order."""
    if len(places) <= most:
        return places
    numbers = np.array([_number(_ROW, row_id, _CHOICE) for row_id in ids[places].tolist()], np.uint64)
    chosen: np.ndarray = places[np.sort(np.argsort(numbers, kind="stable")[:most])]
    return chosen


def draw_row_noise(row_id: str, draw: int, shape: tuple[int, ...]) -> np.ndarray:
    """The noise of a row's draw, float32 of this shape."""
    return _draw(_number(_ROW, row_id, 2 + draw), shape)


def draw_sample_noise(seed: int, number: int, shape: tuple[int, ...]) -> np.ndarray:
    """The noise from which a sample is made, float32 of this shape."""
    return _draw(_number(_SAMPLE, f"{seed}", number), shape)


def choose_places(row_id: str, num_numbers: int, most: int) -> np.ndarray:
    """Which numbers of a row's picture are kept, rising, int64: all, or `most` that are as good as drawn."""
    if num_numbers <= most:
        return np.arange(num_numbers)
    rng = np.random.Generator(np.random.Philox(key=_number(_ROW, row_id, _PLACES)))
    return np.sort(rng.choice(num_numbers, most, replace=False)).astype(np.int64)


def _draw(key: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=key)).standard_normal(shape, np.float32)


def _number(what: bytes, name: str, number: int) -> int:
    """A number of 64 bits that is as good as drawn."""
    digest = hashlib.blake2b(f"{number}\0{name}".encode(), digest_size=8, person=what).digest()
    return int.from_bytes(digest, "little")
