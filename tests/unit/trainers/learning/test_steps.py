"""What one optimiser step does: gradients that are cut and scaled, and the average of the weights that is kept beside
them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.local_context import LocalFoldContext
from support.tiny_trainer import BATCH, NUM_TRAIN, TinyFold, TinyLearner, TinyModel

from trainers.learning import learner as learner_module
from trainers.learning.arithmetic import seed_fold

LR = 0.5


def make_learner(root, *, max_grad_norm=None, precision=torch.float32, **options):
    seed_fold(1, 0)
    root.mkdir(exist_ok=True)
    fold = TinyFold(LocalFoldContext(root / "place"), TinyModel(), precision=precision)
    fold.predict_checkpoints = lambda: None
    schedule = SimpleNamespace(lr=LR, schedule="constant", warmup_fraction=0.0, max_grad_norm=max_grad_norm)
    (root / "place" / "tokenizer").mkdir(parents=True)
    return TinyLearner(fold, torch.optim.SGD(fold.model.parameters()), NUM_TRAIN, schedule=schedule, **options)


def read_weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def step(learner, factor=1.0):
    """One step on the first rows; returns how far it has gone."""
    before = read_weights(learner.fold.model)
    learner.train_step(torch.arange(BATCH), np.full(BATCH, factor / BATCH))
    return float((read_weights(learner.fold.model) - before).norm())


@pytest.mark.parametrize("precision", [torch.float32, torch.float16])
def test_a_step_is_as_long_as_the_largest_norm_of_its_gradient_allows_whatever_it_is_scaled_by(tmp_path, precision):
    free, cut = step(make_learner(tmp_path / "free")), 1e-3
    assert free > 10 * LR * cut
    learner = make_learner(tmp_path / "cut", max_grad_norm=cut, precision=precision)
    assert step(learner) == pytest.approx(LR * cut, rel=1e-3)
    loose = make_learner(tmp_path / "loose", max_grad_norm=1e3, precision=precision)
    assert step(loose) == pytest.approx(free, rel=1e-3)


def test_a_gradient_that_overflows_costs_a_step_and_half_the_scale_which_a_resumed_fold_goes_on_with(tmp_path):
    learner = make_learner(tmp_path / "first", precision=torch.float16)
    scale = learner.scaler.get_scale()
    assert step(learner, factor=1e38) == 0
    assert learner.scaler.get_scale() == scale / 2
    resumed = make_learner(tmp_path / "second", precision=torch.float16)
    resumed.resume(learner.describe_point())
    assert resumed.scaler.get_scale() == scale / 2


def test_a_fold_that_began_without_a_scale_goes_on_with_one_where_half_precision_is_float16(tmp_path):
    """`training.precision=auto` is another on another device."""
    point = make_learner(tmp_path / "cpu").describe_point()
    resumed = make_learner(tmp_path / "gpu", precision=torch.float16)
    resumed.resume(point)
    assert step(resumed) > 0
    make_learner(tmp_path / "back").resume(resumed.describe_point())


def test_the_average_of_the_weights_is_what_is_validated_and_saved(tmp_path):
    learner = make_learner(tmp_path, num_steps=8)
    fold, model, decay, seen = learner.fold, learner.fold.model, 0.9, []
    average = read_weights(model)
    train_step, validate = learner.train_step, fold.validate

    def train_and_average(batch, share):
        nonlocal average
        loss, number = train_step(batch, share), learner.step
        now = min(decay, (1 + number) / (10 + number))
        average = now * average + (1 - now) * read_weights(model)
        return loss

    def look():
        seen.append((read_weights(model), average))
        return validate()

    learner.train_step, fold.validate = train_and_average, look
    learner.learn()
    assert len(seen) == 2
    for validated, expected in seen:
        torch.testing.assert_close(validated, expected)
    saved = fold.context.load_checkpoint("final")
    fold.load_trained_state(saved)
    torch.testing.assert_close(read_weights(model), average)


@pytest.mark.parametrize("how", [{"num_steps": 5}, {}])
def test_all_ranks_validate_and_save_with_the_first_ones_buffers(tmp_path, monkeypatch, how):
    monkeypatch.setattr(learner_module, "DistributedDataParallel", lambda model: model)
    monkeypatch.setattr(learner_module.dist, "broadcast", lambda buffer, source: buffer.fill_(7 + source))
    learner = make_learner(tmp_path, **how)
    fold, seen = learner.fold, []
    fold.context.rank, fold.context.world_size = 1, 2
    fold.model.register_buffer("statistics", torch.zeros(2))
    find_loss, validate = learner.find_loss, fold.validate

    def change(batch, share):
        fold.model.statistics += 1  # by this rank's rows alone
        return find_loss(batch, share)

    def look():
        seen.append(fold.model.statistics.tolist())
        return validate()

    learner.find_loss, fold.validate = change, look
    learner.learn()
    assert seen == [[7.0, 7.0]] * (1 if how else 2)  # after 5 steps, and at the end of an epoch of 6
