"""Estimators as trainers: whatever has fit and predict or predict_proba. Nothing is imported for them."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainers.interface import DataError
from trainers.values import describe_missing

if TYPE_CHECKING:
    from trainers.own_trainer.fold import Fold


def is_estimator(value: Any) -> bool:
    """Whether something can be fitted and asked."""
    return not isinstance(value, type) and hasattr(value, "fit") and hasattr(value, "predict")


def is_classifier(estimator: Any) -> bool:
    """Whether an estimator says classes: as scikit-learn's and what is like them say it, or by its probabilities."""
    kind = getattr(estimator, "_estimator_type", None)
    if kind is None and hasattr(estimator, "__sklearn_tags__"):
        kind = estimator.__sklearn_tags__().estimator_type
    return bool(kind == "classifier") if kind else hasattr(estimator, "predict_proba")


def describe_estimator(estimator: Any) -> str:
    """The estimator with all its parameters, as text: what the same text describes learns the same."""
    parameters = estimator.get_params(deep=False) if hasattr(estimator, "get_params") else None
    shown = repr(estimator) if parameters is None else f"{type(estimator).__name__}({_show_items(parameters)})"
    return re.sub(r" at 0x[0-9a-f]+", "", shown)


def _show_items(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={_show(value)}" for name, value in sorted(values.items()))


def _show(value: Any) -> str:
    if hasattr(value, "get_params") and not isinstance(value, type):
        return describe_estimator(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_show, value))}]"
    return repr(value)


@dataclass(frozen=True)
class EstimatorTrainer:
    """Fits a copy of an estimator in each fold and keeps it.

    Attributes:
        estimator: is never fitted itself.
        features: the columns that it is given; none: all but id, target, group, time and fold.
    """

    estimator: Any
    features: Sequence[str] = ()

    def __call__(self, fold: Fold) -> Any:
        names = list(fold.config.features or fold.features)
        if missing := [(name, "features") for name in names if name not in fold.train]:
            raise DataError(describe_missing(missing, fold.train))
        estimator = copy_unfitted(self.estimator)
        # Some want classes by their numbers, and all take them.
        truth = fold.number_classes(fold.train) if fold.classes else fold.train[fold.target]
        try:
            estimator.fit(fold.train[names], truth)
        except (TypeError, ValueError) as error:
            if texts := [name for name in names if fold.train[name].dtype.kind not in "biufM"]:
                raise DataError(_advise(estimator, texts, error)) from error
            raise
        fold.keep_model(estimator, features=names, knows_numbers=True)


def _advise(estimator: Any, texts: list[str], error: Exception) -> str:
    """What an estimator refuses, with the likely cause."""
    return (
        f"{type(estimator).__name__} does not learn from these columns: {error}. It was given columns that are no "
        f"numbers: {', '.join(texts)}. Name the column of ids (`id=`, or data.id_column) or the columns to learn from "
        "(`features=`, or my.features), or let a pipeline encode them"
    )


def copy_unfitted(estimator: Any) -> Any:
    """A copy without what was learned, as scikit-learn's `clone` makes it; of what is no estimator of its kind a
    deep copy."""
    if hasattr(estimator, "get_params"):
        from sklearn.base import clone

        return clone(estimator, safe=False)
    return copy.deepcopy(estimator)
