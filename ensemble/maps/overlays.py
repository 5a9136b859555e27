"""Pictures of maps for people: what is said and what is true over what they lie on, and where models disagree. Arrays
in and out.

Shape suffixes: K classes but the background, H height, W width.
"""

from __future__ import annotations

import numpy as np

from ensemble.maps.combine import IGNORED

# Of the classes from 1; colours that colour-blind eyes tell apart (Okabe and Ito).
COLOURS = ((0, 158, 115), (230, 159, 0), (86, 180, 233), (204, 121, 167), (213, 94, 0), (0, 114, 178), (240, 228, 66))
OUTLINE = (255, 255, 255)
_OPACITY = 0.4


def draw_overlay(background_HW3: np.ndarray, predicted_HW: np.ndarray, true_HW: np.ndarray | None = None) -> np.ndarray:
    """Colours for the classes that are said, white lines around the true ones, (H, W, 3) uint8."""
    overlay = background_HW3.astype(np.float32)
    for number in range(1, int(predicted_HW.max(initial=0)) + 1):
        of_class = predicted_HW == number
        overlay[of_class] = (1 - _OPACITY) * overlay[of_class] + _OPACITY * np.array(
            COLOURS[(number - 1) % len(COLOURS)]
        )
    if true_HW is not None:
        overlay[find_edges(true_HW)] = OUTLINE
    return overlay.astype(np.uint8)


def find_edges(classes_HW: np.ndarray) -> np.ndarray:
    """(H, W) bool: the places of a class but the background that have a neighbour of another class, or one that counts
    nowhere."""
    edges = np.zeros(classes_HW.shape, bool)
    for axis in (0, 1):
        changes = np.diff(classes_HW.astype(np.int16), axis=axis) != 0
        before, after = [slice(None)] * 2, [slice(None)] * 2
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        edges[tuple(before)] |= changes
        edges[tuple(after)] |= changes
    inner_HW: np.ndarray = edges & (classes_HW != 0) & (classes_HW != IGNORED)
    return inner_HW


def to_mask_picture(classes_HW: np.ndarray, num_classes: int) -> np.ndarray:
    """Class numbers as a picture, (H, W) uint8: two classes as 0 and 255, more by their numbers."""
    return classes_HW * np.uint8(255) if num_classes == 2 else classes_HW


def to_heat(disagreement_HW: np.ndarray) -> np.ndarray:
    """A standard deviation of probabilities as a picture, (H, W) uint8: 255 is a half, the most that there can be."""
    heat_HW: np.ndarray = np.minimum(disagreement_HW * 510, 255)
    return heat_HW.astype(np.uint8)


def spread_ranks(values: np.ndarray, number: int) -> list[int]:
    """The places of at most `number` of the values, evenly spread over their ranks, the lowest first and the highest
    last."""
    order = np.argsort(values, kind="stable")
    ranks = np.unique(np.linspace(0, len(order) - 1, min(number, len(order))).round().astype(int))
    places: list[int] = order[ranks].tolist()
    return places
