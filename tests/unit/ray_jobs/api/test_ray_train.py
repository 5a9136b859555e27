"""A training loop of Ray Train as the trainer of a fold: Ray Train's own functions, without a cluster."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import ray.train
import torch
from ray.train.v2._internal.execution.train_fn_utils import LocalTrainFnUtils, get_train_fn_utils, set_train_fn_utils
from support.local_context import KilledError, LocalFoldContext
from support.own_fold import make_fold

from ray_jobs import cross_validate, get_fold, save_predictions
from ray_jobs.api.ray_train import RayTrainLoop, make_loop_source, read_scaling
from ray_jobs.errors import RunError
from trainers.own_trainer.users_code.options import as_options

ROWS = pd.DataFrame({"x": np.arange(12.0), "y": np.arange(12.0)})


@pytest.fixture(autouse=True)
def train_functions():
    """This process as a worker of Ray Train's local mode."""
    known = LocalTrainFnUtils("test")
    set_train_fn_utils(known)
    yield known
    set_train_fn_utils(None)


def loop(config):
    began = 0
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            began = int((Path(folder) / "deep/epoch.txt").read_text()) + 1
    for epoch in range(began, config["epochs"]):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "deep").mkdir()
            (Path(folder) / "deep/epoch.txt").write_text(str(epoch))
            ray.train.report(
                {"loss": 1 / (epoch + 1), "epoch": epoch, "note": "text"},
                checkpoint=ray.train.Checkpoint.from_directory(folder),
            )
    assert get_fold().world_size == 1
    save_predictions(validation=get_fold().validation["x"] + began, test=np.zeros(4))


def test_reports_are_epochs_and_a_checkpoint_is_where_a_killed_loop_goes_on(tmp_path, train_functions):
    context = LocalFoldContext(tmp_path)
    context.stop_at = 3
    options = as_options({"epochs": 5})
    with pytest.raises(KilledError):
        RayTrainLoop(loop)(make_fold(context), options)
    assert get_train_fn_utils() is train_functions
    context.stop_at, context.resume_from = None, context.stopped_with
    fold = make_fold(context)
    predicted = RayTrainLoop(loop)(fold, options)
    assert (predicted["validation"] == fold.validation["x"] + 3).all()
    assert [one["score"] for one in context.epochs] == [pytest.approx(1 / n) for n in range(1, 6)]
    assert [step for step, _ in context.steps] == [1, 2, 3, 4, 5]
    assert fold.last_epoch == 4
    assert get_train_fn_utils() is train_functions
    with pytest.raises(RuntimeError, match="outside of a training loop"):
        save_predictions(validation=[])


def test_a_report_without_a_checkpoint_is_no_point_to_go_on_from(tmp_path):
    def every_second(config):
        for epoch in range(4):
            with tempfile.TemporaryDirectory() as folder:
                checkpoint = ray.train.Checkpoint.from_directory(folder) if epoch % 2 else None
                ray.train.report({"val_loss": torch.tensor(0.5), "loss": np.float32(2)}, checkpoint=checkpoint)
        save_predictions(validation=np.zeros(8))

    context = LocalFoldContext(tmp_path)
    context.stop_at = 3
    RayTrainLoop(every_second)(make_fold(context), as_options({"num_epochs": 4}))
    assert context.epochs[-1] == {"score": 0.5, "val/loss_epoch": 0.5, "train/loss_epoch": 2}
    context.stop_at = 4
    with pytest.raises(KilledError):
        RayTrainLoop(every_second)(make_fold(context), as_options({}))


def test_a_loop_without_predictions_and_one_of_no_config(tmp_path):
    def silent():
        assert ray.train.get_checkpoint() is None
        ray.train.report({"accuracy": 0.5})

    context = LocalFoldContext(tmp_path)
    with pytest.raises(RuntimeError, match=r"call ray_jobs.save_predictions.*after its last epoch"):
        RayTrainLoop(silent)(make_fold(context), as_options({}))
    # An accuracy is no score, of which the lowest is best.
    assert (len(context.epochs), context.steps) == (0, [(1, {"accuracy": 0.5})])


class SecondOfTwo(LocalTrainFnUtils):
    """A worker to which rank 0 says what it has reported."""

    def __init__(self, *said):
        super().__init__("test")
        self.said = said

    def broadcast_from_rank_zero(self, data):
        return self.said


def test_of_several_workers_the_first_one_s_report_counts(tmp_path):
    context = LocalFoldContext(tmp_path)
    context.rank, context.world_size = 1, 2
    set_train_fn_utils(SecondOfTwo({"loss": 0.25}, ["deep/epoch.txt"]))
    with pytest.raises(AssertionError):  # of the loop, which expects to be alone, after its epochs
        RayTrainLoop(loop)(make_fold(context), as_options({"epochs": 2}))
    assert [epoch["score"] for epoch in context.epochs] == [0.25, 0.25]
    set_train_fn_utils(SecondOfTwo({}, ["other.pt"]))
    with pytest.raises(ValueError, match=r"checkpoint of rank 1 has the files deep/epoch.txt, which .* rank 0 has not"):
        RayTrainLoop(loop)(make_fold(context), as_options({"epochs": 1}))


def test_a_scaling_config_is_that_of_one_fold():
    scaling = ray.train.ScalingConfig(num_workers=2, use_gpu=True, resources_per_worker={"CPU": 3, "GPU": 2})
    assert read_scaling(scaling) == {"workers_per_fold": 2, "gpus_per_fold": 4, "cpus_per_fold": 6}
    assert read_scaling(ray.train.ScalingConfig(num_workers=1)) == {"workers_per_fold": 1, "gpus_per_fold": 0}
    with pytest.raises(RunError, match=r"'special': 1.0.*expected CPU, GPU and memory"):
        read_scaling(ray.train.ScalingConfig(num_workers=1, resources_per_worker={"special": 1.0}))


def of_fold(fold):
    """Is not called."""


@pytest.mark.parametrize(
    ("trainer", "said", "problem"),
    [
        (loop, {"data": ROWS}, r"loop\(config\) is written as a training loop of Ray Train"),
        (of_fold, {"dataset": ROWS}, "for a function of a fold use data="),
        (of_fold, {"data": ROWS, "train_loop_config": {}}, "for a function of a fold use data="),
        (3, {"dataset": ROWS}, "is a int: expected the function that a TorchTrainer gets"),
        (loop, {"dataset": ROWS, "data": ROWS}, "data= and dataset= are the same"),
        (loop, {"dataset": ROWS, "train_loop_config": {}, "my": {}}, "my= and train_loop_config= are the same"),
        (loop, {}, "data=NoneType, target='y': expected rows"),
    ],
)
def test_what_is_no_loop_or_does_not_say_that_it_is_one_is_refused(tmp_path, trainer, said, problem):
    with pytest.raises(RunError, match=problem):
        cross_validate(trainer, target="y", storage=tmp_path, **said)


def test_a_loop_is_known_by_its_own_source():
    source = make_loop_source(loop, "loop.py:loop")
    assert source.text.startswith("def loop(config):")
    assert source.build_options({"epochs": 2}).epochs == 2
