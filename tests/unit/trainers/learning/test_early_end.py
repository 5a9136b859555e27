"""Trainings that end before all their epochs or steps: nothing got better, or the time was up."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from support.local_context import KilledError, LocalFoldContext
from support.tiny_trainer import NUM_TRAIN, SCHEDULE, TinyFold, TinyLearner, TinyModel

from trainers.learning.arithmetic import seed_fold

EPOCHS, STEPS_PER_EPOCH = 12, 6


class SavingContext(LocalFoldContext):
    """Killed when the point of a certain number is saved, in the middle of epochs and at their ends."""

    kill_at_point, num_points = None, 0

    def is_resume_point_due(self, global_step):
        return global_step % 4 == 0

    def save_resume_point(self, point, global_step):
        self.num_points += 1
        self.stop_at = global_step if self.num_points == self.kill_at_point else None
        super().save_resume_point(point, global_step)


class OneStageFold(TinyFold):
    """Without the checkpoint that only the two stages have."""

    def predict_checkpoints(self):
        for name in ("best", "final"):
            self.load_trained_state(self.context.load_checkpoint(name))
            self.context.save_predictions(name, "validation", self.split.validation_ids, self.predict())


def train(context, *, patience=None, lr=0.5, num_steps=None):
    seed_fold(1, 0)
    fold = OneStageFold(context, TinyModel())
    training = SimpleNamespace(epochs=EPOCHS, batch_size=4, seed=1, patience=patience)
    fold.config = SimpleNamespace(training=training, optimizer=SimpleNamespace(lr=lr, **SCHEDULE))
    optimizer = torch.optim.AdamW(fold.model.parameters())
    TinyLearner(fold, optimizer, NUM_TRAIN, num_steps=num_steps).learn()


def build(root, **attributes):
    (root / "tokenizer").mkdir(parents=True, exist_ok=True)
    (root / "tokenizer" / "words.txt").write_text("a b")
    context = SavingContext(root)
    for name, value in attributes.items():
        setattr(context, name, value)
    return context


def find_best_step(context):
    """Of all evaluations, at the ends of epochs and between them."""
    at_ends = [((number + 1) * STEPS_PER_EPOCH, one) for number, one in enumerate(context.epochs)]
    return min([*at_ends, *context.evaluations], key=lambda one: (one[1]["score"], one[0]))[0]


def test_a_fold_ends_when_patience_is_over_and_no_earlier(tmp_path):
    whole, patient = build(tmp_path / "whole"), build(tmp_path / "patient")
    train(whole)
    train(patient, patience=2)
    scores = [one["score"] for one in whole.epochs]
    ended = [one["score"] for one in patient.epochs]
    assert len(ended) < EPOCHS
    assert ended == scores[: len(ended)]
    assert patient.ended == [(len(ended) * STEPS_PER_EPOCH, "patience")]
    assert len(ended) - 1 - (find_best_step(patient) - 1) // STEPS_PER_EPOCH == 2
    last = patient.rows[-1][1]
    assert (last["training_completed"], last["total_epochs"]) == (1, len(ended))
    assert whole.ended == []


def test_a_fold_ends_after_the_epoch_at_whose_end_its_time_is_up(tmp_path):
    context = build(tmp_path / "place", time_is_up_at=3 * STEPS_PER_EPOCH - 2)
    train(context)
    assert len(context.epochs) == 3
    assert context.ended == [(3 * STEPS_PER_EPOCH, "budget")]
    assert context.descriptions["final"]["epoch"] == 2
    assert set(context.predictions) == {("best", "validation"), ("final", "validation")}


def test_a_training_by_steps_ends_at_an_evaluation(tmp_path):
    by_time, by_patience = build(tmp_path / "time", time_is_up_at=12), build(tmp_path / "patience")
    train(by_time, num_steps=60)
    assert by_time.ended == [(15, "budget")]
    assert [step for step, _ in by_time.evaluations] == [5, 10, 15]
    assert len(by_time.steps) == 15
    train(by_patience, num_steps=200, patience=3)
    steps = [step for step, _ in by_patience.evaluations]
    assert by_patience.ended == [(steps[-1], "patience")]
    assert steps[-1] - find_best_step(by_patience) == 3 * 5


@pytest.mark.parametrize("how", [{"patience": 2}, {"time_is_up_at": 14}, {"time_is_up_at": 14, "num_steps": 60}])
def test_killed_at_any_point_it_ends_at_the_same_step_with_the_same_bits(tmp_path, how):
    options = {name: value for name, value in how.items() if name != "time_is_up_at"}
    attributes = {"time_is_up_at": how.get("time_is_up_at")}
    whole = build(tmp_path / "whole", **attributes)
    train(whole, **options)
    assert whole.num_points > 4
    for number in range(1, whole.num_points + 1):
        killed = build(tmp_path / f"killed{number}", kill_at_point=number, **attributes)
        with pytest.raises(KilledError):
            train(killed, **options)
        torch.manual_seed(77)
        resumed = build(killed.root, **attributes)
        resumed.resume_from = killed.stopped_with
        train(resumed, **options)
        assert killed.steps + resumed.steps == whole.steps
        assert (killed.ended + resumed.ended)[-1:] == whole.ended
        assert resumed.rows[-1] == whole.rows[-1]
        for name in ("best", "final"):
            assert (resumed.root / name).read_bytes() == (whole.root / name).read_bytes()
