"""Texts that are nearly the same: which pairs, and which groups of rows they connect.

Two texts are near where their sets of runs of words (word 5-grams) overlap by a Jaccard index of at least `least`
(Lee et al. 2022, https://arxiv.org/abs/2107.06499, measured training and validation texts so). MinHash finds
candidates (datasketch); each candidate is then verified by the exact index. Texts with the same runs are found without
candidates. Words are what `\\w+` finds, whatever their case.

Memory: 512 bytes a text, and the texts themselves where they are no table on disk.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np

from trainers.interface import NO_KEY, RowKeys

_WORD, _NUMBER = re.compile(r"\w+"), re.compile(r"\d+(?:[.,]\d+)*")
_PERMUTATIONS = 128
_MOST_CANDIDATES = 200  # of a text that are verified: in a group of thousands each is connected by a few of them
_MOST_MISSED = 0.01  # share of the pairs that are just near
_MOST_SHOWN_LENGTH = 40  # characters of a text
_MOST_KNOWN_WORDS = 1_000_000  # whose hashes are kept
_MOST_KNOWN_RUNS = 2**22  # whose hashes are kept while candidates are verified, 32 MiB


@dataclass(frozen=True)
class NearPair:
    """Two texts, by their numbers, and the Jaccard index of their runs of words."""

    one: int
    other: int
    likeness: float


@dataclass(frozen=True)
class NearTexts:
    """What is nearly the same among N texts.

    Attributes:
        pairs: of different texts; of a large group enough to connect it.
        num_texts: N.
    """

    pairs: tuple[NearPair, ...]
    num_texts: int

    @cached_property
    def group_of(self) -> np.ndarray:
        """(N,) int: the number of each text's group; a text that is like no other is a group of its own."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        ones = [pair.one for pair in self.pairs]
        others = [pair.other for pair in self.pairs]
        shape = (self.num_texts, self.num_texts)
        links = coo_array((np.ones(len(ones), bool), (ones, others)), shape)
        groups: np.ndarray = connected_components(links, directed=False)[1]
        return groups

    @property
    def groups(self) -> list[list[int]]:
        """The numbers of the texts of each group of two or more, in the texts' order."""
        order = np.argsort(self.group_of, kind="stable")
        starts = np.flatnonzero(np.diff(self.group_of[order])) + 1
        found = [one.tolist() for one in np.split(order, starts) if len(one) > 1]
        return sorted(found)

    def to_row_keys(self, texts: Sequence[str], num_train: int) -> RowKeys:
        """Keys of the texts, of which the first `num_train` are training rows: the same where texts are near."""
        keys_N, shown = np.full(self.num_texts, NO_KEY, np.uint64), {}
        for number, rows in enumerate(self.groups, start=1):
            keys_N[rows] = number
            text = " ".join(str(texts[rows[0]]).split())
            shown[number] = f"{text[:_MOST_SHOWN_LENGTH]}{'…' * (len(text) > _MOST_SHOWN_LENGTH)}"
        return RowKeys(keys_N[:num_train], keys_N[num_train:], shown)


class _Runs:
    """Hashes of the runs of words of a text."""

    def __init__(self, num_words: int, *, masks_numbers: bool) -> None:
        self.masks_numbers, self.hash_of = masks_numbers, _WordHashes()
        rng = np.random.default_rng(0)
        self.factor_W = rng.integers(1, 2**63, num_words, dtype=np.uint64) * np.uint64(2) + np.uint64(1)

    def hash_text(self, text: str) -> np.ndarray:
        """(R,) uint64, sorted, each once; of a text with fewer words one of all of them, of no words none."""
        text = _NUMBER.sub("0", text) if self.masks_numbers else text
        words = _WORD.findall(text.lower())
        if not words:
            return np.zeros(0, np.uint64)
        num_runs = max(1, len(words) - len(self.factor_W) + 1)
        words_n = np.fromiter(map(self.hash_of.__getitem__, words), np.uint64, len(words))
        hashes_R = np.zeros(num_runs, np.uint64)
        for place, factor in enumerate(self.factor_W[: len(words)]):
            hashes_R += words_n[place : place + num_runs] * factor  # modulo 2^64, which is meant
        return np.unique(hashes_R ^ (hashes_R >> np.uint64(29)))


class _WordHashes(dict[str, int]):
    """The hash of each word, of which so many are kept."""

    def __missing__(self, word: str) -> int:
        found = int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
        if len(self) < _MOST_KNOWN_WORDS:
            self[word] = found
        return found


def find_near_texts(
    texts: Sequence[str], *, least: float = 0.5, num_words: int = 5, masks_numbers: bool = False
) -> NearTexts:
    """Finds the texts that are nearly the same; the same ones each time.

    Args:
        texts: (N,), or what gives them by number, such as a column on disk.
        least: Jaccard index from which two are near, above 0 to 1.
        num_words: of a run.
        masks_numbers: whether texts that differ in numbers only are the same.

    Source:
        Broder 1997, "On the resemblance and containment of documents" (MinHash).
    """
    runs = _Runs(num_words, masks_numbers=masks_numbers)
    pairs, first, sketches = list[NearPair](), dict[bytes, int](), _Sketches(len(texts))
    for number in range(len(texts)):
        hashes_R = runs.hash_text(str(texts[number]))
        if len(hashes_R) == 0:
            continue
        same = first.setdefault(blake2b(hashes_R.tobytes(), digest_size=16).digest(), number)
        if same != number:
            pairs.append(NearPair(same, number, 1.0))
        else:
            sketches.add(number, hashes_R)
    known, num_known = dict[int, np.ndarray](), 0

    def hash_number(number: int) -> np.ndarray:
        nonlocal num_known
        if (found := known.get(number)) is None:
            if num_known > _MOST_KNOWN_RUNS:
                known.clear()
                num_known = 0
            found = known[number] = runs.hash_text(str(texts[number]))
            num_known += len(found)
        return found

    for number, others in sketches.find_candidates(least):
        hashes_R = hash_number(number)
        for other in others:
            likeness = measure_likeness(hashes_R, hash_number(other))
            if likeness >= least:
                pairs.append(NearPair(other, number, likeness))
    return NearTexts(tuple(sorted(pairs, key=lambda pair: (pair.other, pair.one))), len(texts))


def measure_likeness(one_R: np.ndarray, other_R: np.ndarray) -> float:
    """The Jaccard index of two sets, each sorted and without repetition."""
    shared = len(np.intersect1d(one_R, other_R, assume_unique=True))
    return shared / (len(one_R) + len(other_R) - shared)


class _Sketches:
    """MinHash of N texts, P numbers each. Texts that agree in a band of them are candidates: bands are so short that of
    pairs that are just near 1 % is missed at most; candidates that are none cost time only."""

    def __init__(self, num_texts: int) -> None:
        from datasketch import MinHash

        self.new, self.permutations = MinHash, MinHash(_PERMUTATIONS).permutations
        self.sketch_NP = np.zeros((num_texts, _PERMUTATIONS), np.uint32)
        self.has_one_N = np.zeros(num_texts, bool)

    def add(self, number: int, hashes_R: np.ndarray) -> None:
        """Takes a text in."""
        sketch = self.new(_PERMUTATIONS, hashfunc=int, scheme="affine32", permutations=self.permutations)
        sketch.update_batch((hashes_R & np.uint64(0xFFFFFFFF)).tolist())
        self.sketch_NP[number], self.has_one_N[number] = sketch.hashvalues, True

    def find_candidates(self, least: float) -> Iterator[tuple[int, list[int]]]:
        """Each text that has some, and the earlier texts that may be near it, the first ones first."""
        num_bands, length = _choose_bands(least)
        numbers_M = np.flatnonzero(self.has_one_N)
        bands = [
            _Band(numbers_M, self.sketch_NP[numbers_M, band * length : (band + 1) * length])
            for band in range(num_bands)
        ]
        for number in np.unique(np.concatenate([band.later for band in bands])).tolist():
            found = np.unique(np.concatenate([band.find_earlier(number) for band in bands]))
            yield number, found[:_MOST_CANDIDATES].tolist()


class _Band:
    """Which of M texts agree in all L numbers of a band.

    Attributes:
        later: the numbers of the texts that agree with an earlier one, sorted.
    """

    def __init__(self, numbers_M: np.ndarray, sketch_ML: np.ndarray) -> None:
        weight_L = np.random.default_rng(0).integers(1, 2**63, sketch_ML.shape[1], dtype=np.uint64) * np.uint64(2) + 1
        key_M = (sketch_ML.astype(np.uint64) * weight_L).sum(axis=1, dtype=np.uint64)
        order_M = np.argsort(key_M, kind="stable")
        is_first_M = np.concatenate([[True], np.diff(key_M[order_M]) != 0]) if len(order_M) else np.zeros(0, bool)
        group_M = np.cumsum(is_first_M) - 1
        is_shared_M = np.bincount(group_M, minlength=1)[group_M] > 1
        self.members = numbers_M[order_M[is_shared_M]].astype(np.int32)  # group by group, in each the first ones first
        begins = np.flatnonzero(is_first_M[is_shared_M])
        begin_of = np.repeat(begins, np.diff([*begins, len(self.members)]))
        place = np.flatnonzero(~is_first_M[is_shared_M])
        place = place[np.argsort(self.members[place])]
        self.later, self.place, self.begin = self.members[place], place, begin_of[place]

    def find_earlier(self, number: int) -> np.ndarray:
        """The first texts before a text that agree with it."""
        row = np.searchsorted(self.later, number)
        if row == len(self.later) or self.later[row] != number:
            return np.zeros(0, np.int32)
        begin = self.begin[row]
        earlier: np.ndarray = self.members[begin : min(self.place[row], begin + _MOST_CANDIDATES)]
        return earlier


def _choose_bands(least: float) -> tuple[int, int]:
    """The number of bands and their length: the longest of which one agrees in nearly all pairs that are just near."""
    length = next(n for n in range(16, 0, -1) if n == 1 or (1 - least**n) ** (_PERMUTATIONS // n) <= _MOST_MISSED)
    return _PERMUTATIONS // length, length
