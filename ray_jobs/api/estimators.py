"""A run of K folds as a scikit-learn estimator: its predictions are those of the folds' ensemble."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import assert_all_finite
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from ray_jobs.api.cross_validate import cross_validate
from ray_jobs.api.run import Run
from ray_jobs.api.settings import DEFAULT_COUNT
from trainers.own_trainer.estimator import describe_estimator

_TARGET = "__target__"


class _KFold(BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """Fits K copies of an estimator side by side.

    Args:
        estimator: has fit and predict (of classes predict_proba).
        folds, seed, config: as for `cross_validate`.
        name: the run's; None: of class, estimator and data, so that the same fit continues its run.
        storage: folder that holds the runs.

    Attributes:
        run_: the run.
        oof_: for each row of X the prediction of the model that did not train on it, NaN where no fold validated it;
            (N,), of classes (N, C).
        folds_: the fold that validated each row, -1 where none did, (N,).
    """

    def __init__(
        self,
        estimator: Any = None,
        *,
        folds: Any = DEFAULT_COUNT,
        seed: int = 0,
        name: str | None = None,
        storage: str | os.PathLike[str] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.estimator, self.folds, self.seed = estimator, folds, seed
        self.name, self.storage, self.config = name, storage, config

    _task: Any
    run_: Run

    def fit(self, X: Any, y: Any, groups: Any = None) -> Any:
        """Trains the folds.

        Args:
            X: (N, F), an array or a DataFrame.
            y: (N,).
            groups: (N,) values of which none is on both sides of a fold.
        """
        if not isinstance(X, pd.DataFrame):
            X, y = validate_data(self, X, y, y_numeric=self._task == "regression", ensure_min_samples=2)
        else:
            y = column_or_1d(y, warn=True)
            self.n_features_in_, self.feature_names_in_ = X.shape[1], np.array(X.columns, object)
        rows = self._as_rows(X)
        table = rows.assign(**{_TARGET: np.asarray(y)})
        self.run_ = cross_validate(
            self.estimator, table, _TARGET, features=list(rows), groups=groups, folds=self.folds, task=self._task,
            name=self.name or self._name_run(table), storage=self.storage, seed=self.seed, config=self.config,
        )  # fmt: skip
        known = self.run_.oof.set_index(self.run_.oof["id"].astype(int)).reindex(range(len(rows)))
        self.folds_ = known["fold"].fillna(-1).to_numpy(int)
        self.oof_ = self._read_oof(known)
        return self

    def _read_oof(self, known: pd.DataFrame) -> np.ndarray:
        oof_N: np.ndarray = known["prediction"].to_numpy(np.float64)
        return oof_N

    def _predict(self, X: Any) -> pd.DataFrame:
        check_is_fitted(self)
        if not isinstance(X, pd.DataFrame):
            X = validate_data(self, X, reset=False)
        return self.run_.predict(self._as_rows(X))

    def _as_rows(self, X: Any) -> pd.DataFrame:
        """As a table whose columns have names."""
        return X.reset_index(drop=True) if isinstance(X, pd.DataFrame) else pd.DataFrame(X).add_prefix("x")

    def _name_run(self, table: pd.DataFrame) -> str:
        content = pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes()
        said = f"{describe_estimator(self.estimator)} {self.folds} {self.seed} {self.config}"
        return f"{type(self).__name__}_{hashlib.sha256(content + said.encode()).hexdigest()[:12]}"


class KFoldRegressor(RegressorMixin, _KFold):  # type: ignore[misc] # scikit-learn has no types
    """Numbers; see `cross_validate`. `predict` is the ensemble of the folds' models."""

    _task = "regression"

    def predict(self, X: Any) -> np.ndarray:
        """(N,)."""
        predicted_N: np.ndarray = self._predict(X)[_TARGET].to_numpy(np.float64)
        return predicted_N


class KFoldClassifier(ClassifierMixin, _KFold):  # type: ignore[misc] # scikit-learn has no types
    """Classes; see `cross_validate`. `predict_proba` is the ensemble of the folds' models."""

    _task = "classification"

    def fit(self, X: Any, y: Any, groups: Any = None) -> Any:
        """As of a regressor, where y is of any type."""
        assert_all_finite(np.asarray(y))
        check_classification_targets(y)
        self.classes_ = np.unique(np.asarray(y))
        return super().fit(X, y, groups)

    def predict_proba(self, X: Any) -> np.ndarray:
        """(N, C), in the order of `classes_`."""
        predicted_NC: np.ndarray = self._predict(X).iloc[:, -len(self.classes_) :].to_numpy(np.float64)
        return predicted_NC

    def predict(self, X: Any) -> np.ndarray:
        """(N,)."""
        number_N = self.predict_proba(X).argmax(axis=1)
        likeliest_N: np.ndarray = self.classes_[number_N]
        return likeliest_N

    def _read_oof(self, known: pd.DataFrame) -> np.ndarray:
        unknown = np.full(len(self.classes_), np.nan)
        return np.stack([row if isinstance(row, np.ndarray) else unknown for row in known["probability"]])
