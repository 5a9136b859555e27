"""Combining probability maps, scoring them, and the files and pictures of them."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.metrics import f1_score, jaccard_score

from ensemble.config import MAP_METHODS, EnsembleConfig
from ensemble.maps.combine import (
    IGNORED,
    choose_classes,
    combine_maps,
    count_places,
    measure_disagreement,
    score_counts,
)
from ensemble.maps.figures import draw_dice, draw_gallery
from ensemble.maps.files import build_map_table, decode_map, encode_map, read_maps, to_png
from ensemble.maps.overlays import OUTLINE, draw_overlay, find_edges, to_heat, to_mask_picture
from ensemble.maps.submission import choose_weights
from ensemble.predictions import PredictionError
from ensemble.run import Run


def test_methods_combine_place_by_place():
    values = np.array([0.1, 0.2, 0.9], np.float32).reshape(3, 1, 1, 1)
    expected = {"mean": 0.4, "median": 0.2, "majority_vote": (1 + 0.4) / 4}
    for method, value in expected.items():
        assert combine_maps(values, method).item() == pytest.approx(value)
    assert combine_maps(values, "weighted_mean", np.array([0.0, 0.25, 0.75])).item() == pytest.approx(0.725)


@pytest.mark.parametrize("threshold", [0.5, 0.3, 0.7])
@pytest.mark.parametrize("num_models", [1, 2, 3, 4, 5, 8])
def test_a_vote_is_won_by_the_majority_and_a_tie_by_the_mean(num_models, threshold):
    rng = np.random.default_rng(num_models)
    values = rng.random((num_models, 1, 40, 40)).astype(np.float32)
    votes, mean = (values[:, 0] >= threshold).sum(0), values[:, 0].mean(0, dtype=np.float64)
    expected = np.where(2 * votes == num_models, mean >= threshold, 2 * votes > num_models)
    combined = combine_maps(values, "majority_vote", threshold=threshold)
    assert (choose_classes(combined, threshold) == expected).all()


@pytest.mark.parametrize("method", MAP_METHODS)
def test_probabilities_of_several_classes_add_up_to_one_whatever_the_method(method):
    values = np.random.default_rng(0).dirichlet(np.ones(4), (3, 5, 6)).transpose(0, 3, 1, 2).astype(np.float32)
    weights = np.array([0.5, 0.3, 0.2]) if method == "weighted_mean" else None
    np.testing.assert_allclose(combine_maps(values, method, weights).sum(0), 1, atol=1e-6)


def test_models_that_say_the_same_are_combined_to_what_they_say():
    one = np.random.default_rng(0).random((1, 1, 7, 7)).astype(np.float32)
    for method in ("mean", "median"):
        np.testing.assert_allclose(combine_maps(one.repeat(4, 0), method), one[0], rtol=1e-6)
    assert measure_disagreement(one.repeat(4, 0)).max() < 1e-7
    assert measure_disagreement(np.array([0.0, 1.0]).reshape(2, 1, 1, 1)).item() == 0.5


def test_weights_and_methods_that_do_not_fit_are_refused():
    values = np.zeros((2, 1, 1, 1), np.float32)
    with pytest.raises(ValueError, match="needs 2 weights"):
        combine_maps(values, "weighted_mean", np.ones(3))
    with pytest.raises(ValueError, match="expected one of"):
        combine_maps(values, "ridge")
    assert EnsembleConfig(method="majority_vote").method == "majority_vote"
    with pytest.raises(ValueError, match="majority_vote"):
        EnsembleConfig(method="vote")


@pytest.mark.parametrize("num_classes", [2, 4])
def test_dice_and_iou_are_scikit_learns_f1_and_jaccard(num_classes):
    rng = np.random.default_rng(0)
    said, true = rng.integers(0, num_classes, (2, 30, 30)).astype(np.uint8)
    scores = score_counts(count_places(said, true, num_classes))
    labels, average = list(range(1, num_classes)), "macro"
    assert scores["dice"] == pytest.approx(f1_score(true.ravel(), said.ravel(), labels=labels, average=average))
    assert scores["iou"] == pytest.approx(jaccard_score(true.ravel(), said.ravel(), labels=labels, average=average))
    true[:15] = IGNORED
    part = score_counts(count_places(said, true, num_classes))
    assert part["dice"] == score_counts(count_places(said[15:], true[15:], num_classes))["dice"]


def test_nothing_said_of_nothing_is_right_and_something_said_is_wrong():
    nothing, something = np.zeros((3, 3), np.uint8), np.eye(3, dtype=np.uint8)
    assert score_counts(count_places(nothing, nothing, 2)) == {"dice": 1.0, "iou": 1.0}
    assert score_counts(count_places(something, nothing, 2)) == {"dice": 0.0, "iou": 0.0}


def test_a_file_gives_back_each_map_within_a_256th_and_on_the_same_side_of_a_half(tmp_path):
    rng = np.random.default_rng(0)
    shapes, stored = [(1, 5, 9), (3, 4, 4)], []
    maps = [rng.random(shape).astype(np.float32) for shape in shapes]
    maps[0].flat[:4] = (0.5, np.nextafter(np.float32(0.5), np.float32(0)), 0.0, 1.0)
    targets = [rng.integers(0, 2, (5, 9)).astype(np.uint8), None]
    encoded = [encode_map(f"r{n}", *pair) for n, pair in enumerate(zip(maps, targets, strict=True))]
    pq.write_table(build_map_table(encoded, fold=2, checkpoint="best"), tmp_path / "maps.parquet")
    stored = list(read_maps(tmp_path / "maps.parquet"))
    for one, before in zip(stored, maps, strict=True):
        assert np.abs(one.probability_CHW - before).max() <= 1 / 256
        assert ((one.probability_CHW >= 0.5) == (before >= 0.5)).all()
    assert [(one.row_id, one.fold) for one in stored] == [("r0", 2), ("r1", 2)]
    assert (stored[0].target_HW == targets[0]).all()
    assert stored[1].target_HW is None
    assert decode_map(encoded[1].probability, 3).shape == (3, 4, 4)


def test_maps_of_many_classes_have_more_pixels_than_pillow_takes_for_a_picture(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 99)
    content = to_png(np.zeros((20 * 10, 10), np.uint8))
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(content))
    assert decode_map(content, 20).shape == (20, 10, 10)


def test_what_is_no_probability_and_no_file_of_maps_is_refused(tmp_path):
    for bad in (np.nan, 1.5, -0.1):
        with pytest.raises(PredictionError, match="'x'"):
            encode_map("x", np.full((1, 2, 2), bad, np.float32), None)
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "other.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    for name in ("other", "torn", "none"):
        with pytest.raises(PredictionError, match=name):
            list(read_maps(tmp_path / f"{name}.parquet"))


def test_an_overlay_colours_what_is_said_and_outlines_what_is_true():
    said, true = np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.uint8)
    said[:, :3], true[2:7, 4:9] = 1, 1
    overlay = draw_overlay(np.full((9, 9, 3), 100, np.uint8), said, true)
    assert np.abs(overlay[3, 1].astype(int) - [60, 123, 106]).max() <= 1
    assert (overlay[2, 5] == OUTLINE).all()
    assert (overlay[4, 6] == 100).all()  # inside of the true area
    assert find_edges(true).sum() == 13  # three sides: the fourth is the picture's
    true[2:7, 3] = true[1, 3:9] = true[7, 3:9] = IGNORED
    assert find_edges(true).sum() == 13  # what counts nowhere has no line of its own
    assert to_mask_picture(said, 2).max() == 255
    assert to_mask_picture(said, 3).max() == 1
    assert to_heat(np.array([[0.0, 0.5]])).tolist() == [[0, 255]]


def test_figures_of_maps_can_be_drawn():
    picture = np.asarray(Image.open(io.BytesIO(encode_map("x", np.zeros((1, 8, 8)), None).probability)))
    assert len(draw_gallery([picture] * 5, list("abcde")).axes) == 8
    assert draw_dice(np.array([0.2, 0.9, 1.0]), np.array([0.1, 0.3, 0.0])).axes


@pytest.mark.parametrize(("checkpoint", "metric"), [("best", "dice"), ("final", "dice"), ("best", "iou")])
def test_fold_models_are_weighed_by_the_metric_that_counts_and_the_checkpoint_that_predicts(checkpoint, metric):
    others = {"best": {"dice": 0.5, "iou": 0.5}, "final": {"dice": 0.5, "iou": 0.5}}
    folds = [others | {checkpoint: {**others[checkpoint], metric: value}} for value in (0.9, 0.7)]
    ensemble = EnsembleConfig(method="weighted_mean", metric=metric, checkpoint=checkpoint, weight_power=1.0)
    run = Run(ensemble, {"main": [None, None]}, 2, ("main",), pa.table({"id": ["a", "b"], "fold": [0, 1]}))
    weights_M = choose_weights(run, None, lambda: {"main": {"folds": folds}})
    np.testing.assert_allclose(weights_M, [0.75, 0.25])  # one over the errors 0.1 and 0.3
