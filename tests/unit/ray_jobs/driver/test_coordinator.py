"""The coordination state: events in, status files and `ensemble/` metrics out."""

from types import SimpleNamespace

import pytest

from ray_jobs.driver.coordinator import Coordination
from ray_jobs.driver.kfold import _await_rows
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.events import (
    EpochReported,
    FoldCompleted,
    FoldFailed,
    FoldLaunched,
    FoldResized,
    FoldStarted,
    FoldStopped,
    RunStarted,
)
from ray_jobs.runs.json_files.status import FoldState, last_attempt, list_workers, read_status
from ray_jobs.runs.record import read_lines

SIZES = ((0, 4, 2), (1, 4, 2))


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


def epoch(fold, number, score, attempt=1):
    metrics = {"score": score, "train/loss_epoch": 1.0, "val/loss_epoch": 2.0}
    return EpochReported(fold, attempt, number, 5, 10 * (number + 1), metrics)


def run_fold(state, folder, fold, attempt=1):
    for event in (FoldLaunched(fold, attempt, 1, 1), FoldStarted(fold, attempt), epoch(fold, 0, 0.5, attempt)):
        state.apply(event)
    folder.fold(fold).write_manifest()
    state.apply(FoldCompleted(fold, attempt))


def test_a_whole_run_records_every_coordination_metric_once(folder):
    state = Coordination(folder, 2)
    state.apply(RunStarted(6, 0, 2, SIZES))
    run_fold(state, folder, 0)
    assert "ensemble/all_folds_completed" not in {n for row in read_lines(state.record.path) for n in row}
    run_fold(state, folder, 1)
    rows = read_lines(state.record.path)
    names = [name for row in rows for name in row if name.startswith("ensemble/")]
    assert len(names) == len(set(names))
    per_fold = {f"ensemble/fold_{f}{s}" for f in (0, 1) for s in ("_start", "_train_size", "_val_size", "_completed")}
    assert set(names) == per_fold | {
        "ensemble/total_samples", "ensemble/n_folds", "ensemble/n_gpus", "ensemble/world_size",
        "ensemble/all_folds_completed", "ensemble/ready_for_ensemble", "ensemble/fold_info",
    }  # fmt: skip
    assert rows[-1]["ensemble/fold_info"] == {
        "columns": ["fold", "train_size", "val_size"],
        "data": [[0, 4, 2], [1, 4, 2]],
    }


def test_status_follows_the_events_and_remembers_the_best_epoch(folder):
    state = Coordination(folder, 2)
    for event in (FoldLaunched(0, 1, 1, 1), FoldStarted(0, 1), epoch(0, 0, 0.9), epoch(0, 1, 0.4), epoch(0, 2, 0.6)):
        state.apply(event)
    status = read_status(folder, 0)
    assert (status.state, status.epoch, status.score) == (FoldState.TRAINING, 3, 0.6)
    assert (status.best_score, status.best_epoch) == (0.4, 1)


def test_a_restarted_coordinator_knows_what_the_first_one_knew(folder):
    first = Coordination(folder, 2)
    first.apply(RunStarted(6, 0, 2, SIZES))
    run_fold(first, folder, 0)
    second = Coordination(folder, 2)
    second.apply(RunStarted(6, 0, 2, SIZES))
    run_fold(second, folder, 1)
    assert second.folds[0] == first.folds[0]
    rows = read_lines(second.record.path)
    assert [row["step"] for row in rows] == list(range(len(rows)))
    assert sum("ensemble/total_samples" in row for row in rows) == 1
    assert rows[-1]["ensemble/ready_for_ensemble"] == 1


def test_a_late_word_of_an_earlier_attempt_is_ignored(folder):
    state = Coordination(folder, 1)
    for event in (FoldLaunched(0, 1, 1, 1), FoldStarted(0, 1), FoldLaunched(0, 2, 1, 1), FoldStarted(0, 2)):
        state.apply(event)
    state.apply(FoldFailed(0, 1, "the survivor of attempt 1"))
    assert read_status(folder, 0).state == FoldState.TRAINING
    assert last_attempt(folder, 0) == 2


def test_words_of_the_driver_and_of_workers_count_in_whatever_order_they_come(folder):
    """Calls of one caller are in their order, those of several are not."""
    state = Coordination(folder, 1)
    for event in (FoldLaunched(0, 1, 1, 1), FoldFailed(0, 1, "it died"), FoldStarted(0, 1)):
        state.apply(event)
    assert (read_status(folder, 0).state, read_status(folder, 0).error) == (FoldState.FAILED, "it died")
    assert not any("ensemble/fold_0_start" in row for row in read_lines(folder.ensemble_record))
    for event in (FoldStarted(0, 2, step=7), epoch(0, 0, 0.5, 2), FoldLaunched(0, 2, 3, 1)):
        state.apply(event)
    status = read_status(folder, 0)
    assert (status.state, status.attempt, status.num_workers, status.score) == (FoldState.TRAINING, 2, 3, 0.5)
    assert (status.error, status.pace) == (None, (status.pace[0], 10))
    assert list_workers(folder, 0) == [1, 3]
    for event in (FoldStopped(0, 2), FoldStarted(0, 2), FoldFailed(0, 2, "it ended with its driver")):
        state.apply(event)
    assert (read_status(folder, 0).state, read_status(folder, 0).error) == (FoldState.INTERRUPTED, None)
    folder.fold(0).write_manifest()
    for event in (FoldCompleted(0, 2), FoldStopped(0, 2)):
        state.apply(event)
    assert read_status(folder, 0).state == FoldState.COMPLETED


@pytest.mark.parametrize("through", ["run started", "no run"])
def test_a_fold_whose_driver_was_killed_after_its_manifest_is_completed_by_the_next(folder, through):
    first = Coordination(folder, 2)
    first.apply(RunStarted(6, 0, 2, SIZES))
    run_fold(first, folder, 0)
    for event in (FoldLaunched(1, 1, 1, 1), FoldStarted(1, 1), epoch(1, 0, 0.5)):
        first.apply(event)
    folder.fold(1).write_manifest()  # and here the driver dies
    second = Coordination(folder, 2)
    second.apply(RunStarted(6, 0, 2, SIZES)) if through == "run started" else second.fail_unfinished_attempts()
    assert read_status(folder, 1).state == FoldState.COMPLETED
    rows = read_lines(second.record.path)
    for name in ("ensemble/fold_0_completed", "ensemble/fold_1_completed", "ensemble/all_folds_completed"):
        assert sum(name in row for row in rows) == 1


def test_a_fold_that_has_to_go_on_in_another_attempt_starts_and_completes_once_in_the_record(folder):
    state = Coordination(folder, 1)
    for attempt in (1, 2):
        state.apply(FoldLaunched(0, attempt, 1, 1))
        state.apply(FoldStarted(0, attempt))
    run_fold(Coordination(folder, 1), folder, 0, attempt=3)
    names = [name for row in read_lines(folder.ensemble_record) for name in row]
    assert [names.count(f"ensemble/{name}") for name in ("fold_0_start", "fold_0_completed", "ready_for_ensemble")] == [
        1
    ] * 3
    folder.fold(0).manifest.unlink()  # as deleting the fold's folder does
    run_fold(Coordination(folder, 1), folder, 0, attempt=4)
    names = [name for row in read_lines(folder.ensemble_record) for name in row]
    assert [names.count(f"ensemble/{name}") for name in ("fold_0_start", "fold_0_completed", "ready_for_ensemble")] == [
        2
    ] * 3


def test_an_event_that_ray_repeats_after_a_restart_of_the_actor_counts_once(folder):
    first = Coordination(folder, 1)
    run_fold(first, folder, 0)
    second = Coordination(folder, 1)
    second.apply(FoldCompleted(0, 1))
    assert [row["event"] for row in read_lines(folder.events)].count("FoldCompleted") == 1
    assert sum("ensemble/fold_0_completed" in row for row in read_lines(second.record.path)) == 1


def test_the_workers_of_the_attempts_that_trained_a_fold_as_it_is_are_listed(folder):
    state = Coordination(folder, 1)
    for attempt, (workers, step) in enumerate([(4, 0), (2, 7), (1, 0), (3, 5), (2, None)], start=1):  # 3 began anew
        state.apply(FoldLaunched(0, attempt, workers, 1))
        if step is not None:  # the last one died before it had begun
            state.apply(FoldStarted(0, attempt, step=step))
    assert list_workers(folder, 0) == [1, 3]
    assert state.folds[0].num_workers == 2
    state.apply(FoldResized(0, 5))
    assert read_status(folder, 0).state == FoldState.WAITING


def test_a_score_that_is_not_finite_is_never_best(folder):
    state = Coordination(folder, 1)
    for event in (FoldLaunched(0, 1, 1, 1), FoldStarted(0, 1), epoch(0, 0, float("nan")), epoch(0, 1, 0.4)):
        state.apply(event)
    assert (read_status(folder, 0).best_score, read_status(folder, 0).best_epoch) == (0.4, 1)


def test_a_failure_keeps_its_error_and_a_completed_fold_needs_its_files(folder):
    state = Coordination(folder, 2)
    state.apply(FoldLaunched(0, 1, 1, 1))
    state.apply(FoldFailed(0, 1, "out of memory"))
    assert read_status(folder, 0).error == "out of memory"
    run_fold(state, folder, 1)
    folder.fold(1).manifest.unlink()
    assert read_status(folder, 1).state == FoldState.WAITING


def test_a_fold_that_an_interrupted_driver_left_in_training_waits_when_the_next_driver_begins(folder):
    first = Coordination(folder, 2)
    for event in (RunStarted(6, 0, 2, SIZES), FoldLaunched(1, 1, 1, 1), FoldStarted(1, 1)):
        first.apply(event)
    second = Coordination(folder, 2)
    second.apply(RunStarted(6, 0, 2, SIZES))
    status = read_status(folder, 1)
    assert (status.state, status.attempt, status.train_size) == (FoldState.WAITING, 1, 4)


def test_the_precision_is_what_the_first_fold_has_found_also_for_a_later_driver(folder):
    first = Coordination(folder, 2)
    assert [first.choose_precision(found) for found in ("fp32", "bf16")] == ["fp32", "fp32"]
    run_fold(first, folder, 0)
    assert Coordination(folder, 2).choose_precision("fp16") == "fp32"
    assert [row["precision"] for row in read_lines(folder.events) if row["event"] == "PrecisionChosen"] == ["fp32"]


def test_a_run_waits_for_rows_that_the_storage_did_not_take(folder, monkeypatch):
    state, tries = Coordination(folder, 2), []
    coordinator = SimpleNamespace(flush=SimpleNamespace(remote=lambda: tries.append(state.flush()) or tries[-1]))
    monkeypatch.setattr("ray.get", lambda answer: answer)
    monkeypatch.setattr("ray_jobs.driver.kfold._FLUSH_INTERVAL_S", 0.01)
    check, state.storage.check = state.storage.check, lambda: (_ for _ in ()).throw(OSError(28, "No space left"))
    run_fold(state, folder, 0)
    _await_rows(coordinator, 0.05)
    assert not any(tries)
    assert not folder.ensemble_record.exists() or not read_lines(folder.ensemble_record)
    state.storage.check = lambda: (len(tries) < 9 and (_ for _ in ()).throw(OSError(28, "No space left"))) or check()
    tries.clear()
    _await_rows(coordinator, 60.0)
    assert tries == [False] * 9 + [True]
    assert any("ensemble/fold_0_completed" in row for row in read_lines(folder.ensemble_record))
