"""What a script says becomes a run's config, before anything is launched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GroupKFold, RepeatedKFold, TimeSeriesSplit

from ray_jobs import cross_validate
from ray_jobs.api.settings import Wanted, build_config
from ray_jobs.config.run import RunConfig
from ray_jobs.errors import RunError

ROWS = pd.DataFrame({"x": np.arange(12.0), "y": np.arange(12.0), "who": list("abcd" * 3), "kind": ["a", "b", "c"] * 4})


def train_fold(fold):
    """Is not called."""


def build(tmp_path: Path, trainer=train_fold, target="y", data=ROWS, **fields) -> RunConfig:
    wanted = Wanted(trainer, data, target, storage=tmp_path / "runs", **fields)
    return build_config(wanted, wanted.make_source())


def test_the_same_call_makes_the_same_config(tmp_path):
    first, second = (build(tmp_path, data=ROWS.copy(), test=ROWS[["x"]], my={"depth": 4}) for _ in range(2))
    assert str(first) == str(second)
    assert first.run.name.endswith("_train_fold")
    assert Path(first.trainer.data.root).parent == tmp_path / "runs/.kfold_cache/tables"
    pd.testing.assert_frame_equal(pd.read_parquet(first.trainer.data.root), ROWS)
    assert first.trainer.my["depth"] == first.trainer.my.depth == 4
    assert build(tmp_path, data=ROWS.assign(x=0)).trainer.data.root != first.trainer.data.root


def test_a_path_is_taken_as_it_is(tmp_path):
    ROWS.to_csv(tmp_path / "rows.csv", index=False)
    assert build(tmp_path, data=tmp_path / "rows.csv").trainer.data.root == str(tmp_path / "rows.csv")


@pytest.mark.parametrize(
    ("fields", "kind", "count"),
    [
        ({"folds": 3}, "random", 3),
        ({"folds": 3, "groups": "who"}, "grouped", 3),
        ({"folds": 3, "time": np.arange(12)}, "time", 3),
        ({"folds": "stratified", "config": {"folds.count": 4}}, "stratified", 4),
        ({"folds": 3, "target": "kind"}, "stratified", 3),
        ({"folds": GroupKFold(4), "groups": "who"}, "predefined", 4),
    ],
)
def test_folds_are_a_number_a_kind_or_a_splitter(tmp_path, fields, kind, count):
    config = build(tmp_path, **fields)
    assert (config.folds.kind, config.folds.count) == (kind, count)


def test_a_folder_s_test_table_stays_where_a_splitter_s_folds_are_added(tmp_path):
    for name in ("train", "test"):
        ROWS.to_csv(tmp_path / f"{name}.csv", index=False)
    data = build(tmp_path, data=tmp_path, folds=GroupKFold(4), groups="who").trainer.data
    assert data.test_table == str(tmp_path / "test.csv")
    assert data.root.endswith(".parquet")


def test_a_splitter_s_folds_become_a_column(tmp_path):
    config = build(tmp_path, folds=GroupKFold(4), groups="who")
    rows = pd.read_parquet(config.trainer.data.root)
    assert (rows.groupby("who")[config.trainer.data.fold_column].nunique() == 1).all()
    assert sorted(rows[config.trainer.data.fold_column].unique()) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("trainer", "target", "predicts"),
    [
        (train_fold, "y", "number"),
        (train_fold, "kind", "classes"),
        (LinearRegression(), "y", "number"),
        (LogisticRegression(), "y", "classes"),
    ],
)
def test_classes_are_what_a_classifier_or_a_target_of_text_asks_for(tmp_path, trainer, target, predicts):
    config = build(tmp_path, trainer, target)
    assert predicts == config.trainer.PREDICTS
    config.kind.check_metric(config.ensemble.metric)


def test_an_estimator_s_parameters_are_its_options(tmp_path):
    first, second = (
        build(tmp_path, LinearRegression(positive=one), features=["x"]).trainer.my for one in (True, False)
    )
    assert first.features == ("x",)
    assert first.estimator != second.estimator == build(tmp_path, LinearRegression()).trainer.my.estimator


def test_columns_of_arrow_s_types_are_taken_as_ray_data_gives_them(tmp_path):
    lists = pd.Series([[1.0, 2.0]] * 12, dtype=pd.ArrowDtype(pa.list_(pa.float64())))
    rows = pd.DataFrame({"x": lists, "y": pd.array(range(12), "int64[pyarrow]"), "who": pd.array(["a"] * 12, "string")})
    read = pd.read_parquet(build(tmp_path, data=rows).trainer.data.root)
    assert np.stack(read["x"]).tolist() == [[1.0, 2.0]] * 12
    assert (read["y"].dtype, read["y"].sum()) == (np.dtype("int64"), 66)


def test_several_targets_are_refused_before_anything_is_read(tmp_path):
    with pytest.raises(RunError, match=r"target=\['red', 'blue'\]: expected one column; of several yes/no labels"):
        cross_validate(train_fold, ROWS, ["red", "blue"], storage=tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data": 3}, "data is a int: expected a DataFrame"),
        ({"target": "z"}, "no column 'z'; the table has 'x', 'y'"),
        ({"folds": 1}, "folds.count=1: expected 2 to 1000"),
        ({"folds": "foldwise"}, "folds='foldwise': expected a number, one of random"),
        ({"folds": TimeSeriesSplit(3)}, "fold 0 of TimeSeriesSplit trains on 3 rows and validates 3 of 12"),
        ({"folds": RepeatedKFold(n_splits=2)}, "RepeatedKFold validates 6 rows of fold 2 in an earlier fold, too"),
        ({"groups": [1, 2]}, r"group has the shape \(2,\): expected one value for each of the 12 rows"),
        ({"my": {"depth": {}}}, "my.depth is a dict: options stand in the run's config"),
        ({"my": 3}, "my is a int: expected a dict or a dataclass"),
        ({"config": {"colour": 1}}, "'colour' is no field; write section.field"),
        ({"config": {"resources.gpu": 1}}, "no field 'resources.gpu'; nearest: resources.gpus_per_fold"),
        ({"features": ["x"]}, "features= is for estimators"),
        ({"task": "ranking"}, "task='ranking': expected auto, regression or classification"),
        ({"name": "a/b"}, "run.name=a/b: expected letters"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path, fields, message):
    with pytest.raises(RunError, match=message):
        build(tmp_path, **fields)
