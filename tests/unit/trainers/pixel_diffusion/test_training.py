"""A fold of the diffusion transformer: steps, averages of weights, what is recorded, what is made at its end."""

from __future__ import annotations

import io
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from support.small_diffusion import SMALL, train_small

from trainers.pixel_diffusion.config import OptimizerConfig, TrainingConfig
from trainers.pixel_diffusion.fold.batches import EpochDraws
from trainers.pixel_diffusion.process import Process


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Where the pictures are made and decoded once."""
    return tmp_path_factory.mktemp("small")


@pytest.fixture(scope="module")
def trained(root):
    return train_small(root)


def test_a_step_of_several_forward_passes_is_that_of_all_their_pictures(trained, root):
    parts = replace(SMALL, training=replace(SMALL.training, batch_size=1, accumulation=5))
    in_parts = train_small(root, "place_1", config=parts)
    assert len(in_parts.steps) == len(trained.steps) == 6  # the last of each epoch has 2 pictures
    for (_, whole), (_, own) in zip(trained.steps, in_parts.steps, strict=True):
        assert own["train/loss"] == pytest.approx(whole["train/loss"], rel=1e-4)
        assert own["train/grad_norm"] == pytest.approx(whole["train/grad_norm"], rel=1e-3)


def test_it_records_by_the_names_that_users_of_the_method_know(trained):
    for _, metrics in trained.steps:
        assert metrics["train/loss"] == metrics["train/loss_step"]
        assert metrics["train/learning_rate"] == metrics["learning_rate"] == 3e-3
        assert metrics["train/grad_norm"] > 0
    first, second = trained.epochs
    assert first["train/best_loss"] == first["train/epoch_loss"] == first["train/loss_epoch"]
    assert second["train/best_loss"] == min(first["train/epoch_loss"], second["train/epoch_loss"])
    assert second["score"] == second["val/v_loss"] == min(second["val/v_loss_ema_0"], second["val/v_loss_ema_1"])
    assert second["val/v_loss_ema_0"] != second["val/v_loss_ema_1"]
    assert {"setup/effective_batch": 5, "setup/learning_rate": 3e-3} in [row for _, row in trained.rows]


@pytest.mark.parametrize("step", [2, 5])
def test_killed_within_an_epoch_it_ends_with_the_same_bits_averages_included(trained, root, step):
    killed = train_small(root, f"killed_{step}", stop_at=step)
    assert {name.partition("/")[0] for name in killed.stopped_with[0].tensors} >= {
        "average_0",
        "average_1",
        "optimizer",
    }
    resumed = train_small(root, f"resumed_{step}", resume_from=killed.stopped_with)
    assert resumed.steps == trained.steps[step:]
    for name in ("best", "final"):
        assert (resumed.root / name).read_bytes() == (trained.root / name).read_bytes()


def test_what_is_saved_is_the_average_that_was_better_and_not_the_weights(trained, root):
    without = train_small(root, "place_2", config=replace(SMALL, training=replace(SMALL.training, ema_decays=())))
    assert without.steps == trained.steps
    own, average = without.load_checkpoint("final"), trained.load_checkpoint("final")
    assert own.keys() == average.keys()
    assert not torch.equal(own["final.head.weight"], average["final.head.weight"])


def test_losses_of_rows_do_not_depend_on_fold_or_settings(trained, root):
    other = train_small(root, "place_3", config=replace(SMALL, training=replace(SMALL.training, seed=7, epochs=1)))
    mine, others = (one.predictions["best", "validation"] for one in (trained, other))
    np.testing.assert_array_equal(mine.time_NS, others.time_NS)
    for name in ("memoriser", "floor"):
        np.testing.assert_array_equal(mine.references[name], others.references[name])
    assert (mine.references["floor"] <= mine.references["memoriser"] + 1e-9).mean() > 0.9
    np.testing.assert_allclose((mine.error_NSP.astype(float) ** 2).mean(axis=2), mine.loss_NS, rtol=1e-3)


def test_the_samples_have_nearest_rows_and_what_was_measured(trained):
    made = trained.predictions["best", "samples"]
    assert made.pictures.shape == (4, 3, 16, 16)
    assert made.labels.tolist() == ["cross", "disc", "square", "cross"]
    assert made.facts["pictures_of_a_side"] == 6  # as many as are validated
    assert 0 <= made.facts["nearer_to_training"] <= 1
    assert made.facts["valid"] == 0
    assert (2, "samples/valid") in [(len(trained.epochs), name) for name in trained.rows[-1][1]]


def test_a_grid_of_samples_is_recorded_in_some_epochs(trained):
    ((step, name, content),) = trained.pictures
    assert (step, name) == (6, "samples/grid")
    assert Image.open(io.BytesIO(content)).size == (2 * 64 + 2,) * 2


def test_gradients_that_are_very_small_are_warned_of(root, caplog):
    with caplog.at_level(logging.WARNING):
        train_small(
            root, "place_4", config=replace(SMALL, process=Process(clamp=0.9999, noise_scale=1e-3)), num_train=5
        )
    assert not [one for one in caplog.records if "above 100" in one.getMessage()]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        train_small(root, "place_5", config=replace(SMALL, optimizer=OptimizerConfig(lr=30.0, warmup_epochs=0)))
    assert [one for one in caplog.records if "the norm of the gradients was" in one.getMessage()]


def test_what_is_drawn_for_a_row_depends_on_seed_fold_epoch_and_row_alone():
    training, pictures = TrainingConfig(label_drop=0.5), np.zeros((6, 3, 4, 4), np.uint8)
    rows, labels = np.array([3, 0, 9, 5, 7, 1]), np.full(6, 2)
    one, same = (EpochDraws(training, Process(), 1, 4, 10, 5).build(rows, pictures, labels, "cpu") for _ in range(2))
    other = EpochDraws(training, Process(), 1, 5, 10, 5).build(rows, pictures, labels, "cpu")
    assert torch.equal(one.noise, same.noise)
    assert torch.equal(one.time, same.time)
    assert not torch.equal(one.noise, other.noise)
    assert not torch.equal(one.time, other.time)
    assert set(one.label.tolist()) == {2, 5}
    without = EpochDraws(training, Process(), 1, 4, 10, 1).build(rows, pictures, np.zeros(6, int), "cpu")
    assert without.label.tolist() == [0] * 6  # one class is none: its label is never hidden


@pytest.mark.parametrize(
    ("batch", "parts", "lr", "expected"), [(1024, 1, "auto", 2e-4), (64, 2, "auto", 2.5e-5), (64, 2, 1e-3, 1e-3)]
)
def test_the_learning_rate_follows_the_pictures_of_a_step_unless_it_is_given(batch, parts, lr, expected):
    plan = OptimizerConfig(lr=lr).plan(TrainingConfig(epochs=50, batch_size=batch, accumulation=parts))
    assert plan.lr == pytest.approx(expected)
    assert plan.warmup_fraction == 0.1
