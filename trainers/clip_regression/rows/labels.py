"""The target as classes: what a cell calls a row, and the number of that class. A class is a word, a whole number (`1`
and `1.0` are one) or true and false in whatever case."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from trainers.clip_regression.rows.cells import GROUPED
from trainers.clip_regression.rows.problems import Problems
from trainers.interface import FORMULA, DataError
from trainers.reading.tables import shorten

_MOST_LENGTH = 200  # characters; a class names a column
_BOOLEANS = {"true", "false"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_SHOWN = 5


def hold_classes(cells: pd.Series) -> bool:
    """Whether most cells that are not empty are no numbers, not even misspelt ones such as 1,5, and can be read."""
    filled = cells[cells != ""]
    is_misspelt = filled.str.fullmatch(GROUPED).astype(bool) | filled.map(lambda cell: bool(_CONTROL.search(cell)))
    is_word = pd.to_numeric(filled, errors="coerce").isna() & ~is_misspelt.astype(bool)
    return bool(len(filled)) and float(is_word.mean()) > 0.5


def read_labels(cells: pd.Series, ids: np.ndarray, name: str, bad: Problems) -> np.ndarray:
    """The class of each row by its name, (N,) of str.

    Args:
        cells: of the target.
        ids: of the rows.
        name: of the target's column.
        bad: gets the rows whose cell is no class.
    """
    labels_N: np.ndarray = cells.to_numpy(object).astype(str)
    numbers_N = pd.to_numeric(cells, errors="coerce").to_numpy(np.float64)
    is_filled_N = labels_N != ""
    if {label.lower() for label in labels_N[is_filled_N].tolist()} <= _BOOLEANS:
        labels_N = np.char.lower(labels_N)
    is_number_N = np.isfinite(numbers_N) & is_filled_N
    if (is_number_N == is_filled_N).all():
        for row in np.flatnonzero(is_number_N & (numbers_N != np.round(numbers_N))).tolist():
            kind = f"target {name!r} is no class: expected a word or a whole number (data.task=regression: any number)"
            bad.add(kind, row, ids[row], labels_N[row])
        labels_N = np.array([_as_integer(n, label) for n, label in zip(numbers_N, labels_N.tolist(), strict=True)])
    for row, label in enumerate(labels_N.tolist()):
        if not label:
            bad.add(f"target {name!r} is empty", row, ids[row])
        elif len(label) > _MOST_LENGTH or _CONTROL.search(label):
            bad.add(f"target {name!r} is a text, no name of a class", row, ids[row], repr(shorten(label, 40)))
        elif FORMULA.search(label):
            bad.add("class would be run as a formula by a spreadsheet that opens the submission", row, ids[row], label)
    return labels_N


def _as_integer(number: float, label: str) -> str:
    return str(int(number)) if np.isfinite(number) and number == round(number) else label


def number_labels(labels_N: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """The classes, whole numbers by their size and words by the alphabet, and each row's number of its class, (N,)
    float64 as other targets."""
    found = set(labels_N.tolist())
    is_whole = all(re.fullmatch(r"-?\d+", label) for label in found)
    classes = sorted(found, key=int) if is_whole else sorted(found)
    place = {label: float(number) for number, label in enumerate(classes)}
    return tuple(classes), np.array([place[label] for label in labels_N.tolist()])


def check_classes(classes: Sequence[str], target_N: np.ndarray, name: str) -> tuple[str, ...]:
    """Sentences on classes that are worth a look.

    Raises:
        DataError: there is nothing to tell apart, or nearly each row is a class of its own.
    """
    num_rows = len(target_N)
    if len(classes) < 2:
        raise DataError(
            f"target {name!r} is {classes[0]!r} in all {num_rows:,} training rows: expected at least two classes. Is "
            "data.target the right column?"
        )
    if len(classes) > num_rows / 2:
        raise DataError(
            f"target {name!r} has {len(classes):,} classes in {num_rows:,} training rows ({_list(classes)}): expected "
            "several rows of each. Name another data.target, or set data.task=regression to predict a number"
        )
    alike: dict[str, list[str]] = {}
    for label in classes:
        alike.setdefault(" ".join(label.casefold().split()), []).append(label)
    return tuple(
        f"classes {_list(labels)} of target {name!r} differ only in case or spaces, and are predicted as different ones"
        for labels in alike.values()
        if len(labels) > 1
    )


def note_unknown(known: Sequence[str], found: Sequence[str], name: str) -> tuple[str, ...]:
    """A sentence on classes of the test table that no training row has."""
    unknown = sorted(set(found) - set(known))
    if not unknown:
        return ()
    which = f"class{'es' * (len(unknown) > 1)} {_list(unknown)}"
    return (
        f"the test table has {which} of target {name!r}, of which there is no training row: such rows cannot be "
        "predicted rightly. Is it spelt as in the training table?",
    )


def _list(labels: Sequence[str]) -> str:
    return ", ".join(map(repr, labels[:_SHOWN])) + ", …" * (len(labels) > _SHOWN)
