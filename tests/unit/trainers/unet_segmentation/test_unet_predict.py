"""New pictures through the models of a finished fold: found with their masks, large ones in squares, and written with
scores."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from support.small_unet import SMALL, train_small

from ensemble.config import EnsembleConfig
from ensemble.kinds import load_kind
from ensemble.maps.combine import choose_classes
from ensemble.maps.new_rows import MapCombiner
from ray_jobs.errors import RunError
from ray_jobs.prediction.output import SUMMARY, appearing_output, refuse_foreign, write_row_files
from trainers.interface import DataError, TrainedModel
from trainers.unet_segmentation.config import Config, DataConfig
from trainers.unet_segmentation.new_rows import find_new_rows
from trainers.unet_segmentation.predict import Predictor

ROW_FILES = load_kind("map").row_files


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the made-up data, and what was saved of a fold trained on it at its own scale."""
    tmp_path = tmp_path_factory.mktemp("predict")
    context = train_small(tmp_path, config=replace(SMALL, data=replace(SMALL.data, size=64)))
    model = TrainedModel(context.descriptions["final"], context.load_checkpoint("final"), {})
    return tmp_path / "made_data", context, model


def predict(model, rows, num=100):
    predictor = Predictor([model, model], rows, "cpu", 1)
    torch.set_num_threads(1)
    return [one for block in rows.read(num) for one in predictor.predict(block)]


def test_a_folder_is_found_with_its_masks_and_predicted_with_the_bits_of_the_runs_own_test_pictures(trained):
    root, context, model = trained
    rows = find_new_rows([SMALL], root / "test_images")
    assert (rows.check(), rows.masks) == (12, root / "test_masks")
    found = predict(model, rows, 5)
    for one, before in zip(found, context.predictions["final", "test"], strict=True):
        assert one.row_id == before.row_id
        assert (one.probability_MCHW == before.probability_CHW[None]).all()
        assert (one.target_HW == before.target_HW).all()
        assert one.background_HW3.shape == (64, 64, 3)
    assert find_new_rows([SMALL], root).path == root / "test_images"
    single = find_new_rows([SMALL], root / "images" / "p00_1.png")
    assert single.check() == 1
    assert next(single.read(9))["mask"].to_pylist() == [str(root / "masks" / "p00_1.png")]


def test_a_picture_larger_than_the_squares_is_predicted_as_a_whole(trained, tmp_path):
    root, _, model = trained
    parts = [np.asarray(Image.open(root / "images" / f"p00_{n}.png")) for n in range(4)]
    Image.fromarray(np.block([parts[:2], parts[2:]])).save(tmp_path / "large.png")
    rows = find_new_rows([SMALL], tmp_path / "large.png")
    assert rows.check() == 1
    (one,) = predict(model, rows)
    assert one.probability_MCHW.shape == (2, 1, 128, 128)
    assert one.target_HW is None
    assert one.probability_MCHW.std() > 0


def test_a_mask_that_does_not_fit_is_told_and_the_picture_predicted(trained, tmp_path):
    root, _, model = trained
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "masks" / "p00_0.png")
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(tmp_path / "masks" / "p00_1.png")
    rows = find_new_rows([SMALL], root / "images", tmp_path / "masks")
    first, second, third = predict(model, rows)[:3]
    assert first.problem == "its mask p00_0.png is 9 x 9, the picture 64 x 64"
    assert second.problem == "its mask p00_1.png has the values 7: expected 0 and 255"
    assert (third.problem, third.target_HW) == ("", None)


def test_pictures_that_cannot_be_used_are_all_named_before_anything_is_launched(tmp_path):
    (tmp_path / "new").mkdir()
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "new" / "a.png")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "new" / "a.jpg")
    (tmp_path / "new" / "b.png").write_bytes(b"no picture")
    (tmp_path / "truth").mkdir()
    for name in ("b.png", "b.jpg", "other.png", "other.jpg"):
        (tmp_path / "truth" / name).touch()
    with pytest.raises(DataError, match=r"(?s)a: a\.jpg, a\.png in .*/ have one name.*b\.png cannot be decoded"):
        find_new_rows([Config()], tmp_path / "new").check()
    with pytest.raises(DataError, match=r"b: b\.jpg, b\.png in truth/ have one name") as error:
        find_new_rows([Config()], tmp_path / "new", tmp_path / "truth").check()
    assert "other" not in str(error.value)
    for place, message in ((tmp_path, "holds no picture"), (tmp_path / "none.png", "no such file")):
        with pytest.raises(DataError, match=message):
            find_new_rows([Config(data=DataConfig())], place)
    with pytest.raises(DataError, match="no such folder"):
        find_new_rows([Config()], tmp_path / "new", tmp_path / "none")


def test_of_each_row_pictures_and_a_line_are_written(trained, tmp_path):
    root, _, model = trained
    ensemble = MapCombiner(EnsembleConfig(metric="dice", threshold=0.3), None, ("fold_0", "fold_1"))
    found = predict(model, find_new_rows([SMALL], root / "test_images"))[:3]
    table = ensemble.predict(SimpleNamespace(predict=iter), found, shows_models=True)
    write_row_files(table, tmp_path / "out", ROW_FILES)
    names = ensemble.list_columns("foreground", shows_models=True)
    assert names == ("foreground", "disagreement", "dice", "iou", "mask", "model_fold_0", "model_fold_1")
    assert table.column_names == [*map(str, range(1 + len(names))), "problem", *ROW_FILES]
    for row, one in zip(table.to_pylist(), found, strict=True):
        said = choose_classes(one.probability_MCHW[0], 0.3)
        assert (np.asarray(Image.open(tmp_path / "out" / row["5"])) == 255 * said).all()
        overlap = (said & one.target_HW).sum()
        assert row["3"] == pytest.approx(2 * overlap / (said.sum() + one.target_HW.sum()))
        assert row["6"] == row["7"] == row["1"] == said.mean()
        for folder in ("overlays", "disagreement"):
            assert (tmp_path / "out" / folder / f"{one.row_id}.png").is_file()
    assert isinstance(table, pa.Table)


def test_an_output_holds_one_prediction_whole_and_nothing_of_the_users(tmp_path):
    output = tmp_path / "out"
    for number in (1, 2):
        refuse_foreign(output, (tmp_path,), ROW_FILES)
        with appearing_output(output, ROW_FILES) as staged:
            (staged / "masks").mkdir()
            (staged / "masks" / f"{number}.png").touch()
            (staged / SUMMARY).touch()
    with suppress(KeyError), appearing_output(output, ROW_FILES) as staged:
        (staged / "masks").mkdir()
        raise KeyError
    assert sorted(path.relative_to(output).as_posix() for path in output.rglob("*")) == [
        "masks", "masks/2.png", SUMMARY,
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == [output]
    with pytest.raises(RunError, match=r"out holds .*/out/masks, which is to be predicted"):
        refuse_foreign(output, (tmp_path / "images", output / "masks"), ROW_FILES)
    (output / "images").mkdir()
    with pytest.raises(RunError, match=r"out holds images, which predict.py has not written"):
        refuse_foreign(output, (), ROW_FILES)
    (tmp_path / "new" / "masks").mkdir(parents=True)  # of the user: a prediction would have a summary, too
    with pytest.raises(RunError, match=r"new holds masks, which predict.py has not written"):
        refuse_foreign(tmp_path / "new", (), ROW_FILES)


def test_members_that_read_pictures_at_another_scale_predict_as_alone(trained):
    root, _, model = trained
    description = {**model.description, "config": {**model.description["config"]}}
    description["config"]["data"] = {**description["config"]["data"], "size": 32, "scaling": "fit"}
    other = TrainedModel(description, model.tensors, model.shared)
    rows = find_new_rows([SMALL], root / "images" / "p00_1.png")
    (block,) = rows.read(1)
    own, others, (both,) = (
        list(Predictor(models, rows, "cpu", 1).predict(block)) for models in ([model], [other], [model, other])
    )
    assert (both.probability_MCHW[0] == own[0].probability_MCHW[0]).all()
    assert (both.probability_MCHW[1] == others[0].probability_MCHW[0]).all()
    assert (both.probability_MCHW[0] != both.probability_MCHW[1]).any()
