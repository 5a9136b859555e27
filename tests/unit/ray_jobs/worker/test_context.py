"""What a fold's context refuses to go on with, and what it tells."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.local_context import LocalFoldContext

from ensemble.kinds import load_kind
from ray_jobs.config.run import CheckpointConfig, TrackingConfig
from ray_jobs.driver.failures import explain_failure
from ray_jobs.errors import FoldStoppedError, LostFileError, NonFiniteLossError, RunError, SupersededError
from ray_jobs.reporting import live_table
from ray_jobs.runs.files import read_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.events import advance
from ray_jobs.runs.json_files.requests import StopWhen, request_leave, request_stop
from ray_jobs.runs.json_files.status import FoldState, FoldStatus, write_status
from ray_jobs.runs.record import read_lines
from ray_jobs.runs.remote.no_mirror import NoMirror
from ray_jobs.tracking.journal import FoldJournal
from ray_jobs.worker.context import RayFoldContext
from ray_jobs.worker.resume import is_as_it_was
from ray_jobs.worker.watchdog import Watchdog
from trainers.interface import FoldContext, Progress, ResumePoint
from trainers.learning import arithmetic
from trainers.predictions import Predictions
from trainers.storage.whole_files import write_whole


@pytest.fixture
def context(tmp_path):
    """One worker, 4 steps an epoch; its record is not opened, since nothing is trained."""
    folder = RunFolder(tmp_path)
    return RayFoldContext(
        folder, 0, 1, rank=0, world_size=1, device="cpu", num_threads=1,
        kind=load_kind("number"),
        tracking=TrackingConfig(log_interval=100), checkpoint=CheckpointConfig(),
        watchdog=Watchdog(folder, 0, 1, 0, None),
        loss_advice="lower optimizer.lr",
    )  # fmt: skip


@pytest.mark.parametrize("kind", [RayFoldContext, LocalFoldContext])
def test_it_offers_what_the_interface_says(kind):
    for name, method in inspect.getmembers(FoldContext, inspect.isfunction):
        if not name.startswith("_"):
            assert list(inspect.signature(getattr(kind, name)).parameters) == list(
                inspect.signature(method).parameters
            ), name


def train(context, losses):
    for step, loss in enumerate(losses, start=1):
        context.log_step(step, {"train/loss_step": torch.tensor(loss), "learning_rate": float("nan")})
        epoch, batch = divmod(step - 1, 4)
        context.report_progress(Progress(step, 12, epoch, 3, batch + 1, 4))


def test_a_loss_that_is_not_finite_ends_the_fold_within_its_epoch_and_names_step_and_batch(context):
    with pytest.raises(
        NonFiniteLossError, match=r"of step 6 \(epoch 2 of 3, batch 2 of 4\) is nan. Lower optimizer.lr"
    ):
        train(context, [1.0, 1.0, 1.0, 1.0, 1.0, float("nan"), float("inf"), float("nan"), 1.0])
    assert not context.points.exist()


def test_the_cache_is_opened_where_it_is_asked_for_and_refused_where_others_may_write(context):
    cache = context.folder.cache
    assert not cache.exists()
    assert context.cache.stat().st_mode & 0o777 == 0o700
    del context.cache
    cache.chmod(0o777)
    with pytest.raises(RunError, match="may be written to by others"):
        _ = context.cache


def test_a_rank_that_does_not_see_the_drivers_files_asks_the_object_storage_while_it_prepares(context):
    class Elsewhere(NoMirror):
        uri = "s3://lab/run"

        def hear_driver(self):
            request_stop(context.folder, StopWhen.NOW, "a driver on another machine")

    context.requests.mirror = Elsewhere()
    with pytest.raises(FoldStoppedError, match="fold 0 ends while it prepares"), context.preparing():
        context.report_preparation("encoding", 1, 2)


def test_a_point_from_before_fewer_packages_were_recorded_has_the_same_circumstances(context):
    """An unchanged environment, of which more was recorded."""
    now = context._circumstances()
    before = now | {"versions": now["versions"] | {"a-package-of-another-family": "1.0"}}
    assert is_as_it_was(before, now)
    assert not is_as_it_was(before | {"num_threads": 2}, now)
    assert not is_as_it_was(before | {"versions": before["versions"] | {"torch": "1.0"}}, now)


def test_losses_that_are_finite_go_through(context):
    train(context, [1.0] * 12)
    assert context.recording.pending == []


def test_of_a_training_with_uneven_epochs_the_batch_within_the_epoch_is_named(context):
    for step, epoch, batch, num_batches in ((1, 0, 1, 2), (2, 0, 2, 2), (3, 1, 1, 3)):
        context.log_step(step, {"train/loss_step": torch.tensor(1.0 if step < 3 else float("nan"))})
        context.report_progress(Progress(step, 5, epoch, 2, batch, num_batches))
    with pytest.raises(NonFiniteLossError, match=r"of step 3 \(epoch 2 of 2, batch 1 of 3\)"):
        context.log(3, {})


def test_of_a_training_without_epochs_the_step_alone_is_named(context):
    context.log_step(7, {"train/loss_step": torch.tensor(float("nan"))})
    context.report_progress(Progress(7, tokens=700, num_tokens=1000))
    with pytest.raises(NonFiniteLossError, match=r"of step 7 is nan"):
        context.log(7, {})


class Told:
    """A coordinator that keeps what it is told as a fold's status."""

    def __init__(self):
        self.status, self.apply = FoldStatus(0, FoldState.TRAINING, 1, started=1.0), self

    def remote(self, member, event):
        self.status = advance(self.status, event, 2.0)


@pytest.fixture
def watched(context, monkeypatch):
    """A context whose record is open, and whose coordinator is here."""
    context.recording.journal, context.recording.coordinator = FoldJournal(context.folder, 0), Told()
    context.recording.progress_interval_s = -1
    monkeypatch.setattr(context, "_report_to_train", lambda metrics: None)
    return context


class Chooses:
    """A coordinator of a run that computes in some precision."""

    def __init__(self, chosen):
        self.chosen, self.found, self.choose_precision = chosen, [], self

    def remote(self, found):
        self.found.append(found)
        return self.chosen


def test_a_fold_computes_in_the_precision_with_which_its_run_began(context, monkeypatch, caplog):
    monkeypatch.setattr(arithmetic, "_settled", [])
    monkeypatch.setattr("ray.get", lambda reference: reference)
    caplog.set_level("INFO")
    context.recording.coordinator = Chooses("bf16")
    context._settle_precision(["fp32"])
    assert context.recording.coordinator.found == ["fp32"]
    assert arithmetic.choose_precision("auto", "cpu") == torch.bfloat16
    assert "it is bf16, with which the run began; alone, this device would compute in fp32" in caplog.text


def test_ranks_on_cards_of_two_kinds_ask_for_what_both_have(context, monkeypatch):
    monkeypatch.setattr(arithmetic, "_settled", [])
    monkeypatch.setattr("ray.get", lambda reference: reference)
    context.recording.coordinator = Chooses("fp16")
    context._settle_precision(["bf16", "fp16"])
    assert context.recording.coordinator.found == ["fp16"]


def test_the_best_of_evaluations_is_known_by_its_step_and_counts_anew_in_another_stage(watched):
    told = watched.recording.coordinator
    watched.begin_stage("sft")
    for step, score in ((5, 0.5), (10, 0.4), (15, 0.6)):
        watched.log_step(step, {"train/loss_step": torch.tensor(score)})
        watched.report_progress(Progress(step, 30, tokens=step * 1000, num_tokens=30_000))
        watched.report_evaluation(step, {"val/loss_epoch": score, "score": score})
    assert (told.status.best_score, told.status.best_epoch, told.status.best_step) == (0.4, None, 10)
    assert watched.best == (0.4, None, 10)
    assert (told.status.val_loss, told.status.train_loss) == (0.6, None)
    line = live_table._line("fold 0", replace(told.status, finished=4.0))
    assert line.startswith(
        "fold 0 sft: step 15k/30k tokens, val loss 0.6000, score 0.6000, best 0.4000 @ step 10, 0:03"
    )
    watched.begin_stage("grpo")
    assert (watched.best, told.status.best_score, told.status.score) == (None, None, None)
    watched.report_evaluation(20, {"reward": 0.9, "score": -0.9})
    watched.begin_stage("")
    assert (told.status.stage, told.status.best_score, watched.best) == ("", -0.9, (-0.9, None, 20))
    watched.log(20, {"training_completed": 1})
    rows = [set(row) for row in read_lines(watched.folder.fold_record(0))]
    assert {"fold_0/sft/train/loss_step"} < rows[0]
    assert {"fold_0/sft/val/loss_epoch", "fold_0/score"} < rows[1]
    assert {"fold_0/grpo/reward", "fold_0/score"} < rows[-2]
    assert {"fold_0/training_completed"} < rows[-1]


def test_epochs_are_shown_where_there_are_some_and_evaluations_between_them_count(watched):
    told = watched.recording.coordinator
    for step in range(1, 5):
        epoch, batch = divmod(step - 1, 2)
        watched.log_step(step, {"train/loss_step": torch.tensor(1.0)})
        watched.report_progress(Progress(step, 4, epoch, 2, batch + 1, 2))
        if step == 3:
            watched.report_evaluation(step, {"score": 0.1})
            assert not watched.is_epoch_over
        if batch == 1:
            watched.report_epoch(
                epoch, 2, step, {"train/loss_epoch": 1.0, "val/loss_epoch": 2.0, "score": 0.5 - epoch / 10}
            )
            assert watched.is_epoch_over
    assert (told.status.epoch, told.status.num_epochs, told.status.best_score) == (2, 2, 0.1)
    assert (told.status.best_step, told.status.best_epoch) == (3, None)
    line = live_table._line("fold 0", replace(told.status, finished=4.0))
    assert line.startswith(
        "fold 0 training: epoch 2/2, train loss 1.0000, val loss 2.0000, score 0.4000, best 0.1000 @ step 3,"
    )


def test_an_attempt_writes_nothing_more_once_a_later_one_has_begun(watched, tmp_path):
    """It may have survived on a node that only seemed to be gone."""
    numbers, tensors = np.ones(2), {"weight": torch.ones(2)}
    predictions = Predictions(np.array(["a", "b"]), numbers, numbers, numbers)
    write_status(watched.folder, FoldStatus(0, FoldState.TRAINING, attempt=2))
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    for write in (
        lambda: watched.save_checkpoint("best", tensors, {}),
        lambda: watched.share_tensors("frozen", tensors),
        lambda: watched.save_predictions("best", "test", predictions.ids, [predictions]),
        watched.finish,
    ):
        with pytest.raises(SupersededError, match="attempt 2 of fold 0 has begun; attempt 1 stops"):
            write()
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before


class Cleaned(NoMirror):
    """An object storage that has a copy of a file, which a cleaner takes from this machine once all is put."""

    def __init__(self, find, has_copy):
        self.find, self.has_copy, self.taken = find, has_copy, None

    def push_end(self):
        path = self.find()
        self.taken = path, path.read_bytes()
        path.unlink()

    def bring_back(self):
        if self.taken and self.has_copy:
            write_whole(*self.taken)


@pytest.mark.parametrize("has_copy", [True, False])
@pytest.mark.parametrize("name", ["checkpoints/best/checkpoint.json", "checkpoints/best/model-*", "predictions/test_*"])
def test_a_fold_is_not_complete_without_a_file_that_it_has_saved(watched, name, has_copy):
    numbers, files = np.ones(2), watched.files
    predictions = Predictions(np.array(["a", "b"]), numbers, numbers, numbers)
    watched.mirror = Cleaned(lambda: next(files.root.glob(name)), has_copy)
    watched.save_checkpoint("best", {"weight": torch.ones(2)}, {})
    watched.save_predictions("best", "test", predictions.ids, [predictions])
    if has_copy:
        watched.finish()
        assert files.is_complete()
        assert str(watched.mirror.taken[0].relative_to(files.root)) in read_json(files.manifest)["files"]
        return
    with pytest.raises(LostFileError, match=r"somebody has removed .*, which the fold had saved") as caught:
        watched.finish()
    assert explain_failure(caught.value).may_be_retried(1)
    assert not files.manifest.exists()


def test_an_attempt_leaves_a_fold_that_is_complete_as_it_is(watched):
    """The attempt before was taken for dead, and has finished the fold meanwhile."""
    watched.save_checkpoint("best", {"weight": torch.ones(2)}, {})
    watched.finish()
    with pytest.raises(FoldStoppedError, match="fold 0 is complete"):
        watched.start()
    assert watched.files.is_complete()


@pytest.mark.parametrize(("put_s", "interval_s"), [(0.0, 1000.0), (100.0, 1.0)])
def test_of_short_epochs_not_each_leaves_a_point_but_one_that_was_asked_for_does(watched, put_s, interval_s):
    """Points for object storage take a tenth of the time at most."""
    watched.checkpoint = CheckpointConfig(min_interval_s=interval_s, every_steps=7)

    def find_step():
        watched.points.wait()
        watched.put_s = put_s
        return watched.points.find_newest().description["global_step"]

    found = []
    for epoch, step in enumerate((2, 4, 6)):
        watched.report_epoch(epoch, 9, step, {"score": 1.0})
        watched.save_resume_point(ResumePoint({}, {}, {}), step)
        found.append(find_step())
    watched.log_step(7, {"train/loss_step": torch.tensor(1.0)})
    assert watched.is_resume_point_due(7)
    watched.save_resume_point(ResumePoint({}, {}, {}), 7)
    found.append(find_step())
    watched.report_epoch(8, 9, 18, {"score": 1.0})
    watched.save_resume_point(ResumePoint({}, {}, {}), 18)
    assert [*found, find_step()] == [2, 2, 2, 7, 18]


def test_of_a_preparation_the_beginning_and_the_end_are_told_and_between_them_no_more_than_now_and_then(watched):
    told, apply = [], watched.recording.coordinator.remote
    watched.recording.progress_interval_s, watched.recording.last_progress = 60.0, float("-inf")
    watched.recording.coordinator.remote = lambda member, event: told.append(event.done) or apply(member, event)
    for done in range(1, 8):
        watched.report_preparation("encoding", done, 7)
    assert told == [1, 7]
    assert watched.recording.coordinator.status.preparation == ("encoding", 7, 7)


def test_a_fold_that_prepares_ends_only_where_it_is_asked_to_leave_or_the_run_is_to_stop_at_once(context):
    request_leave(context.files, 9)  # of another attempt
    context.report_preparation("encoding", 1, 2)
    request_stop(context.folder, StopWhen.EPOCH, "somebody")
    context.report_preparation("encoding", 1, 2)
    request_leave(context.files, 1)
    with pytest.raises(FoldStoppedError, match=r"fold 0 was asked to end while it prepares \(encoding\)"):
        context.report_preparation("encoding", 1, 2)
    request_stop(context.folder, StopWhen.NOW, "somebody")
    with pytest.raises(FoldStoppedError, match=r"the run was asked to stop: fold 0 ends while it prepares"):
        context.report_preparation("encoding", 1, 2)
