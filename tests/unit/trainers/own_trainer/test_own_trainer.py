"""A user's own function in a fold, without Ray: what it gets, what it may return, and what is said of what is wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from support.local_context import LocalFoldContext

from ray_jobs.config.recipes import RECIPES
from ray_jobs.planning.folds import FoldPlan
from ray_jobs.planning.leaks import find_leaks
from trainers.interface import DataError, Split, TrainedModel
from trainers.own_trainer.config import Config, DataConfig, ModelConfig, TrainerConfig
from trainers.own_trainer.inventory import take_inventory, write_inputs
from trainers.own_trainer.new_rows import find_new_rows
from trainers.own_trainer.predict import Predictor
from trainers.own_trainer.train import train_fold
from trainers.own_trainer.users_code.returned import ReturnedError
from trainers.own_trainer.users_code.source import PACKED, make_source
from trainers.predictions import ClassPredictions

NAMES = ["width", "height"]


@pytest.fixture
def data(tmp_path) -> Path:
    """24 rows, of which 4 only have to be predicted: price is 2 width - height, below zero at times."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(rng.normal(size=(24, 2)), columns=NAMES).assign(key=[f"lot{n}" for n in range(24)])
    frame["price"] = 2 * frame["width"] - frame["height"]
    frame["kind"] = np.where(frame["price"] > 0, "dear", "cheap")
    frame["day"] = pd.date_range("2025-01-01", periods=24)
    folder = tmp_path / "data"
    folder.mkdir()
    frame[:20].to_parquet(folder / "train.parquet")
    frame[20:].drop(columns=["price"]).to_parquet(folder / "test.parquet")
    return folder


def learn(
    function, folder: Path, tmp_path: Path, *, blend: int = 0, my=None, **sections
) -> tuple[Config, LocalFoldContext]:
    """Trains fold 0 by a function that travels as it does to a worker."""
    tmp_path.mkdir(exist_ok=True)
    source = make_source(function, "a test's")
    packed = tmp_path / f"function{PACKED}"
    packed.write_bytes(source.pack())
    config = Config(
        data=sections.get("data", DataConfig(root=str(folder), id_column="key")),
        model=sections.get("model", ModelConfig(source_sha256=source.sha256)),
        trainer=TrainerConfig(str(packed)),
        my=source.default_options() if my is None else source.build_options(my),
    )
    config, inventory = take_inventory(config, tmp_path)
    context = LocalFoldContext(tmp_path / "run")
    context.root.mkdir()
    write_inputs(config, inventory, context.inputs)
    ids = inventory.ids
    train_fold(config, Split(0, ids[:12], ids[12 : 20 - blend], ids[20 - blend :], 2), context)
    return config, context


def predict_new(config: Config, context: LocalFoldContext, place: Path):
    model = TrainedModel(context.descriptions["best"], context.load_checkpoint("best"), {})
    rows = find_new_rows([config], place)
    return Predictor([model], rows, "cpu", 1).predict(next(rows.read(100)))


def test_a_function_gets_its_fold_and_returns_predictions(data, tmp_path):
    def train(fold):
        assert list(fold.train) == ["width", "height", "key", "price", "kind", "day"]
        assert list(fold.test) == ["width", "height", "key", "kind", "day"]
        assert fold.train["day"].dtype.kind == "M"
        assert (len(fold.train), len(fold.validation), len(fold.test), fold.blend) == (12, 8, 4, None)
        assert (fold.number, fold.num_folds, fold.rank, fold.world_size, fold.device) == (0, 2, 0, 1, "cpu")
        assert fold.features == ["width", "height", "kind", "day"]
        return fold.validation["price"] + 0.5, np.arange(4)

    _, context = learn(train, data, tmp_path)
    for checkpoint in ("best", "final"):
        validation = context.predictions[checkpoint, "validation"]
        assert validation.ids.tolist() == [f"lot{n}" for n in range(12, 20)]
        np.testing.assert_allclose(validation.prediction - validation.target, 0.5)
        assert context.predictions[checkpoint, "test"].prediction.tolist() == [0, 1, 2, 3]
    assert context.evaluations[-1][1]["score"] == pytest.approx(0.5)
    assert not context.descriptions["best"]["holds_code"]


@pytest.mark.parametrize("recipe", ["own_trainer", "own_classifier"])
def test_each_recipe_beats_the_constant_on_the_family_s_own_data(recipe, tmp_path):
    run = RECIPES[recipe]()
    config, inventory = take_inventory(run.trainer, tmp_path)
    context = LocalFoldContext(tmp_path / "run")
    context.root.mkdir()
    write_inputs(config, inventory, context.inputs)
    ids = inventory.ids
    train_fold(config, Split(0, ids[:200], ids[200:], ids[:0], 2), context)
    own, metric = context.predictions["best", "validation"], run.ensemble.metric
    if recipe == "own_trainer":
        error, constant = np.sqrt(np.mean((own.prediction - own.target) ** 2)), np.std(own.target)
    else:
        error = -np.log(own.probability_NC[np.arange(len(own.target)), own.target]).mean()
        constant = -(shares := np.bincount(own.target) / len(own.target)) @ np.log(shares)
    assert error < 0.8 * constant, metric


def test_a_column_that_the_test_table_lacks_is_no_feature(data, tmp_path):
    pd.read_parquet(data / "test.parquet").drop(columns="height").to_parquet(data / "test.parquet")

    def train(fold):
        assert "height" in fold.train
        assert fold.features == ["width", "kind", "day"]
        return fold.validation["price"], np.arange(4)

    learn(train, data, tmp_path)


def test_a_model_that_is_kept_predicts_what_was_not_returned_and_new_rows(data, tmp_path):
    def train(fold):
        return LinearRegression().fit(fold.train[NAMES], fold.train["price"])

    config, context = learn(train, data, tmp_path, blend=3)
    assert len(context.predictions["best", "blend"].ids) == 3
    expected = context.predictions["best", "test"]
    found = predict_new(config, context, data)
    assert found.ids.tolist() == expected.ids.tolist() == ["lot20", "lot21", "lot22", "lot23"]
    np.testing.assert_array_equal(found.prediction[0], expected.prediction)
    rows = pd.read_parquet(data / "test.parquet")
    np.testing.assert_allclose(found.prediction[0], 2 * rows["width"] - rows["height"])


def test_without_a_kept_model_it_is_said_how_new_rows_could_be_predicted(data, tmp_path):
    config, context = learn(lambda fold: (fold.validation["price"], np.zeros(4)), data, tmp_path)
    with pytest.raises(DataError, match=r"kept no model.*fold\.keep_model"):
        predict_new(config, context, data)


def test_a_kept_model_that_says_something_else_than_the_function_is_refused(data, tmp_path):
    def train(fold):
        model = LinearRegression().fit(fold.train[NAMES], fold.train["price"])
        return model.predict(fold.validation[NAMES]) * 100, np.zeros(4), model

    with pytest.raises(ValueError, match=r"8 of 8 validation rows differ.*Keep the whole way"):
        learn(train, data, tmp_path)


def test_a_kept_model_that_uses_the_fold_itself_is_refused_with_what_to_do(data, tmp_path):
    def train(fold):
        fold.keep_model(lambda rows: rows["width"] - fold.train["width"].mean())

    with pytest.raises(ValueError, match=r"the model that is kept cannot be saved: .* it uses the fold itself.*before"):
        learn(train, data, tmp_path)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda fold: fold.validation["price"][:5], "5 validation predictions for 8 rows"),
        (lambda fold: np.zeros((8, 3)), r"shape \(8, 3\): expected \(8,\)"),
        (
            lambda fold: (np.full(8, np.nan), np.zeros(4)),
            "8 of 8 validation predictions are NaN or infinite, the first in row 0",
        ),
        (lambda fold: (np.zeros(8), np.zeros(3)), "3 test predictions for 4 rows"),
        (lambda fold: np.zeros(8), r"there are 4 test rows, and the function returned no predictions of them"),
        (lambda fold: {"valid": np.zeros(8)}, "a dict with 'valid'"),
        (lambda fold: (1, 2, 3, 4), "returned 4 items"),
        (lambda fold: ["a"] * 8, "a list of no numbers"),
        (lambda fold: None, "there are 8 validation rows"),
        (
            lambda fold: {"validation": np.zeros(8), "test": np.zeros(4), "blend": np.zeros(2)},
            "there are no blend rows",
        ),
    ],
)
def test_what_is_no_prediction_of_the_rows_is_refused_with_its_numbers(data, tmp_path, returned, message):
    with pytest.raises(ReturnedError, match=message):
        learn(returned, data, tmp_path)


def test_an_error_of_the_function_says_where_it_came_up(data, tmp_path):
    def train(fold):
        return fold.train["prize"]

    with pytest.raises(KeyError) as caught:
        learn(train, data, tmp_path)
    assert "test_own_trainer.py, line" in caught.value.__notes__[0]


@dataclasses.dataclass
class Depth:
    """Own options of a function."""

    depth: int = 3
    names: tuple[str, ...] = ("width",)


def with_options(fold, my: Depth):
    return np.full(len(fold.validation), my.depth + len(fold.config.names)), np.zeros(4)


def test_options_of_the_function_are_its_dataclass(data, tmp_path):
    _, context = learn(with_options, data, tmp_path, my={"depth": 5, "names": ["width", "height"]})
    assert context.predictions["best", "validation"].prediction.tolist() == [7.0] * 8
    assert context.descriptions["best"]["config"]["my"] == {"depth": 5, "names": ("width", "height")}


@pytest.mark.parametrize(
    ("function", "my", "message"),
    [
        (with_options, {"dept": 5}, r"my\.dept: Depth has no such option; nearest: depth; it has depth"),
        (with_options, {"depth": object()}, r"my\.depth is a object: options stand in the run's config"),
        (lambda fold: 0, {"1a": 2}, "'1a' is no name"),
    ],
)
def test_options_that_cannot_stand_in_a_config_are_refused(function, my, message):
    with pytest.raises(ValueError, match=message):
        make_source(function, "a test's").build_options(my)


def without_default(fold, my: Depth, more):
    """Takes too many arguments."""


def annotated_otherwise(fold, my: int):
    """Its options are no dataclass."""


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        (without_default, r"without_default\(.*\): expected a function of a fold"),
        (annotated_otherwise, "annotated with .*int.*: expected a dataclass"),
        (LinearRegression, r"is a class: give an estimator of it, LinearRegression\(\)"),
        (3, "is a int: expected a function"),
    ],
)
def test_what_is_no_trainer_is_refused(trainer, message):
    with pytest.raises(DataError, match=message):
        make_source(trainer, "it")


def test_an_estimator_is_copied_fitted_and_kept(data, tmp_path):
    estimator = LinearRegression()
    config, context = learn(estimator, data, tmp_path, my={"estimator": "LinearRegression()", "features": NAMES})
    assert not hasattr(estimator, "coef_")
    np.testing.assert_array_equal(
        predict_new(config, context, data).prediction[0], context.predictions["best", "test"].prediction
    )


def test_an_estimator_that_cannot_take_a_column_says_which_and_what_to_do(data, tmp_path):
    with pytest.raises(
        DataError, match=r"LinearRegression does not .* no numbers: kind\. Name the column of ids .*features=`"
    ):
        learn(LinearRegression(), data, tmp_path, my={"estimator": "LinearRegression()", "features": ["width", "kind"]})


def test_a_classifier_s_probabilities_are_those_of_the_classes_in_order(data, tmp_path):
    sections = {
        "data": DataConfig(root=str(data), id_column="key", target="kind"),
        "model": ModelConfig(task="classification"),
    }
    my = {"estimator": "LogisticRegression()", "features": NAMES}
    config, context = learn(LogisticRegression(), data, tmp_path, my=my, **sections)
    validation = context.predictions["best", "validation"]
    assert isinstance(validation, ClassPredictions)
    assert validation.classes == ("cheap", "dear")
    likeliest = np.array(validation.classes)[validation.probability_NC.argmax(axis=1)]
    rows = pd.read_parquet(data / "train.parquet").iloc[12:]
    assert (likeliest == rows["kind"]).mean() > 0.8
    assert (np.array(validation.classes)[validation.target] == rows["kind"]).all()
    np.testing.assert_array_equal(
        predict_new(config, context, data).prediction[0], context.predictions["best", "test"].probability_NC
    )


def test_probabilities_of_a_function_are_checked(data, tmp_path):
    sections = {"data": DataConfig(root=str(data), target="kind"), "model": ModelConfig(task="classification")}
    _, context = learn(lambda fold: (np.full(8, 0.25), np.full((4, 2), 0.5)), data, tmp_path, **sections)
    assert context.predictions["best", "validation"].probability_NC[0].tolist() == [0.75, 0.25]
    assert context.evaluations[-1][1]["score"] > 0
    with pytest.raises(
        ReturnedError, match=r"8 of 8 validation predictions are no probabilities, such as \[0.5, 0.9\]"
    ):
        learn(lambda fold: (np.tile([0.5, 0.9], (8, 1)), np.full(4, 0.5)), data, tmp_path / "more", **sections)


@pytest.mark.parametrize(
    ("change", "fields", "message"),
    [
        (
            lambda frame: frame.drop(columns="price"),
            {},
            "no column 'price' .data.target.; the table has 'width', 'height'",
        ),
        (lambda frame: frame.assign(price="a lot"), {}, "of type str, and this recipe predicts numbers"),
        (
            lambda frame: frame.assign(price=[None, *frame["price"][1:]]),
            {},
            r"missing or infinite in 1 of 20 rows: row 1 \(id 'lot0'\)",
        ),
        (lambda frame: frame.assign(key="lot"), {}, "row 2 has the id 'lot' of row 1"),
        (lambda frame: frame.assign(key="=1+1"), {}, "would be run as a formula"),
        (lambda frame: frame[:0], {}, "a header and no rows"),
        (lambda frame: frame, {"time_column": "kind"}, "neither a number nor a date .* in 20 of 20 rows"),
        (lambda frame: frame, {"fold_column": "width"}, "no whole number from -2"),
    ],
)
def test_data_that_cannot_be_used_is_refused(data, tmp_path, change, fields, message):
    change(pd.read_parquet(data / "train.parquet")).to_parquet(data / "train.parquet")
    config = Config(data=DataConfig(root=str(data), id_column="key", **fields))
    with pytest.raises(DataError, match=message):
        take_inventory(config, tmp_path)


def test_rows_that_are_numbered_do_not_leak_by_their_numbers(data, tmp_path):
    for id_column, num_leaks in ((None, 0), ("key", 1)):
        rows = pd.read_parquet(data / "test.parquet").assign(key=["lot0", "a", "b", "c"])
        rows.to_parquet(data / "test.parquet")
        _, inventory = take_inventory(Config(data=DataConfig(root=str(data), id_column=id_column)), tmp_path)
        plan = FoldPlan(inventory.ids, np.arange(20) % 2, 2, ordered=False)
        assert len(find_leaks(plan, inventory)) == num_leaks


def test_rows_without_a_target_can_be_dropped(data, tmp_path):
    frame = pd.read_parquet(data / "train.parquet")
    frame.loc[[2, 5], "price"] = np.nan
    frame.to_csv(data / "train.csv", index=False)
    (data / "train.parquet").unlink()
    config = Config(data=DataConfig(root=str(data), id_column="key", on_bad_row="drop", time_column="day"))
    _, inventory = take_inventory(config, tmp_path)
    assert len(inventory.ids) == len(inventory.target) == len(inventory.time) == 18
    assert [row["id"] for row in inventory.bad_rows] == ["lot2", "lot5"]
    assert (np.diff(inventory.time) > 0).all()
