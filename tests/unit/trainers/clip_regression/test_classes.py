"""Classes as a target: what cells and folders are called, what is refused, and a fold that learns them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from support.local_context import LocalFoldContext
from support.small_training import TINY, train_small

from trainers.clip_regression.config import Config, DataConfig, LossConfig
from trainers.clip_regression.inventory import take_inventory, write_inputs
from trainers.clip_regression.new_rows import find_new_rows
from trainers.clip_regression.predict import Predictor
from trainers.clip_regression.rows.synthetic_data import NUM_CLASS_TRAIN, make_class_data
from trainers.clip_regression.train import train_fold
from trainers.interface import DataError, Split, TrainedModel
from trainers.learning.config_sections import read_sections

WORDS = ["cat", "dog", "emu"] * 8
PICTURES_ALONE = {"text_columns": (), "date_column": None}


def take(root, loss=None, **data):
    data = {"target": "label", **data}
    config = Config(data=DataConfig(root=str(root), **data), model=TINY.model, loss=loss or LossConfig())
    return take_inventory(config, root)


def refusal(root, **data) -> str:
    with pytest.raises(DataError) as error:
        take(root, **data)
    return str(error.value)


@pytest.mark.parametrize(
    ("cells", "task", "classes", "first"),
    [
        (WORDS, "auto", ("cat", "dog", "emu"), [0, 1, 2]),
        (["yes", "3", "no"] * 8, "auto", ("3", "no", "yes"), [2, 0, 1]),
        (["10", "9", "2.0"] * 8, "classification", ("2", "9", "10"), [2, 1, 0]),
        ([True, False] * 12, "auto", ("false", "true"), [1, 0, 1]),
        (["TRUE", "False", "true"] * 8, "auto", ("false", "true"), [1, 0, 1]),
        (["0", "1", "0.0"] * 8, "classification", ("0", "1"), [0, 1, 0]),
        ([1.0, 0.0, 2.0] * 8, "classification", ("0", "1", "2"), [1, 0, 2]),
        ([" cat", "dog ", "cat"] * 8, "auto", ("cat", "dog"), [0, 1, 0]),
    ],
)
def test_a_column_of_words_numbers_or_booleans_becomes_classes(small_frame, write_data, cells, task, classes, first):
    config, inventory = take(write_data(small_frame.assign(label=cells)), task=task)
    assert inventory.classes == classes
    assert (inventory.target.dtype, inventory.target[:3].tolist()) == (np.int64, first)
    assert (config.data.task, config.PREDICTS) == ("classification", "classes")


@pytest.mark.parametrize("cells", [["1", "2", "3"] * 8, ["0.5", "1", "0"] * 8])
def test_numbers_are_numbers_unless_it_is_said(small_frame, write_data, cells):
    config, inventory = take(write_data(small_frame.assign(label=cells)))
    assert (config.data.task, config.PREDICTS, inventory.classes) == ("auto", "number", ())
    assert inventory.target[:3].tolist() == [float(cell) for cell in cells[:3]]


def test_a_number_that_is_misspelt_makes_no_classes(small_frame, write_data):
    root = write_data(small_frame.assign(label=["1,234", *["5"] * 23]))
    assert "target 'label' is not a finite number: 1 of 24 rows" in refusal(root)
    root = write_data(small_frame.assign(label=["1,5", "2,5", "3,25"] * 8))
    assert "target 'label' is not a finite number: 24 of 24 rows" in refusal(root)


@pytest.mark.parametrize(
    ("cells", "data", "told"),
    [
        (["cat"] * 24, {}, "is 'cat' in all 24 training rows: expected at least two classes"),
        ([f"name {n}" for n in range(24)], {}, "24 classes in 24 training rows ('name 0', 'name 1', "),
        (["1", "2", "2.5"] * 8, {"task": "classification"}, "target 'label' is no class: expected a word or a whole"),
        (["cat", "dog", ""] * 8, {}, "target 'label' is empty: 8 of 24 rows"),
        (["cat", "dog", "=1+2"] * 8, {}, "class would be run as a formula by a spreadsheet"),
        (["cat", "dog", "x" * 300] * 8, {}, "is a text, no name of a class: 8 of 24 rows"),
        (WORDS, {"task": "regression"}, "target 'label' is not a finite number: 24 of 24 rows"),
    ],
)
def test_what_is_no_target_for_classes_is_told(small_frame, write_data, cells, data, told):
    assert told in refusal(write_data(small_frame.assign(label=cells)), **data)


def test_a_class_that_only_bad_rows_have_is_none(small_frame, write_data):
    cells = ["cat", "dog", "=emu()"] * 8
    _, inventory = take(write_data(small_frame.assign(label=cells)), on_bad_row="drop")
    assert (inventory.classes, len(inventory.ids)) == (("cat", "dog"), 16)


def test_suspicious_classes_and_those_of_test_rows_alone_are_noted(small_frame, write_data):
    test = small_frame.head(3).assign(id=["t1", "t2", "t3"], label=["cat", "yak", ""])
    _, inventory = take(write_data(small_frame.assign(label=["cat", "Cat", "dog"] * 8), test))
    spelt, unknown = inventory.notes
    assert spelt.startswith("classes 'Cat', 'cat' of target 'label' differ only in case or spaces")
    assert unknown.startswith("the test table has class 'yak' of target 'label', of which there is no training row")


def test_a_loss_of_numbers_is_refused(small_frame, write_data):
    root = write_data(small_frame.assign(label=WORDS))
    with pytest.raises(DataError, match=r"loss\.kind=msle: target 'label' is a class"):
        take(root, LossConfig(kind="msle"))


def make_folders(small_frame, write_data, inner=""):
    """The pictures of the training rows in folders of their classes; of the others in `test`."""
    root = write_data(small_frame, small_frame.head(2).assign(id=["t1", "t2"]))
    for row_id, word in zip(small_frame["id"], WORDS, strict=True):
        folder = root / inner / word
        folder.mkdir(parents=True, exist_ok=True)
        shutil.move(root / "train_val" / f"{row_id}.jpg", folder / f"{row_id}.jpg")
    (root / "train_val.csv").unlink()
    (root / "test.csv").unlink()
    return root


@pytest.mark.parametrize("inner", ["", "train_val"])
def test_folders_of_pictures_are_classes(small_frame, write_data, inner):
    root = make_folders(small_frame, write_data, inner)
    config, inventory = take(root, **PICTURES_ALONE)
    assert inventory.classes == ("cat", "dog", "emu")
    assert inventory.ids[[0, 8]].tolist() == ["cat_v00", "dog_v01"]
    assert inventory.target.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert inventory.test_ids.tolist() == ["t1", "t2"]
    assert config.PREDICTS == "classes"
    shutil.move(root / inner / "cat" / "v00.jpg", root / inner / "dog" / "v00.jpg")
    assert take(root, **PICTURES_ALONE)[1].fingerprint != inventory.fingerprint


def test_folders_of_pictures_hold_no_columns_and_no_numbers(small_frame, write_data):
    root = make_folders(small_frame, write_data)
    assert "Set data.text_columns=[] data.date_column=none, or add the table" in refusal(root)
    assert "data.task=regression wants numbers" in refusal(root, task="regression", **PICTURES_ALONE)
    (root / "cat" / "v00.jpg").write_bytes(b"no picture")
    assert "picture missing or unreadable: 1 of 24 rows: row 1 (id 'cat_v00'" in refusal(root, **PICTURES_ALONE)
    shutil.rmtree(root / "dog")
    shutil.rmtree(root / "emu")
    assert "no such file" in refusal(root, **PICTURES_ALONE)


def test_a_fold_learns_classes_and_its_checkpoint_predicts_new_rows_with_the_same_bits(
    small_frame, write_data, tmp_path
):
    test = small_frame.head(5).assign(id=[f"t{n}" for n in range(5)])
    root = write_data(small_frame.assign(label=WORDS), test)
    context = train_small(tmp_path, root, data=DataConfig(root=str(root), target="label"), eval_batch_size=8, ema=0.9)
    for rows, num_rows in (("validation", 8), ("test", 5)):
        found = context.predictions["best", rows]
        assert (found.classes, found.probability_NC.shape) == (("cat", "dog", "emu"), (num_rows, 3))
        np.testing.assert_allclose(found.probability_NC.sum(axis=1), 1, rtol=1e-12)
        assert set(found.target.tolist()) == ({-1} if rows == "test" else {0, 1, 2})
    last = context.epochs[-1]
    final = context.predictions["final", "validation"]
    true_N = final.probability_NC[np.arange(8), final.target]
    assert last["val/log_loss"] == pytest.approx(-np.log(true_N).mean(), rel=1e-6)
    assert last["val/loss_epoch"] == pytest.approx(last["val/log_loss"])
    assert last["val/accuracy"] == (final.probability_NC.argmax(axis=1) == final.target).mean()
    (best,) = [row["best_log_loss"] for _, row in context.rows if "best_log_loss" in row]
    assert best == min(epoch["val/log_loss"] for epoch in context.epochs)
    saved = TrainedModel(json.loads(json.dumps(context.descriptions["best"])), context.load_checkpoint("best"), {})
    new_rows = find_new_rows([read_sections(Config, saved.description["config"])], root / "test.csv")
    (block,) = new_rows.read(8)
    again = Predictor([saved], new_rows, "cpu", 1).predict(block)
    np.testing.assert_array_equal(again.prediction[0], context.predictions["best", "test"].probability_NC)


def test_frozen_features_and_numbers_alone_give_classes(small_frame, write_data, tmp_path):
    root = write_data(small_frame.assign(label=WORDS))
    model = replace(TINY.model, freeze=True, allow_random_frozen=True)
    context = train_small(tmp_path, root, data=DataConfig(root=str(root), target="label"), model=model)
    assert context.predictions["best", "validation"].probability_NC.shape == (8, 3)
    alone = DataConfig(root=str(root), target="label", train_pictures="", text_columns=())
    context = train_small(tmp_path, root, "alone", data=alone)
    assert context.predictions["best", "validation"].probability_NC.shape == (8, 3)


def test_two_classes_that_a_date_tells_apart_are_learned(small_frame, write_data, tmp_path):
    frame = pd.concat([small_frame] * 4, ignore_index=True)
    frame = frame.assign(id=[f"r{n:03d}" for n in range(96)], date=[f"{2005 + 10 * (n % 2)}-01-01" for n in range(96)])
    root = write_data(frame.assign(label=["old", "young"] * 48))
    data = DataConfig(root=str(root), target="label", train_pictures="", text_columns=())
    config = replace(TINY, data=data, training=replace(TINY.training, epochs=10, batch_size=8, ema_decay=0))
    config, inventory = take_inventory(config, tmp_path)
    context = LocalFoldContext(tmp_path / "place")
    context.root.mkdir()
    write_inputs(config, inventory, context.inputs)
    train_fold(config, Split(0, inventory.ids[:64], inventory.ids[64:]), context)
    assert context.epochs[-1]["val/accuracy"] == 1
    assert context.epochs[-1]["val/log_loss"] < 0.5 * np.log(2)


def test_the_made_up_classes_are_always_the_same_and_uneven(tmp_path):
    root = make_class_data(tmp_path)
    table = pd.read_csv(root / "train_val.csv")
    assert len(table) == NUM_CLASS_TRAIN == len(list((root / "train_val").iterdir()))
    counts = table["label"].value_counts()
    assert counts.index.tolist() == ["boat", "fish", "truck", "bird"]
    assert counts["boat"] > 2.5 * counts["bird"]
    assert "label" not in pd.read_csv(root / "test.csv")
