"""A fold of two stages that counts steps: killed at each of them it ends with the same bits. By epochs, evaluations
between them."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.local_context import KilledError, LocalFoldContext
from support.tiny_trainer import NUM_TRAIN, STEPS, TinyFold, TinyLearner, TinyModel, train

from trainers.learning.arithmetic import seed_fold

ALL_STEPS = sum(STEPS)


def build(root):
    (root / "tokenizer").mkdir(parents=True)
    (root / "tokenizer" / "words.txt").write_text("a b")
    return LocalFoldContext(root)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    context = build(tmp_path_factory.mktemp("whole") / "place")
    train(context)
    return context


def test_both_stages_are_trained_and_evaluated_every_five_steps_and_at_their_end(whole):
    assert [step for step, _ in whole.steps] == list(range(1, ALL_STEPS + 1))
    assert [step for step, _ in whole.evaluations] == [5, 10, 13, 18, 23, 25]
    assert whole.stages == ["sft", "grpo", ""]
    assert whole.epochs == []
    assert (whole.progress.step, whole.progress.num_steps, whole.progress.num_epochs) == (ALL_STEPS, ALL_STEPS, None)


def test_each_stage_has_its_own_schedule_and_its_own_best(whole):
    rates = [metrics["learning_rate"] for _, metrics in whole.steps]
    assert (max(rates[: STEPS[0]]), max(rates[STEPS[0] :])) == pytest.approx((0.05, 0.01), rel=0.1)
    assert all(later < before for before, later in pairwise(rates[2 : STEPS[0]]))
    scores = [metrics["score"] for _, metrics in whole.evaluations]
    best = [row["best_error"] for _, row in whole.rows if "best_error" in row]
    assert best == [min(scores[:3]), min(scores[3:])]
    assert all({"val/loss_epoch", "train/loss_epoch"} <= set(metrics) for _, metrics in whole.evaluations[:3])
    assert all({"reward"} <= set(metrics) for _, metrics in whole.evaluations[3:])


def test_what_is_saved_is_the_average_of_the_weights_and_each_checkpoint_has_its_files(whole):
    final = whole.load_checkpoint("final")
    fold = TinyFold(whole, TinyModel())
    fold.load_trained_state(final)
    assert fold.validate()["val/error"] == whole.evaluations[-1][1]["score"]
    for name in ("best", "final", "sft"):
        assert (whole.find_files(name) / "words.txt").read_text() == "a b"
        assert len(whole.predictions[name, "validation"].ids) == 8


@pytest.mark.parametrize("step", range(1, ALL_STEPS + 1))
def test_killed_at_any_step_it_ends_with_the_same_bits(whole, tmp_path, step):
    killed = build(tmp_path / "place")
    killed.stop_at = step
    with pytest.raises(KilledError):
        train(killed)
    torch.manual_seed(77)  # what the random generators come to between a kill and a start must not matter
    resumed = LocalFoldContext(killed.root)
    resumed.resume_from = killed.stopped_with
    train(resumed)
    assert resumed.steps == whole.steps[step:]
    assert killed.evaluations + resumed.evaluations == whole.evaluations
    for name in ("best", "final", "sft"):
        assert (resumed.root / name).read_bytes() == (whole.root / name).read_bytes()
        for values in ("ids", "prediction"):
            found, expected = (getattr(context.predictions[name, "validation"], values) for context in (resumed, whole))
            np.testing.assert_array_equal(found, expected)


def test_killed_before_a_long_evaluation_it_evaluates_once(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("trainers.learning.learner.LONG_VALIDATION_S", -1.0)
    for step in (10, 13, 25):
        killed = build(tmp_path / f"at{step}")
        killed.stop_at = step
        with pytest.raises(KilledError):
            train(killed)
        assert [at for at, _ in killed.evaluations] == [at for at, _ in whole.evaluations if at < step]
        resumed = LocalFoldContext(killed.root)
        resumed.resume_from = killed.stopped_with
        train(resumed)
        assert resumed.evaluations == [one for one in whole.evaluations if one[0] >= step]
        assert (resumed.root / "final").read_bytes() == (whole.root / "final").read_bytes()


def test_by_epochs_an_evaluation_between_them_may_be_the_best(tmp_path):
    context = build(tmp_path / "place")
    seed_fold(1, 0)
    fold = TinyFold(context, TinyModel())
    fold.config.training.epochs = 2
    fold.predict_checkpoints = lambda: None
    optimizer = torch.optim.SGD(fold.model.parameters(), lr=0.1)
    TinyLearner(fold, optimizer, NUM_TRAIN, schedule=SimpleNamespace(**vars(fold.config.optimizer))).learn()
    assert [step for step, _ in context.evaluations] == [5, 10]  # 6 steps an epoch
    assert len(context.epochs) == 2
    assert (context.progress.epoch, context.progress.num_epochs, context.progress.batch) == (1, 2, 6)
    (best,) = [row["best_error"] for _, row in context.rows if "best_error" in row]
    assert best == min(metrics["score"] for metrics in (*context.epochs, *(one for _, one in context.evaluations)))
