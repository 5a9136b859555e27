"""The k-th smallest of many sums, without making them all.

Shape suffixes: T sets of sums, K groups of terms, B sets in a block.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_MOST_CANDIDATES = 4  # of a group, once halving has ended
_MOST_HALVINGS = 64
_LOOK_EVERY = 4
_BLOCK_SETS = 2**15


def select_sum(centres_KT: np.ndarray, terms: Sequence[np.ndarray], rank: int) -> np.ndarray:
    """For each t, the `rank`-th smallest (from 1) of `centres_KT[k, t] + term` over all k and all terms of group k.

    The interval that holds it is halved until few terms are left, which are then gone through in order. With N terms
    that is O(T·K·log N) instead of O(T·N), and the same bits.

    Args:
        centres_KT: finite numbers.
        terms: of each of the K groups, one or more finite numbers.
        rank: from 1 to the number of terms of all groups together.

    Returns:
        (T,).
    """
    sorted_terms = [np.sort(group) for group in terms]
    middle = float(np.partition(np.concatenate(sorted_terms), rank - 1)[rank - 1])
    found_T = np.empty(centres_KT.shape[1])
    order_T = np.argsort(centres_KT[0])  # neighbours look at neighbouring terms: the caches hold them
    for start in range(0, len(order_T), _BLOCK_SETS):
        block = order_T[start : start + _BLOCK_SETS]
        found_T[block] = _select(centres_KT[:, block], sorted_terms, rank, middle)
    return found_T


def _select(centres_KB: np.ndarray, terms: list[np.ndarray], rank: int, middle: float) -> np.ndarray:
    # If all centres were equal, the sum would be theirs and the middle; so it lies between the lowest and the highest.
    low_B, high_B = centres_KB.min(axis=0) + middle, centres_KB.max(axis=0) + middle
    slack_B = 4 * np.spacing(np.maximum(np.abs(low_B), np.abs(high_B)) + np.abs(centres_KB).max(axis=0) + abs(middle))
    low_B, high_B = low_B - slack_B, high_B + slack_B
    for number in range(_MOST_HALVINGS):
        middle_B = low_B + (high_B - low_B) / 2
        is_above_B = _count_all(centres_KB, terms, middle_B) >= rank
        high_B, low_B = np.where(is_above_B, middle_B, high_B), np.where(is_above_B, low_B, middle_B)
        if number % _LOOK_EVERY == 0 and _are_few(centres_KB, terms, low_B, high_B):
            break
    # Differences are rounded, so a count may be wrong for terms within a last bit: the slack takes them in again.
    begins_KB = np.stack([_count(*one, low_B - slack_B) for one in zip(centres_KB, terms, strict=True)])
    return _go_through(centres_KB, terms, begins_KB, rank - begins_KB.sum(axis=0))


def _count(centre_B: np.ndarray, terms: np.ndarray, bound_B: np.ndarray) -> np.ndarray:
    """How many sums are at most the bound, but for rounding."""
    count_B: np.ndarray = np.searchsorted(terms, bound_B - centre_B, side="right")
    return count_B


def _count_all(centres_KB: np.ndarray, terms: list[np.ndarray], bound_B: np.ndarray) -> np.ndarray:
    count_B = np.zeros(len(bound_B), np.int64)
    for centre_B, group in zip(centres_KB, terms, strict=True):
        count_B += _count(centre_B, group, bound_B)
    return count_B


def _are_few(centres_KB: np.ndarray, terms: list[np.ndarray], low_B: np.ndarray, high_B: np.ndarray) -> bool:
    left_B = _count_all(centres_KB, terms, high_B) - _count_all(centres_KB, terms, low_B)
    return bool((left_B <= _MOST_CANDIDATES * len(terms)).all())


def _go_through(
    centres_KB: np.ndarray, terms: list[np.ndarray], next_KB: np.ndarray, missing_B: np.ndarray
) -> np.ndarray:
    """Takes the smallest sum of all groups, again and again, until none is missing; equal terms at once."""
    ends = [np.searchsorted(group, group, side="right") for group in terms]  # of each term, where its equals end
    columns_B, found_B = np.arange(len(missing_B)), np.empty(len(missing_B))
    while len(columns_B):
        heads_KB = np.full((len(terms), len(columns_B)), np.inf)
        for k, group in enumerate(terms):
            has_B = next_KB[k] < len(group)
            heads_KB[k, has_B] = centres_KB[k, has_B] + group[next_KB[k, has_B]]
        group_B = heads_KB.argmin(axis=0)
        smallest_B = heads_KB[group_B, np.arange(len(group_B))]
        for k, end in enumerate(ends):
            chosen_B = np.flatnonzero(group_B == k)
            begins_b = next_KB[k, chosen_B]
            next_KB[k, chosen_B] = end[begins_b]
            missing_B[chosen_B] -= end[begins_b] - begins_b
        is_done_B = missing_B <= 0
        found_B[columns_B[is_done_B]] = smallest_B[is_done_B]
        columns_B, missing_B = columns_B[~is_done_B], missing_B[~is_done_B]
        next_KB, centres_KB = next_KB[:, ~is_done_B], centres_KB[:, ~is_done_B]
    return found_B
