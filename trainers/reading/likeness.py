"""Why ids and the names of files do not meet: what they differ by, and how many would match without it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable
from itertools import combinations, islice

from trainers.reading.picture_files import PICTURE_SUFFIXES

_MOST = 10_000  # ids that are tried
_ENDING = re.compile(rf"(?:{'|'.join(map(re.escape, PICTURE_SUFFIXES))})$", re.IGNORECASE)
_DIFFERENCES: dict[str, Callable[[str], str]] = {
    "an ending": lambda name: _ENDING.sub("", name),
    "blanks": str.strip,
    "a .0, as pandas writes whole numbers in a column with gaps": lambda name: re.sub(r"^(-?\d+)\.0+$", r"\1", name),
    "zeros in front, which are lost where a column is read as numbers": lambda name: re.sub(r"^0+(?=\d)", "", name),
    "upper and lower case": str.casefold,
    "the form of their Unicode letters (NFC or NFD; macOS writes the second)": lambda name: unicodedata.normalize(
        "NFC", name
    ),
}


def explain_mismatch(missing: Iterable[str], names: Collection[str]) -> str:
    """What ids and names differ by, in a sentence; empty where nothing explains it.

    Args:
        missing: ids of which there is no file.
        names: of the files, without their endings.
    """
    asked = list(islice(missing, _MOST))
    best: tuple[int, tuple[str, ...]] = (0, ())
    for size in (1, 2):
        for kinds in combinations(_DIFFERENCES, size):
            num = _count_matches(asked, names, kinds)
            if num > best[0]:
                best = (num, kinds)
    num, kinds = best
    if not num:
        return ""
    return f"{num:,} of {len(asked):,} would match but for {' and '.join(kinds)}"


def _count_matches(asked: list[str], names: Collection[str], kinds: tuple[str, ...]) -> int:
    """How many ids have a name that is the same without these differences, and just one."""

    def bare(name: str) -> str:
        for kind in kinds:
            name = _DIFFERENCES[kind](name)
        return name

    times: dict[str, int] = {}
    for name in names:
        times[bare(name)] = times.get(bare(name), 0) + 1
    return sum(times.get(bare(row_id)) == 1 for row_id in asked)


def find_suffix(stems: Collection[str], names: Collection[str]) -> tuple[str, int]:
    """What the names of masks have behind those of their pictures most often, and how many have it.

    Args:
        stems: of the pictures.
        names: of the masks.
    """
    times: dict[str, int] = {}
    known = set(stems)
    for name in names:
        for length in range(len(name) - 1, 0, -1):
            if name[:length] in known:
                times[name[length:]] = times.get(name[length:], 0) + 1
                break
    return max(times.items(), key=lambda item: item[1], default=("", 0))
