"""What every family has to do, asked of each folder of `trainers/` that has a `recipes.py`. A new one is asked by
itself.

Each trains its smallest recipe, four steps in two epochs, on data that it makes itself, in this process and without
Ray."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from support.local_context import KilledError, LocalFoldContext
from support.processes import REPOSITORY

from ensemble.kinds import load_kind
from ray_jobs.config.overrides import override
from ray_jobs.config.recipes import ALIASES, RECIPES
from ray_jobs.config.run import RunConfig, flatten, from_dict, to_dict
from trainers.families import Advice, Metrics, find_families, load_metrics, load_recipes_module
from trainers.interface import (
    FORMULA,
    DataError,
    Inventory,
    Split,
    TrainedModel,
    load_config_class,
    load_evaluate_module,
)
from trainers.predictions import (
    AnsweredQuestion,
    BlockAnswers,
    DenoisingLosses,
    MadeSamples,
    NewTokenLosses,
    TokenLosses,
)

FAMILIES = find_families()
NUM_TRAIN, NUM_VALIDATION, NUM_BLEND, NUM_STEPS, NUM_EPOCHS = 12, 5, 2, 4, 2
NAMES = {
    "config": ("Config", "DataConfig"),
    "recipes": ("RECIPES", "SMALLEST"),
    "inventory": ("take_inventory", "write_inputs", "prepare_node"),
    "train": ("train_fold",),
    "new_rows": ("find_new_rows", "PLACES"),
    "predict": ("Predictor",),
}
each_family = pytest.mark.parametrize("family", FAMILIES)


def load(family: str, module: str) -> Any:
    return importlib.import_module(f"trainers.{family}.{module}")


def build_smallest(family: str) -> RunConfig:
    """The family's recipe for tests such as these, with its fields."""
    name, *words = load_recipes_module(family).SMALLEST.split()
    return override(RECIPES[name](), words)


@dataclass
class Trained:
    """What a family has made of its smallest recipe.

    Attributes:
        config: of the trainer, resolved.
        context: where it was trained without a break.
        killed: where it was killed after a step.
        ended: where its time was up within the first epoch.
        resumed: where it went on from there.
    """

    family: str
    config: Any
    inventory: Inventory
    split: Split
    context: LocalFoldContext
    killed: LocalFoldContext
    resumed: LocalFoldContext
    ended: LocalFoldContext


def train(
    family: str, root: Path, name: str, config: Any = None, **how: Any
) -> tuple[Any, Inventory, Split, LocalFoldContext]:
    """Trains a fold on some of the family's rows, or until it is killed."""
    inventory_module = load(family, "inventory")
    config, inventory = inventory_module.take_inventory(config or build_smallest(family).trainer, root, root / "cache")
    parts = np.split(inventory.ids, np.cumsum([NUM_TRAIN, NUM_VALIDATION, NUM_BLEND]))
    context, split = LocalFoldContext(root / name), Split(0, *parts[:3])
    context.root.mkdir()
    context.stop_at, context.resume_from = how.get("stop_at"), how.get("resume_from")
    context.time_is_up_at = how.get("time_is_up_at")
    inventory_module.prepare_node(config)
    inventory_module.write_inputs(config, inventory, context.inputs)
    torch.manual_seed(how.get("seed", 0))
    try:
        load(family, "train").train_fold(config, split, context)
    except KilledError:
        assert context.stop_at is not None
    return config, inventory, split, context


@pytest.fixture(scope="module", params=FAMILIES)
def trained(request, tmp_path_factory):
    family, root = request.param, tmp_path_factory.mktemp(request.param)
    threads = torch.get_num_threads()
    config, inventory, split, context = train(family, root, "whole")
    *_, killed = train(family, root, "killed", stop_at=1)
    # What the random generators come to between a kill and a start must not matter.
    *_, resumed = train(family, root, "resumed", resume_from=killed.stopped_with, seed=77)
    *_, ended = train(family, root, "ended", time_is_up_at=1)
    torch.set_num_threads(threads)
    return Trained(family, config, inventory, split, context, killed, resumed, ended)


@each_family
def test_it_has_the_modules_and_the_names_of_the_interface(family):
    for module, names in NAMES.items():
        missing = [name for name in names if not hasattr(load(family, module), name)]
        assert not missing, f"trainers/{family}/{module}.py"
    config = build_smallest(family).trainer
    fields = flatten(dataclasses.asdict(config))
    assert type(config) is load_config_class(family)
    assert type(config).__dataclass_params__.frozen
    assert {"data.root", *(f"data.{name}" for name in config.data.ROWS_FROM), *config.NOT_TRAINED_BY} <= set(fields)
    assert getattr(config, "SEED", "data.root") in fields
    assert load_kind(config.PREDICTS).name == config.PREDICTS
    assert isinstance(config.ADVICE, Advice)
    assert hasattr(load(family, "predict"), "Soup") or not getattr(config, "BEGINS_ALIKE", False)
    assert all(isinstance(package, str) for package in config.PACKAGES)
    assert all(isinstance(metrics, Metrics) for metrics in load_metrics(family))


@each_family
def test_what_the_driver_loads_of_it_is_light(family):
    code = (
        f"import sys, trainers.{family}.config, trainers.{family}.recipes; heavy = {{'torch', 'ray', "
        "'pandas'} & set(sys.modules); "
        f"import trainers.{family}.inventory, trainers.{family}.new_rows; heavy |= {{'torch', 'ray'}} & "
        "set(sys.modules); sys.exit(str(heavy or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False, capture_output=True, text=True)
    assert not done.stderr.strip()


@each_family
def test_its_recipes_build_and_survive_json(family):
    module = load_recipes_module(family)
    for recipe in module.RECIPES:
        config = RECIPES[recipe.__name__]()
        assert (config.family, config.recipe) == (family, recipe.__name__)
        assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
        assert recipe.__doc__
        flags = ALIASES.get(recipe.__name__, {}).values()
        assert {field.partition("=")[0] for field in flags} <= set(flatten(to_dict(config)))
        override(config, [field for field in flags if "=" in field])
    assert set(getattr(module, "ALIASES", {})) <= {recipe.__name__ for recipe in module.RECIPES}
    assert build_smallest(family).trainer.data.root is None


def test_it_records_every_step_and_every_epoch(trained):
    assert [step for step, _ in trained.context.steps] == list(range(1, NUM_STEPS + 1))
    assert all(np.isfinite(metrics["train/loss_step"]) for _, metrics in trained.context.steps)
    evaluations = [metrics for _, metrics in trained.context.evaluations]  # of stages without epochs
    assert len(trained.context.epochs) + len(evaluations) == NUM_EPOCHS
    assert all({"train/loss_epoch", "val/loss_epoch", "score"} <= set(metrics) for metrics in trained.context.epochs)
    assert all({"train/loss_epoch", "score"} <= set(metrics) for metrics in evaluations)
    assert trained.context.touched


def test_it_goes_on_after_a_kill_to_the_same_bits(trained):
    assert trained.killed.stopped_with is not None
    assert trained.resumed.steps == trained.context.steps[1:]
    for checkpoint in ("best", "final"):
        whole, resumed = ((context.root / checkpoint).read_bytes() for context in (trained.context, trained.resumed))
        assert whole == resumed
    assert list(trained.resumed.predictions) == list(trained.context.predictions)
    for key, predictions in trained.context.predictions.items():
        for whole, resumed in zip(list_values(predictions), list_values(trained.resumed.predictions[key]), strict=True):
            np.testing.assert_array_equal(whole, resumed)


def test_it_ends_after_the_epoch_that_fits_into_its_time(trained):
    """Each stage of several has at least one evaluation, and these have no more."""
    ended, steps = trained.ended, trained.context.steps
    num_steps = NUM_STEPS if trained.context.stages else NUM_STEPS // NUM_EPOCHS
    assert ended.steps == steps[:num_steps]
    assert ended.ended == ([] if trained.context.stages else [(num_steps, "budget")])
    assert set(ended.predictions) == set(trained.context.predictions)


def list_values(predictions: Any) -> list[np.ndarray]:
    """The arrays of what a family has saved as predictions of some rows: numbers, losses, or a list of maps."""
    if isinstance(predictions, DenoisingLosses):
        return [predictions.loss_NS, predictions.time_NS, predictions.error_NSP]
    if isinstance(predictions, MadeSamples):
        return [predictions.pictures]
    if isinstance(predictions, list) and isinstance(predictions[0], AnsweredQuestion):
        everything = [(one.answer, *one.samples, *one.before.values()) for one in predictions]
        scores = [answer.format_score for answers in everything for answer in answers]
        return [np.array(scores), np.array([[answer.text for answer in answers] for answers in everything])]
    if isinstance(predictions, list):
        return [value for one in predictions for value in (one.probability_CHW, one.target_HW) if value is not None]
    if isinstance(predictions, (TokenLosses, NewTokenLosses)):
        return [predictions.nats, predictions.tokens, predictions.bytes]
    return [predictions.prediction, predictions.prediction_z, predictions.target]


def list_ids(predictions: Any) -> list[str]:
    return [one.row_id for one in predictions] if isinstance(predictions, list) else list(predictions.ids)


def test_it_predicts_each_row_of_a_fold_once_with_the_row_s_own_target(trained):
    split, inventory = trained.split, trained.inventory
    wanted = {"validation": split.validation_ids, "blend": split.blend_ids, "test": inventory.test_ids}
    for (_, rows), predictions in trained.context.predictions.items():
        if rows != "samples":  # which are no rows of the data
            assert list_ids(predictions) == list(wanted[rows])
        assert all(np.isfinite(value).all() for value in list_values(predictions)[:1])
    assert {key for key in trained.context.predictions if key[1] == "validation"} == {
        ("best", "validation"),
        ("final", "validation"),
    }
    predictions = trained.context.predictions["best", "validation"]
    if inventory.target is not None and not isinstance(predictions, list):
        target_of = dict(zip(inventory.ids, inventory.target, strict=True))
        assert predictions.target.tolist() == [target_of[row_id] for row_id in predictions.ids]


def as_trained_model(context: LocalFoldContext) -> TrainedModel:
    """A checkpoint as a later job reads it: its description was JSON."""
    description = json.loads(json.dumps(context.descriptions["best"]))
    shared = description.get("shared_tensors") or {}
    folder = context.find_files("best")
    files = {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}
    return TrainedModel(description, context.load_checkpoint("best"), context.shared.get(shared.get("path"), {}), files)


def test_it_predicts_new_rows_with_the_bits_of_the_run_s_own_test_rows(trained):
    rows = load(trained.family, "new_rows").find_new_rows([trained.config], Path(trained.config.data.root))
    rows = pickle.loads(pickle.dumps(rows))
    assert rows.check() == trained.inventory.num_test
    assert rows.PROBLEMS
    predictor = load(trained.family, "predict").Predictor([as_trained_model(trained.context)], rows, "cpu", 1)
    found = [predictor.predict(block) for block in rows.read(rows.batch_rows * 4)]
    expected = trained.context.predictions["best", "test"]
    if isinstance(found[0], BlockAnswers):
        assert [one for block in found for one in block.answered[0]] == expected
    elif isinstance(expected, list):
        found = [one for block in found for one in block]
        assert [one.row_id for one in found] == list_ids(expected)
        for one, known in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one.probability_MCHW[0], known.probability_CHW)
    else:
        assert [row_id for one in found for row_id in one.ids] == list_ids(expected)
        values = [one.nats[0] if isinstance(one, NewTokenLosses) else one.prediction[0] for one in found]
        np.testing.assert_array_equal(np.concatenate(values), list_values(expected)[0])


def test_its_training_rows_as_new_rows_get_the_bits_of_the_fold_s_own_predictions(trained):
    """What `evaluate.py --blend` reads, and explain.py shuffles of families that say what their models look at."""
    module = load(trained.family, "new_rows")
    if not hasattr(module, "find_train_rows"):
        assert load_evaluate_module(trained.family) is None
        return
    rows = module.find_train_rows(trained.config)
    block = pa.concat_tables(list(rows.read(rows.batch_rows * 4)))
    ids = block[rows.id_column].to_pylist()
    assert set(trained.inventory.ids.tolist()) <= set(ids)
    if not rows.inputs:
        check_own_rows(trained, module, rows, block)
        return
    assert {name for columns in rows.inputs.values() for name in columns} <= set(block.column_names)
    own = block.take([ids.index(row_id) for row_id in trained.split.validation_ids.tolist()])
    found = load(trained.family, "predict").Predictor([as_trained_model(trained.context)], rows, "cpu", 1).predict(own)
    expected = trained.context.predictions["best", "validation"]
    known = getattr(expected, "prediction", None)
    np.testing.assert_allclose(found.prediction[0], expected.probability_NC if known is None else known, rtol=1e-6)


def check_own_rows(trained, module, rows, block):
    """Of a family that is evaluated: its training and test rows are answered as the fold has answered them."""
    assert load_evaluate_module(trained.family) is not None
    tests = module.find_test_rows(trained.config)
    assert tests.check() == trained.inventory.num_test
    with pytest.raises(DataError, match=r"the run has no test .* expected --blend, or --data FILE"):
        module.find_test_rows(without_test(trained.config))
    ids = block[rows.id_column].to_pylist()
    own = block.take([ids.index(row_id) for row_id in trained.split.validation_ids.tolist()])
    found = load(trained.family, "predict").Predictor([as_trained_model(trained.context)], rows, "cpu", 1).predict(own)
    expected = trained.context.predictions["best", "validation"]
    if isinstance(found, BlockAnswers):
        assert [(one.row_id, one.answer) for one in found.answered[0]] == [(one.row_id, one.answer) for one in expected]
    else:
        np.testing.assert_allclose(found.nats[0], expected.nats, rtol=1e-5, atol=1e-6)


def without_test(config):
    """The config of a run in a folder without test rows."""
    name = "test" if hasattr(config.data, "test") else "test_table"
    root = Path(config.data.root) / "alone"
    root.mkdir(exist_ok=True)
    train = Path(config.data.root, getattr(config.data, "train_table", "train.jsonl"))
    shutil.copy(train, root / train.name)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, root=str(root), **{name: ""}))


def test_its_rows_are_the_same_whenever_they_are_read_and_left(trained, tmp_path):
    module = load(trained.family, "inventory")
    inventory = trained.inventory
    config, again = module.take_inventory(trained.config, tmp_path, tmp_path / "cache")
    assert config == trained.config
    assert again.fingerprint == inventory.fingerprint
    assert again.ids.tolist() == inventory.ids.tolist()
    assert len(set(inventory.ids.tolist())) == len(inventory.ids)
    assert inventory.target is None or len(inventory.target) == len(inventory.ids)
    assert not any(FORMULA.search(row_id) for row_id in inventory.ids.tolist())
    assert inventory.num_test == (0 if inventory.test_ids is None else len(inventory.test_ids))
    assert all(len(keys.train) == len(inventory.ids) for keys in inventory.row_keys.values())
    module.write_inputs(config, again, tmp_path / "inputs")
    assert read_folder(tmp_path / "inputs") == read_folder(trained.context.inputs)


def read_folder(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def find_files(made: Path, ids: set[str]) -> list[Path]:
    """One file of each folder and type of what a family has made, of these rows if it is of rows; not what explains
    it."""
    chosen: dict[tuple[Path, str], Path] = {}
    for path in sorted(filter(Path.is_file, made.rglob("*"))):
        if path.suffix != ".txt" and (path.stem in ids or (path.parent, path.suffix) not in chosen):
            chosen[path.parent, path.suffix] = path
    return list(chosen.values())


def list_what_is_wrong(family: str, root: Path, config: Any) -> str:
    """What a training on these rows is refused with, or lists as bad rows."""
    try:
        _, inventory, _, context = train(family, root, "place", config)
    except DataError as error:
        return str(error)
    return "\n".join([*(row["id"] for row in inventory.bad_rows), *(row_id for _, row_id, _, _ in context.bad_rows)])


@each_family
def test_what_cannot_be_read_of_its_data_is_refused_or_listed_and_never_used_in_silence(family, tmp_path):
    """One file of each folder of the data that it makes, and of each type, becomes noise."""
    config = build_smallest(family).trainer
    resolved, inventory = load(family, "inventory").take_inventory(config, tmp_path, tmp_path / "cache")
    made = Path(resolved.data.root)
    files = find_files(made, {str(inventory.ids[0]), str(inventory.test_ids[0])})
    assert files
    for number, path in enumerate(files):
        root = tmp_path / f"broken_{number}"
        shutil.copytree(made, root / "data")
        (root / "data" / path.relative_to(made)).write_bytes(b"\x00\xff noise \xfe" * 9)
        broken = dataclasses.replace(config, data=dataclasses.replace(config.data, root=str(root / "data")))
        assert path.stem in list_what_is_wrong(family, root, broken), path
