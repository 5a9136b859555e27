"""Combining class probabilities: each method by hand, fitted weights, honest scores on noise, and prediction files."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import gmean

from ensemble.classes.columns import ClassColumns
from ensemble.classes.combine import combine_classes, combine_folds, measure_disagreement
from ensemble.classes.files import build_class_table, read_class_table, read_classes, stack_models
from ensemble.classes.fitting import FittedClasses, fit_classes, fit_simplex
from ensemble.classes.kind import KIND
from ensemble.classes.metrics import measure_error
from ensemble.classes.new_rows import ClassCombiner
from ensemble.combination import Combination
from ensemble.config import EnsembleConfig
from ensemble.kinds import FoldTargets
from ensemble.predictions import PredictionError
from trainers.predictions import BlockPredictions

FITTED = ("weighted_mean", "simplex", "greedy")
OF = {"fold": 0, "checkpoint": "best"}


def soften(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def make_columns(skills, num_rows=600, num_classes=4, seed=0):
    """Models that know so much of the class, each with noise of its own."""
    rng = np.random.default_rng(seed)
    target_N = rng.integers(0, num_classes, num_rows)
    shape = (len(skills), num_rows, num_classes)
    oof_MNC = soften(np.array(skills)[:, None, None] * np.eye(num_classes)[target_N] + rng.normal(0, 1, shape))
    names, ids_N = tuple("abcdefgh"[: len(skills)]), np.array([f"r{n}" for n in range(num_rows)])
    classes = tuple(f"class {n}" for n in range(num_classes))
    return ClassColumns(names, ids_N, np.arange(num_rows) % 3, target_N, oof_MNC, classes=classes)


def test_each_method_is_what_its_name_says():
    models_MNC = make_columns((1, 2, 0)).oof_MN
    np.testing.assert_allclose(combine_classes(models_MNC, "mean"), models_MNC.mean(axis=0))
    for method, of_numpy in (("geometric_mean", gmean), ("median", np.median)):
        expected = of_numpy(models_MNC, axis=0)
        np.testing.assert_allclose(combine_classes(models_MNC, method), expected / expected.sum(1, keepdims=True))
    weighted = combine_classes(models_MNC, "weighted_mean", np.array([0.5, 0.25, 0.25]))
    np.testing.assert_allclose(weighted, np.average(models_MNC, axis=0, weights=[2, 1, 1]))
    folds = combine_folds(models_MNC[[0, 1, 2, 0]], (3, 1), "median")
    np.testing.assert_allclose(folds, [combine_classes(models_MNC, "median"), models_MNC[0]])
    spread_N = measure_disagreement(models_MNC, weighted)
    assert spread_N[5] == pytest.approx(models_MNC[:, 5, weighted[5].argmax()].std())


def test_models_that_exclude_each_other_still_give_probabilities():
    sure_MNC = np.eye(3)[:, None]
    for method in ("mean", "geometric_mean", "median"):
        np.testing.assert_allclose(combine_classes(sure_MNC, method), np.full((1, 3), 1 / 3))
    with pytest.raises(ValueError, match="needs 3 weights, found none"):
        combine_classes(sure_MNC, "weighted_mean")
    with pytest.raises(ValueError, match="expected one of mean, geometric_mean"):
        combine_classes(sure_MNC, "majority_vote")
    with pytest.raises(ValueError, match="NaN or infinite"):
        combine_classes(sure_MNC * np.nan, "mean")


def test_the_simplex_has_the_least_log_loss_of_all_weights():
    columns = make_columns((2, 1, 0))
    best_M = fit_simplex(columns.oof_MN, columns.target_N)
    assert best_M.sum() == pytest.approx(1)

    def measure(weights_M):
        return measure_error("log_loss", columns.target_N, np.tensordot(weights_M, columns.oof_MN, 1))

    grid = [np.array([a, b, 20 - a - b]) / 20 for a in range(21) for b in range(21 - a)]
    assert measure(best_M) <= min(map(measure, grid)) + 1e-9
    assert best_M.argmax() == 0


@pytest.mark.parametrize("method", FITTED)
@pytest.mark.parametrize("metric", ["log_loss", "accuracy"])
def test_a_row_does_not_touch_the_weights_it_is_predicted_by(method, metric):
    columns, how = make_columns((2, 1, 0)), Combination(method, None, metric)
    held = columns.fold_N == 1
    (honest_NC,) = columns.predict_cross_fitted([how])
    other = replace(columns, target_N=np.where(held, (columns.target_N + 1) % 4, columns.target_N))
    np.testing.assert_array_equal(other.predict_cross_fitted([how])[0][held], honest_NC[held])
    fitted = fit_classes(how, columns.keep(~held))
    np.testing.assert_array_equal(fitted.predict(columns.oof_MN[:, held]), honest_NC[held])


@pytest.mark.parametrize("method", FITTED)
def test_on_noise_an_honest_score_is_no_better_than_the_mean_s(method):
    """Fitted to the rows themselves the weights look better than they are."""
    how, mean, gains, honest = Combination(method, None, "log_loss"), Combination("mean", None, "log_loss"), [], []
    for seed in range(4):
        columns = make_columns((0,) * 6, num_rows=120, seed=seed)
        plain_NC, honest_NC = columns.predict_cross_fitted([mean, how])
        plain = measure_error("log_loss", columns.target_N, plain_NC)
        own_NC = fit_classes(how, columns).predict(columns.oof_MN)
        gains.append(plain - measure_error("log_loss", columns.target_N, own_NC))
        honest.append(plain - measure_error("log_loss", columns.target_N, honest_NC))
    assert np.mean(gains) > 0
    assert np.mean(honest) <= 0.001


def test_fitted_weights_beat_the_mean_where_models_differ_in_skill():
    columns = make_columns((3, 0, 0, 0), num_rows=2000)
    mean_NC, *fitted = columns.predict_cross_fitted(
        [Combination(m, None, "log_loss") for m in ("mean", "simplex", "greedy")]
    )
    for one_NC in fitted:
        losses = [measure_error("log_loss", columns.target_N, values) for values in (one_NC, mean_NC)]
        assert losses[0] < 0.8 * losses[1]


class Known:
    """Predicts rows whose probabilities are known already, as a model gives them."""

    def __init__(self, probability_MNC):
        self.probability_MNC = probability_MNC

    def predict(self, block):
        rows = block["row"].to_numpy()
        return BlockPredictions(rows.astype(str), self.probability_MNC[:, rows], ())


@pytest.mark.parametrize("method", ["mean", "median", "geometric_mean", "weighted_mean"])
def test_new_rows_in_blocks_have_the_bits_of_a_submission(method):
    rng = np.random.default_rng(3)
    raw_MNC = soften(rng.normal(0, 3, (5, 200, 7)).astype(np.float32)).astype(np.float64)  # adds up to 1 ± 1e-7
    ids_N, unknown_N, classes = np.arange(200).astype(str), np.full(200, -1), tuple("abcdefg")
    files = [build_class_table(ids_N, one_NC, unknown_N, classes, **OF) for one_NC in raw_MNC]
    weights_M = rng.dirichlet(np.ones(5)) if method == "weighted_mean" else None
    fitted = FittedClasses(Combination(method, None, "log_loss"), weights_M)
    submitted_NC = fitted.predict(stack_models(files)[2])
    combiner = ClassCombiner(EnsembleConfig(method), fitted, tuple("01234"), ("main",), 5, classes)
    blocks = [pa.table({"row": np.arange(200)[part]}) for part in (slice(1), slice(1, 8), slice(8, 200))]
    found = pa.concat_tables([combiner.predict(Known(raw_MNC), block, shows_models=False) for block in blocks])
    np.testing.assert_array_equal(np.stack([found[str(2 + n)] for n in range(7)], axis=1), submitted_NC)


def test_a_prediction_file_says_its_classes_and_refuses_what_is_no_probability(tmp_path):
    ids, probability = np.array(["a", "b"]), np.array([[0.2, 0.8], [0.6, 0.4]])
    table = build_class_table(ids, probability.astype(np.float32), np.array([1, -1]), ("no", "yes"), **OF)
    pq.write_table(table, tmp_path / "file.parquet")
    again = read_class_table(tmp_path / "file.parquet")
    assert read_classes(again) == ("no", "yes")
    assert (again["target"].to_pylist(), again["prediction"].to_pylist()) == (["yes", None], ["yes", "no"])
    np.testing.assert_allclose(np.stack(again["probability"].to_pylist()).sum(axis=1), 1, rtol=1e-15)
    for wrong, told in (
        (probability + 0.2, r"id 'a': \[0.4, 1\] add up to 1.4; expected finite numbers from 0 .* softmax"),
        (np.array([[0.5, 0.5], [np.nan, 1]]), "1 of 2 rows have no probabilities, such as id 'b'"),
        (probability[:, :1], r"expected \(2, 2\) for the 2 classes"),
    ):
        with pytest.raises(PredictionError, match=told):
            build_class_table(ids, wrong, np.array([1, 0]), ("no", "yes"), **OF)
    with pytest.raises(PredictionError, match=r"class numbers from 0 to 2: expected -1 \(unknown\) to 1"):
        build_class_table(ids, probability, np.array([0, 2]), ("no", "yes"), **OF)
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(PredictionError, match="without target_class, probability: these are no class probabilities"):
        read_class_table(tmp_path / "other.parquet")


def test_models_are_matched_by_id_and_must_know_the_same_classes():
    ids, probability, target = np.array(["a", "b"]), np.array([[0.2, 0.8], [0.6, 0.4]]), np.array([1, 0])
    first = build_class_table(ids, probability, target, ("no", "yes"), **OF)
    turned = build_class_table(ids[::-1], probability[::-1], target[::-1], ("no", "yes"), **OF)
    found, known, stacked = stack_models([first, turned])
    assert (found.tolist(), known.tolist()) == (["a", "b"], [1, 0])
    np.testing.assert_array_equal(stacked[0], stacked[1])
    with pytest.raises(PredictionError, match="model 1 predicts 1 rows and model 0 2, 1 of them not shared"):
        stack_models([first, turned.slice(0, 1)])
    with pytest.raises(PredictionError, match="model 1 predicts other classes than model 0"):
        stack_models([first, build_class_table(ids, probability, target, ("maybe", "yes"), **OF)])


def divide(*parts):
    return [FoldTargets(np.array(trained), np.array(validated)) for trained, validated in parts]


def test_the_division_of_the_classes_is_told_before_anything_is_trained():
    target_N, names = np.array([0, 0, 0, 1, 1, 1, 2]), ("cat", "dog", "emu")
    fine = divide(([0, 0, 1, 1, 2], [0, 1]), ([0, 1, 0, 1, 2], [0, 1]))
    (rare,) = KIND.note_targets("label", target_N, fine, names)
    assert rare.startswith("target label: 1 class has fewer rows than there are folds (2): 'emu' (1).")
    unseen = divide(([0, 0, 1, 1], [2, 2, 0]), ([0, 1, 2], [1, 1]))
    _, absent, alone = KIND.note_targets("label", target_N, unseen, names)
    assert "fold 0 trains on no row of class 'emu' (2 to validate): its model cannot know it" in absent
    assert "fold 1 validates rows of class 'dog' alone" in alone
    with pytest.raises(ValueError, match=r"all rows that train fold 1 are of class 'dog' .* folds.kind=stratified"):
        KIND.note_targets("label", target_N, divide(([0, 1], [2]), ([1, 1], [0])), names)


def test_the_constant_is_the_share_of_each_class_among_the_training_rows():
    assert KIND.predict_constant(np.array([0, 1, 1, 0, 1]), np.array([0, 1, 2, 3])) == [0.4, 0.6, 0, 0]
    scores = KIND.score_constant(np.array([1, 0]), np.array([[0.4, 0.6]] * 2), "log_loss")
    assert scores["log_loss"] == pytest.approx(-np.log([0.6, 0.4]).mean())
    assert scores["accuracy"] == 0.5


def test_weights_of_fold_models_come_from_their_own_scores():
    from ensemble.classes.submission import fit_run
    from ensemble.run import Run

    ensemble = EnsembleConfig(metric="accuracy", method="weighted_mean")
    run = Run(ensemble, {"main": []}, 2, ("main",), pa.table({"fold": [0, 1]}), "label")
    scores = {"main": {"folds": [{"best": {"accuracy": 0.8}}, {"best": {"accuracy": 0.9}}]}}
    fitted = fit_run(run, KIND.read_combination(ensemble), None, lambda: scores)
    np.testing.assert_allclose(fitted.weights_M, [1 / 3, 2 / 3])
