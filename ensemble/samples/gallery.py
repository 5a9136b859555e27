"""Pictures of samples: a grid of each fold, the closest pairs with training pictures, and how far folds agree.

    samples/fold_<i>.png         samples of a fold
    samples/closest_pairs.png    in rows of three: a sample, its nearest training picture, its nearest unseen picture
    samples/agreement.png        a row for each fold: what its model makes of the same noise
    samples/samples.json         what was measured

Two models that were trained on other pictures and yet make nearly the same of one noise have learned the distribution
rather than their rows (Kadkhodaie et al. 2024, https://arxiv.org/abs/2310.02557).

Shape suffixes: N samples, H height, W width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ensemble.run import FoldFiles, Materials
from ensemble.samples.sample_files import FoldSamples, read_samples, to_png

MOST_OF_A_GRID, _PAIRS, _AGREEING = 48, 12, 12
_LEAST_SIDE, _GAP = 48, 2


def draw_samples(folds: Sequence[FoldFiles], materials: Materials) -> None:
    """Writes all of it, where folds have made samples."""
    found = {number: read_samples(fold.predictions("samples", "best")) for number, fold in enumerate(folds)}
    made = {number: one for number, one in found.items() if one is not None}
    if not made:
        return
    for number, one in made.items():
        grid = lay_grid(one.pictures[:MOST_OF_A_GRID], 8)
        materials.write(f"samples/fold_{number}.png", to_png(grid))
    materials.write("samples/closest_pairs.png", to_png(_draw_pairs(list(made.values()))))
    rows = np.concatenate([one.pictures[:_AGREEING] for one in made.values()])
    materials.write("samples/agreement.png", to_png(lay_grid(rows, min(_AGREEING, len(rows) // len(made)))))
    content = json.dumps(describe_samples(made), indent=2) + "\n"
    materials.write("samples/samples.json", content.encode())


def describe_samples(made: Mapping[int, FoldSamples]) -> dict[str, Any]:
    """What was measured of each fold's samples, and how far folds agree."""
    facts: dict[str, Any] = {f"fold_{number}": dict(one.facts) for number, one in made.items()}
    agreement = measure_agreement([one.pictures for one in made.values()])
    return facts | ({} if agreement is None else {"agreement": agreement})


def measure_agreement(pictures: Sequence[np.ndarray]) -> dict[str, float] | None:
    """Root mean square difference, of pictures from -1 to 1, of what two folds make of one noise (`same_noise`), and of
    what they make of different ones, of the same label where labels take turns (`other_noise`); None: one fold, or
    too few samples."""
    if len(pictures) < 2 or len(pictures[0]) < 2:
        return None
    values = [one.reshape(len(one), -1).astype(np.float64) / 127.5 - 1 for one in pictures]
    same, other = [], []
    for first, second in combinations(values, 2):
        same.append(((first - second) ** 2).mean(axis=1))
        other += [
            ((first - np.roll(second, shift, axis=0)) ** 2).mean(axis=1) for shift in range(1, min(8, len(first)))
        ]
    return {
        "same_noise": float(np.mean([np.sqrt(one).mean() for one in same])),
        "other_noise": float(np.mean([np.sqrt(one).mean() for one in other])),
    }


def lay_grid(pictures_NHW3: np.ndarray, columns: int) -> np.ndarray:
    """Pictures from left to right and from top to bottom on white, (H, W, 3) uint8; small ones are enlarged by whole
    pixels."""
    factor = max(1, _LEAST_SIDE // pictures_NHW3.shape[1])
    large = pictures_NHW3.repeat(factor, axis=1).repeat(factor, axis=2)
    number, height, width, colours = large.shape
    rows = -(-number // columns)
    grid = np.full((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, colours), 255, np.uint8)
    for place, picture in enumerate(large):
        top, left = (place // columns) * (height + _GAP), (place % columns) * (width + _GAP)
        grid[top : top + height, left : left + width] = picture
    return grid


def _draw_pairs(made: Sequence[FoldSamples]) -> np.ndarray:
    """The samples of all folds that are nearest to a training picture, each with both nearest pictures beside it."""
    distance_N = np.concatenate([one.distance["training"] for one in made])
    pictures, training, held_out = (
        np.concatenate(parts)
        for parts in (
            [one.pictures for one in made],
            [one.near["training"] for one in made],
            [one.near["held_out"] for one in made],
        )
    )
    order = np.argsort(distance_N, kind="stable")[:_PAIRS]
    triples = np.stack([pictures[order], training[order], held_out[order]], axis=1)
    blank = np.full((len(order), 1, *triples.shape[2:]), 255, np.uint8)
    laid = np.concatenate([triples, blank], axis=1).reshape(-1, *triples.shape[2:])
    return lay_grid(laid, 12)
