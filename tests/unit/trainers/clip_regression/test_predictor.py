"""Predicting new rows from checkpoints alone: with the bits that the fold itself gave its test rows."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import open_clip
import pandas as pd
import pytest
from safetensors.torch import save_file
from support.broken_pictures import break_on_decoding
from support.small_training import TINY, train_small

from trainers.clip_regression.config import Config, DataConfig
from trainers.clip_regression.network.encoders import build_clip
from trainers.clip_regression.network.model import ClipRegressor
from trainers.clip_regression.new_rows import find_new_rows
from trainers.clip_regression.predict import Predictor
from trainers.interface import TrainedModel
from trainers.learning.config_sections import read_sections


def take_model(context, checkpoint="best", checksum="local"):
    """What a place saved, as it comes back from files."""
    description = json.loads(json.dumps(context.descriptions[checkpoint]))
    if description["shared_tensors"]:
        description["shared_tensors"]["sha256"] = checksum
    return TrainedModel(description, context.load_checkpoint(checkpoint), context.shared.get("frozen_encoders", {}))


def predict(models, where, num_rows=64):
    """Ids, predictions of each model and problems of all rows of a table."""
    rows = find_new_rows([read_sections(Config, model.description["config"]) for model in models], where)
    predictor = Predictor(models, rows, "cpu", 1)
    blocks = [predictor.predict(block) for block in rows.read(num_rows)]
    ids, predictions = (np.concatenate([getattr(b, name) for b in blocks], axis=-1) for name in ("ids", "prediction"))
    return ids, predictions, [problem for block in blocks for problem in block.problems]


def make_test_frame(small_frame, num_rows):
    """Rows without a target, some newer than all that is trained on."""
    frame = pd.concat([small_frame.drop(columns="views")] * (num_rows // 24 + 1), ignore_index=True).head(num_rows)
    dates = [f"{2015 + number % 12}-07-0{1 + number % 9}" for number in range(num_rows)]
    return frame.assign(id=[f"t{number:03d}" for number in range(num_rows)], date=dates)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_checkpoint_alone_gives_the_bits_of_the_folds_own_test_predictions(small_frame, write_data, tmp_path, suffix):
    root = write_data(small_frame, make_test_frame(small_frame, 21))
    context = train_small(tmp_path, root, ema=0.9, eval_batch_size=8)
    if suffix == "parquet":
        pd.read_csv(root / "test.csv").to_parquet(root / "test.parquet")
    for checkpoint in ("best", "final"):
        wanted = context.predictions[checkpoint, "test"]
        for num_rows in (16, 64):
            ids, predictions, problems = predict([take_model(context, checkpoint)], root / f"test.{suffix}", num_rows)
            assert ids.tolist() == wanted.ids.tolist()
            assert predictions[0].tolist() == wanted.prediction.tolist()
            assert problems == []


def test_other_rows_of_a_table_change_nothing(small_frame, write_data, tmp_path):
    """Ages are counted from the training rows' newest date, whatever dates the new rows have."""
    frame = make_test_frame(small_frame, 20)
    context = train_small(tmp_path, write_data(small_frame, frame))
    frame.head(3).to_csv(tmp_path / "data" / "few.csv", index=False)
    _, few, _ = predict([take_model(context)], tmp_path / "data" / "few.csv")
    np.testing.assert_allclose(few[0], context.predictions["best", "test"].prediction[:3], rtol=1e-5)


MISSING = [
    {"train_pictures": ""},
    {"text_columns": ()},
    {"date_column": None},
    {"train_pictures": "", "text_columns": ()},
]


@pytest.mark.parametrize("fields", MISSING)
def test_any_modality_may_be_missing(small_frame, write_data, tmp_path, fields):
    data = DataConfig(root=str(write_data(small_frame, make_test_frame(small_frame, 5))), **fields)
    context = train_small(tmp_path, data.root, data=data)
    _, predictions, _ = predict([take_model(context)], tmp_path / "data")
    assert predictions[0].tolist() == context.predictions["best", "test"].prediction.tolist()


def test_frozen_encoders_are_built_and_run_once_for_all_models(small_frame, write_data, tmp_path, monkeypatch):
    state = {k: v.contiguous() for k, v in build_clip(open_clip.get_model_config("tiny-clip")).state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    model = replace(TINY.model, pretrained=str(tmp_path / "weights.safetensors"), freeze=True)
    root = write_data(small_frame, make_test_frame(small_frame, 5))
    places = [train_small(tmp_path, root, f"seed{seed}", model=model, seed=seed) for seed in (0, 1)]
    runs, encode = [], ClipRegressor.encode
    monkeypatch.setattr(ClipRegressor, "encode", lambda *inputs: runs.append(1) or encode(*inputs))
    _, predictions, _ = predict([take_model(context) for context in places], root)
    assert len(runs) == 1
    for number, context in enumerate(places):
        assert predictions[number].tolist() == context.predictions["best", "test"].prediction.tolist()
    predict([take_model(context, checksum=str(number)) for number, context in enumerate(places)], root)
    assert len(runs) == 3


def test_models_that_read_other_columns_predict_the_same_rows(small_frame, write_data, tmp_path):
    root = write_data(small_frame, make_test_frame(small_frame, 5))
    title = DataConfig(root=str(root), train_pictures="", text_columns=("title",), numeric_columns=("url_count",))
    places = [train_small(tmp_path, root, "all"), train_small(tmp_path, root, "title", data=title)]
    _, predictions, _ = predict([take_model(context) for context in places], root)
    for number, context in enumerate(places):
        assert predictions[number].tolist() == context.predictions["best", "test"].prediction.tolist()


def test_what_cannot_be_used_of_a_row_is_replaced_and_listed(small_frame, write_data, tmp_path):
    frame = make_test_frame(small_frame, 12)
    root = write_data(small_frame, frame)
    model = take_model(train_small(tmp_path, root))
    _, before, _ = predict([model], root)
    (root / "test" / "t001.jpg").unlink()
    break_on_decoding(root / "test", "t002")
    (root / "test" / "t003.jpg").write_text("no picture")
    frame.loc[4, "date"] = "yesterday"
    frame.to_csv(root / "test.csv", index=False)
    _, after, problems = predict([model, model], root)
    assert sorted(row_id for row_id, _ in problems) == ["t001", "t002", "t003", "t004"]
    assert "no test/t001.jpg" in dict(problems)["t001"]
    assert "cannot be decoded" in dict(problems)["t002"]
    assert "is not an ISO date" in dict(problems)["t004"]
    assert np.isfinite(after).all()
    changed = np.flatnonzero(~np.isclose(before[0], after[0], rtol=1e-5))
    assert changed.tolist() == [1, 2, 3, 4]
