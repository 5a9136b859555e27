"""Selecting among sums of which few are made."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.order_statistics import select_sum


def make_terms(kind: str, rng: np.random.Generator) -> np.ndarray:
    size = int(rng.integers(1, 30))
    terms = np.abs(rng.normal(size=size))
    match kind:
        case "equal":
            return np.zeros(size)
        case "often equal":
            return np.round(2 * terms)
        case "of all sizes":
            return terms * 10.0 ** rng.integers(-12, 12)
    return terms


@pytest.mark.parametrize("kind", ["equal", "often equal", "of all sizes", "like residuals"])
def test_the_sum_has_the_bits_of_the_one_that_sorting_all_of_them_finds(kind):
    rng = np.random.default_rng(0)
    for trial in range(100):
        terms = [make_terms(kind, rng) for _ in range(rng.integers(1, 6))]
        centres_KT = rng.normal(size=(len(terms), int(rng.integers(1, 8)))) * 10.0 ** rng.integers(-8, 9)
        if trial % 5 == 0:
            centres_KT = np.round(centres_KT)
        if trial % 7 == 0:
            centres_KT[:] = centres_KT[0]
        rank = int(rng.integers(1, sum(map(len, terms)) + 1))
        sums = [np.sort(np.concatenate([c + t for c, t in zip(c_K, terms, strict=True)])) for c_K in centres_KT.T]
        np.testing.assert_array_equal(select_sum(centres_KT, terms, rank), [one[rank - 1] for one in sums])


def test_sets_of_sums_that_need_several_blocks_are_all_selected(monkeypatch):
    rng = np.random.default_rng(1)
    centres_KT, terms = rng.normal(size=(3, 50)), [np.abs(rng.normal(size=200)) for _ in range(3)]
    whole = select_sum(centres_KT, terms, 540)
    monkeypatch.setattr("ensemble.order_statistics._BLOCK_SETS", 7)
    np.testing.assert_array_equal(select_sum(centres_KT, terms, 540), whole)
