"""A fitted model that a fold has kept, and its predictions of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

_TOLERANCE = 1e-3


@dataclass
class KeptModel:
    """A model, and what it is asked with.

    Attributes:
        model: has `predict`, or is a function of rows.
        features: the columns that it is given; None: a function of rows gets all of them.
        types: of the training rows' columns, which new rows are given.
    """

    model: Any
    features: tuple[str, ...] | None
    types: Mapping[str, Any] = field(default_factory=dict)

    def predict(self, rows: pd.DataFrame) -> Any:
        """What the model says of rows, as it says it."""
        given = rows if self.features is None else rows[list(self.features)]
        return self.model.predict(given) if hasattr(self.model, "predict") else self.model(given)

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
    model: Any, features: Sequence[str] | None, all_features: Sequence[str], train: pd.DataFrame
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
                list(found)
                for name in ("feature_names_in_", "feature_name_", "feature_names_")
                if _are_columns(found := getattr(model, name, None), train)
            ),
            list(all_features),
        )
    if named is not None and (missing := [name for name in named if name not in train]):
        raise ValueError(f"keep_model(features=...): no column {missing[0]!r} in the table")
    types = {name: train[name].dtype for name in (named if named is not None else all_features)}
    return KeptModel(model, None if named is None else tuple(named), types)


def _are_columns(names: Any, train: pd.DataFrame) -> bool:
    return names is not None and len(names) > 0 and all(isinstance(name, str) and name in train for name in names)


def refuse_other_predictions(kept_N: np.ndarray, returned_N: np.ndarray, ids_N: np.ndarray) -> None:
    """Raises ValueError where the model that is kept predicts something else than the function has returned: new rows
    would be predicted wrong."""
    scale = float(np.abs(returned_N).max()) if returned_N.size else 0.0
    differs = ~np.isclose(kept_N, returned_N, rtol=_TOLERANCE, atol=_TOLERANCE * scale)
    if not differs.any():
        return
    row = int(np.argwhere(differs)[0][0])
    raise ValueError(
        f"the model that is kept predicts {kept_N[row]:g} for row {ids_N[row]!r}, and the function has returned "
        f"{returned_N[row]:g} ({differs.sum()} of {len(ids_N)} validation rows differ), so new rows would be predicted "
        "otherwise. Keep the whole way from rows to predictions, such as "
        "fold.keep_model(lambda rows: np.exp(model.predict(rows[features])))"
    )
