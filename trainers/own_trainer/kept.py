"""A fitted model that a fold has kept, and its predictions of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from trainers.own_trainer.table import name_class
from trainers.values import describe_missing

_TOLERANCE = 1e-3


@dataclass
class KeptModel:
    """A model, and what it is asked with.

    Attributes:
        model: has `predict`, or is a function of rows.
        features: the columns that it is given; None: a function of rows gets all of them.
        types: of the training rows' columns, which new rows are given.
        classes: names of the target's, in the order of its probabilities; none: it predicts numbers.
        is_numbered: whether the model knows the classes by their numbers.
    """

    model: Any
    features: tuple[str, ...] | None
    types: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    is_numbered: bool = False

    def predict(self, rows: pd.DataFrame) -> Any:
        """What the model says of rows: numbers, or of classes the probability of each, (N, C), in their order."""
        given = rows if self.features is None else rows[list(self.features)]
        if not hasattr(self.model, "predict"):
            return self.model(given)
        if not self.classes:
            return self.model.predict(given)
        if not hasattr(self.model, "predict_proba"):  # it says the class alone
            said = [self._find_class(value) for value in np.asarray(self.model.predict(given)).ravel().tolist()]
            return np.eye(len(self.classes))[said]
        return self._put_in_order(np.asarray(self.model.predict_proba(given), np.float64))

    def _put_in_order(self, probability_NK: np.ndarray) -> np.ndarray:
        """The model's columns as those of the run's classes; one that it has not seen has the probability 0."""
        known = getattr(self.model, "classes_", None)
        if known is None or probability_NK.ndim != 2 or len(known) != probability_NK.shape[1]:
            return probability_NK
        probability_NC = np.zeros((len(probability_NK), len(self.classes)))
        probability_NC[:, [self._find_class(value) for value in np.asarray(known).tolist()]] = probability_NK
        return probability_NC

    def _find_class(self, value: Any) -> int:
        """Its number among the run's.

        Raises:
            ValueError: it is none of them.
        """
        if self.is_numbered:
            return int(value)
        if (name := name_class(value)) not in self.classes:
            raise ValueError(f"the model predicts the class {name!r}; the target has {', '.join(self.classes)}")
        return self.classes.index(name)

    def cast(self, rows: pd.DataFrame) -> pd.DataFrame:
        """New rows with the training rows' types where they have others, as whole numbers that a CSV file shows without
        a point."""
        changed = {}
        for name, kind in self.types.items():
            if name in rows and rows[name].dtype != kind:
                changed[name] = _cast(rows[name], kind)
        return rows.assign(**changed) if changed else rows


def _cast(column: pd.Series, kind: Any) -> pd.Series:
    for one in (kind, np.float64) if getattr(kind, "kind", "") in ("i", "u") else (kind,):
        try:
            return column.astype(one)
        except (ValueError, TypeError):  # such as an empty cell where all were whole numbers
            continue
    return column


def make_kept(
    model: Any,
    features: Sequence[str] | None,
    all_features: Sequence[str],
    train: pd.DataFrame,
    classes: tuple[str, ...],
    *,
    is_numbered: bool,
) -> KeptModel:
    """What `fold.keep_model` keeps.

    Raises:
        ValueError: the model cannot be asked with rows, or a feature is no column.
    """
    is_asked = hasattr(model, "predict")
    if not is_asked and (not callable(model) or hasattr(model, "forward")):
        raise ValueError(
            f"keep_model got a {type(model).__name__}: expected a model with predict, or a function of rows (a "
            "DataFrame) that returns their predictions, such as keep_model(lambda rows: model(to_tensor(rows)).numpy())"
        )
    named = features
    if named is None and is_asked:
        named = next(
            (
                list(found)  # type: ignore[arg-type]
                for name in ("feature_names_in_", "feature_name_", "feature_names_")
                if _are_columns(found := getattr(model, name, None), train)
            ),
            list(all_features),
        )
    if named is not None and (missing := [(name, "features of keep_model") for name in named if name not in train]):
        raise ValueError(describe_missing(missing, train))
    types = {name: train[name].dtype for name in (named if named is not None else all_features)}
    return KeptModel(model, None if named is None else tuple(named), types, classes, is_numbered)


def _are_columns(names: Any, train: pd.DataFrame) -> bool:
    return names is not None and len(names) > 0 and all(isinstance(name, str) and name in train for name in names)


def _show(value: Any) -> str:
    return " ".join(f"{one:.6g}" for one in np.ravel(value)[:4])


def refuse_other_predictions(kept_N: np.ndarray, returned_N: np.ndarray, ids_N: np.ndarray) -> None:
    """Raises ValueError where the model that is kept predicts something else than the function has returned: new rows
    would be predicted wrong."""
    scale = float(np.abs(returned_N).max()) if returned_N.size else 0.0
    differs = ~np.isclose(kept_N, returned_N, rtol=_TOLERANCE, atol=_TOLERANCE * scale)
    if not differs.any():
        return
    row = int(np.argwhere(differs)[0][0])
    number = int(differs.reshape(len(ids_N), -1).any(axis=1).sum())
    raise ValueError(
        f"the model that is kept predicts {_show(kept_N[row])} for row {str(ids_N[row])!r}, and the function has "
        f"returned {_show(returned_N[row])} ({number} of {len(ids_N)} validation rows differ), so new rows would be "
        "predicted otherwise. Keep the whole way from rows to predictions, such as "
        "fold.keep_model(lambda rows: np.exp(model.predict(rows[features])))"
    )
