"""KFoldRegressor and KFoldClassifier by scikit-learn's own checks. Of these only such run here as end before a run of
folds begins: of the others each fit would start Ray and train five folds."""

from __future__ import annotations

import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.utils.estimator_checks import estimator_checks_generator

from ray_jobs import KFoldClassifier, KFoldRegressor

QUICK = (
    "check_no_attributes_set_in_init", "check_do_not_raise_errors_in_init_or_set_params", "check_mixin_order",
    "check_parameters_default_constructible", "check_get_params_invariance", "check_set_params",
    "check_estimator_cloneable", "check_estimator_repr", "check_estimator_tags_renamed", "check_valid_tag_types",
    "check_estimators_unfitted", "check_fit1d", "check_fit2d_1sample", "check_estimators_empty_data_messages",
    "check_complex_data", "check_supervised_y_no_nan", "check_requires_y_none", "check_classifiers_regression_target",
)  # fmt: skip


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize("estimator", [KFoldRegressor(Ridge()), KFoldClassifier(LogisticRegression())], ids=type)
def test_they_are_estimators_as_scikit_learn_has_them(estimator, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # where nobody answers
    estimator.set_params(storage=str(tmp_path))
    found = {check.func.__name__: (one, check) for one, check in estimator_checks_generator(estimator)}
    tried = [name for name in QUICK if name in found]
    assert len(tried) >= len(QUICK) - 1, "one of them is of classifiers alone"
    for name in tried:
        one, check = found[name]
        check(one)
