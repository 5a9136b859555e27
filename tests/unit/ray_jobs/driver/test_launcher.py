"""What an interrupt does while folds train."""

from __future__ import annotations

import io
import signal
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from ray.exceptions import ActorDiedError, RayTaskError, WorkerCrashedError

from ray_jobs.cli.console import RunConsole
from ray_jobs.cluster.heartbeat import Heartbeat
from ray_jobs.cluster.placement import ClusterResources, Placement
from ray_jobs.cluster.signals import Interrupts, listening
from ray_jobs.cluster.start import Connection
from ray_jobs.config.recipes import RECIPES
from ray_jobs.driver.coordinator import Coordination
from ray_jobs.driver.failures import MAX_DEATHS, Cause, Failure
from ray_jobs.driver.launcher import FoldLauncher, MemberFold
from ray_jobs.errors import ClusterLostError
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.events import FoldCompleted, FoldFailed, FoldLaunched, FoldStarted
from ray_jobs.runs.json_files.status import FoldState, FoldStatus, write_status


@pytest.fixture
def launcher(tmp_path):
    """Of a cluster of the driver's own, at an address where nobody answers."""
    cluster = Connection(
        ClusterResources(2, 0, ()), None, asks_for_token=True, is_own=True, heartbeat=Heartbeat("127.0.0.1:9", 3.0)
    )
    config = RECIPES["clip_multimodal_small"]()
    placement = Placement(1, 1, 1, 0, 0, 1, 1, 1)
    return FoldLauncher(RunFolder(tmp_path), config, {}, placement, None, cluster, Interrupts())


def test_nobody_waits_for_folds_of_a_cluster_that_was_ended_with_the_driver(launcher):
    write_status(launcher.folder, FoldStatus(0, FoldState.TRAINING, 1))
    began = time.monotonic()
    with pytest.raises(ClusterLostError, match="is gone"):
        launcher._let_folds_save({MemberFold(launcher.folder, 0): threading.Event()})
    assert time.monotonic() - began < 5


def test_a_coordinator_that_is_killed_for_ever_ends_the_run_with_the_reason(launcher, monkeypatch):
    def run_fold(*_):
        raise ActorDiedError

    monkeypatch.setattr(launcher, "_run_fold", run_fold)
    monkeypatch.setattr(launcher, "_wait_for", lambda ended, *_: [end.wait() for end in ended.values()])
    launcher.cluster.heartbeat.confirm = lambda: None
    with pytest.raises(ClusterLostError, match=r"coordinator has died 101 times, last of: The actor died"):
        launcher.train([MemberFold(launcher.folder, 0)], RunConsole(io.StringIO()), nullcontext())


@pytest.mark.parametrize("cause", [Cause.DIED, Cause.STALLED])
def test_only_deaths_without_a_step_gained_count_towards_the_end_of_a_fold(launcher, monkeypatch, cause):
    """A long run on nodes that are taken away loses each fold many times."""
    gains, attempts = [0, *[5] * 9, *[0] * 99], []

    def run_attempt(fold, attempt, num_workers):
        attempts.append(attempt)
        step = sum(gains[: len(attempts)])
        write_status(launcher.folder, FoldStatus(0, FoldState.FAILED, attempt, first_step=step))
        return FoldFailed(0, attempt, "it died"), Failure(cause, "it died")

    monkeypatch.setattr(launcher, "_run_attempt", run_attempt)
    launcher._run_fold(MemberFold(launcher.folder, 0), RunConsole(io.StringIO()))
    assert attempts == list(range(1, 10 + MAX_DEATHS + 1))


@pytest.mark.parametrize("failure", [None, Failure(Cause.ERROR, "an error of the trainer")])
def test_a_fold_that_is_done_or_fails_by_itself_is_not_tried_again(launcher, monkeypatch, failure):
    attempts = []

    def run_attempt(fold, attempt, num_workers):
        attempts.append(attempt)
        return FoldCompleted(0, attempt), failure

    monkeypatch.setattr(launcher, "_run_attempt", run_attempt)
    launcher._run_fold(MemberFold(launcher.folder, 0), RunConsole(io.StringIO()))
    assert attempts == [1]


def test_a_fold_whose_process_dies_after_its_manifest_is_completed_and_not_trained_again(launcher, monkeypatch):
    told = []

    def fit(fold, *_):
        fold.folder.fold(0).write_manifest()
        raise WorkerCrashedError

    launcher.coordinator = SimpleNamespace(apply=SimpleNamespace(remote=lambda _, event: told.append(type(event))))
    launcher.trainers = {launcher.folder.root: RECIPES["clip_multimodal_small"]().trainer}
    monkeypatch.setattr(launcher, "_fit", fit)
    monkeypatch.setattr("ray.get", lambda reference: None)
    launcher._run_fold(MemberFold(launcher.folder, 0), RunConsole(io.StringIO()))
    assert told == [FoldLaunched, FoldCompleted]


@pytest.mark.parametrize(("needs", "asked"), [(0.25, [0.25]), (0.5, [0.25, 1.0]), (2.0, [0.25, 1.0])])
def test_a_fold_that_fills_its_share_of_a_gpu_is_tried_once_more_with_a_whole_one(launcher, monkeypatch, needs, asked):
    given, told = [], []

    def run(name, task, placement):
        def end():
            given.append((placement.gpus_per_worker, task["gpus"]))  # what it reserves, and what it is told
            if needs > task["gpus"]:
                full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
                raise RayTaskError("train_fold", "Traceback ...", full).as_instanceof_cause()
            launcher.folder.fold(0).write_manifest()

        return end

    launcher.placement = replace(launcher.placement, gpus_per_worker=0.25)
    launcher.coordinator = SimpleNamespace(apply=SimpleNamespace(remote=lambda _, event: told.append(type(event))))
    launcher.trainers = {launcher.folder.root: RECIPES["clip_multimodal_small"]().trainer}
    monkeypatch.setattr("ray_jobs.driver.launcher.run_as_task", run)
    monkeypatch.setattr("ray.get", lambda reference: reference() if callable(reference) else None)
    screen = io.StringIO()
    launcher._run_fold(MemberFold(launcher.folder, 0), RunConsole(screen))
    assert given == [(share, share) for share in asked]
    assert told[-1] == (FoldFailed if needs > 1 else FoldCompleted)
    assert ("with a GPU of its own" in screen.getvalue().replace("\n", " ")) == (len(asked) > 1)


def test_an_interrupt_waits_until_every_fold_has_saved(launcher, monkeypatch):
    """Whichever the main thread waits for when the signal arrives."""
    folds, begun = [MemberFold(launcher.folder, number) for number in range(2)], threading.Barrier(3)

    def run_fold(fold, _):
        write_status(fold.folder, FoldStatus(fold.fold, FoldState.TRAINING, 1))
        begun.wait(10)
        while not launcher.folder.stop_request.exists():
            time.sleep(0.01)
        time.sleep(0.3 * (2 - fold.fold))
        write_status(fold.folder, FoldStatus(fold.fold, FoldState.INTERRUPTED, 1))

    def interrupt():
        begun.wait(10)
        time.sleep(0.2)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    monkeypatch.setattr(launcher, "_run_fold", run_fold)
    launcher.placement = replace(launcher.placement, folds_at_once=2)
    launcher.cluster.heartbeat.check = launcher.cluster.heartbeat.confirm = lambda: None
    threading.Thread(target=interrupt).start()
    with listening() as launcher.interrupts, pytest.raises(KeyboardInterrupt):
        launcher.train(folds, RunConsole(io.StringIO()), _Blind())
    assert [fold.read_status().state for fold in folds] == [FoldState.INTERRUPTED] * 2


class _Blind:
    """A watcher that shows nothing."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self):
        pass


def test_after_an_interrupt_no_attempt_that_goes_with_the_driver_is_said_to_train(launcher, monkeypatch):
    """Of two folds: one has ended and its thread has not told so, one has just begun and nobody has heard of it."""
    folds = [MemberFold(launcher.folder, number) for number in range(2)]
    asked, ended, waits = [], threading.Event(), threading.Event()
    ended.set()
    write_status(launcher.folder, FoldStatus(0, FoldState.TRAINING, 1))
    state = Coordination(launcher.folder, 2)
    state.apply(FoldLaunched(1, 3, 1, 1))
    monkeypatch.setattr("ray.get", lambda answers, timeout: asked.append(len(answers)))
    launcher.cluster.heartbeat.confirm = lambda: None
    launcher.coordinator = SimpleNamespace(apply=SimpleNamespace(remote=lambda member, event: state.apply(event)))
    launcher.running = {folds[0]: 1, folds[1]: 3}
    launcher._let_folds_save(dict(zip(folds, (ended, waits), strict=True)))
    state.apply(FoldStarted(1, 3))  # its process may live a little longer
    assert [fold.read_status().state for fold in folds] == [FoldState.INTERRUPTED] * 2
    assert asked == [2]
    launcher.running = {}  # how each has ended is written: nothing is told
    launcher._let_folds_save({folds[0]: ended})
    assert asked == [2]
