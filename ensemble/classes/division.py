"""What is to be said of classes and of their division into folds before anything is trained. Texts only.

Shape suffixes: N rows, n some of them, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ensemble.kinds import FoldTargets

_SHOWN = 5


def note_classes(name: str, target_N: np.ndarray, folds: Sequence[FoldTargets], classes: Sequence[str]) -> list[str]:
    """Sentences on rare classes, and on classes that a fold does not train on or validate; see `Kind.note_targets`.

    Raises:
        ValueError: all rows that train a fold are of one class.
    """
    names = classes or [str(number) for number in range(int(target_N.max()) + 1)]
    counts_C = np.bincount(target_N, minlength=len(names))
    for number, fold in enumerate(folds):
        found = np.unique(fold.trained_n)
        if len(found) < 2:
            what = f"of class {names[found[0]]!r}" if len(found) else "no rows"
            raise ValueError(
                f"all rows that train fold {number} are {what} of target {name!r}: there is nothing to tell apart. "
                "Use folds.kind=stratified, or other groups or folds"
            )
    return [*_note_rare(name, counts_C, len(folds), names), *_note_absent(name, counts_C, folds, names)]


def _note_rare(name: str, counts_C: np.ndarray, num_folds: int, names: Sequence[str]) -> list[str]:
    rare = np.flatnonzero((counts_C > 0) & (counts_C < num_folds))
    if not len(rare):
        return []
    shown = _list([f"{names[number]!r} ({counts_C[number]})" for number in rare.tolist()])
    return [
        f"target {name}: {len(rare)} class{'es have' if len(rare) > 1 else ' has'} fewer rows than there are folds "
        f"({num_folds}): {shown}. Some folds validate none of them; join them with others, or lower folds.count"
    ]


def _note_absent(name: str, counts_C: np.ndarray, folds: Sequence[FoldTargets], names: Sequence[str]) -> list[str]:
    notes = []
    for number, fold in enumerate(folds):
        trained_C = np.bincount(fold.trained_n, minlength=len(names))
        validated_C = np.bincount(fold.validated_n, minlength=len(names))
        if len(unseen := np.flatnonzero((trained_C == 0) & (validated_C > 0))):
            shown = _list([f"{names[one]!r} ({validated_C[one]} to validate)" for one in unseen.tolist()])
            notes.append(
                f"target {name}: fold {number} trains on no row of class {shown}: its model cannot know it, and these "
                "rows count as wrong. folds.kind=stratified divides the rows of a class among all folds"
            )
        if (validated_C > 0).sum() == 1 and (counts_C > 0).sum() > 1:
            only = names[int(validated_C.argmax())]
            notes.append(
                f"target {name}: fold {number} validates rows of class {only!r} alone: there is no area under a ROC "
                "curve there, and accuracy says little"
            )
    return notes


def _list(texts: Sequence[str]) -> str:
    return ", ".join(texts[:_SHOWN]) + ", …" * (len(texts) > _SHOWN)
