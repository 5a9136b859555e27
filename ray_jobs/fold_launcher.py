"""Trains the folds of a run: each as a TorchTrainer of its own, as many at once as the placement says."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import Console

from ray_jobs.cluster import package_versions
from ray_jobs.config import MAIN, RunSection
from ray_jobs.connection import Heartbeat
from ray_jobs.coordinator import FoldCompleted, FoldFailed, FoldLaunched, FoldStopped, last_attempt, read_status
from ray_jobs.errors import RunBusyError
from ray_jobs.failures import Cause, Failure, explain_failure
from ray_jobs.interrupts import Interrupts
from ray_jobs.placement import Placement
from ray_jobs.run_folder import RunFolder, StopWhen, request_stop
from ray_jobs.run_mirror import RunMirror
from ray_jobs.storage import Storage, StorageProbe
from ray_jobs.terminal import Watcher
from ray_jobs.watchdog import keep_stacks

WATCH_INTERVAL_S = 0.5
STOP_WAIT_S = 2.0  # `ray job stop` kills after RAY_JOB_STOP_WAIT_TIME_S, 3 s unless set
PUT_WAIT_S = 20.0  # what the folds save has to get to an object storage


@dataclass(frozen=True)
class MemberFold:
    """A fold to train.

    Attributes:
        folder: of the member that it belongs to.
        fold: its number.
    """

    folder: RunFolder
    fold: int

    def __str__(self) -> str:
        return self.folder.describe_fold(self.fold)

    @property
    def name_parts(self) -> list[str]:
        """Parts of the name that Ray's dashboard shows."""
        member = [] if self.folder.member == MAIN else [self.folder.member]
        return [*member, f"fold{self.fold}"]


class FoldLauncher:
    """Launches folds and waits for them.

    Args:
        folder: the run's own.
        run: its name, by which Ray's dashboard shows the folds, and how long a fold may stand still.
        placement: resources of a worker, folds at once.
        storage_patience_s: how long the storage may be away when a fold has ended.
        coordinator: handle of the coordination actor.
        heartbeat: the cluster's.
        interrupts: the driver's.
        mirror: of a run on object storage.
    """

    def __init__(
        self,
        folder: RunFolder,
        run: RunSection,
        placement: Placement,
        storage_patience_s: float,
        coordinator: Any,
        heartbeat: Heartbeat,
        interrupts: Interrupts,
        mirror: RunMirror | None = None,
    ) -> None:
        self.folder, self.run, self.placement, self.coordinator = folder, run, placement, coordinator
        self.heartbeat, self.interrupts, self.mirror = heartbeat, interrupts, mirror
        self.storage = Storage(folder, storage_patience_s)
        self.stopped = threading.Event()

    def train(self, folds: list[MemberFold], console: Console, watcher: Watcher) -> None:
        """Trains these folds, which may be of several members, until they have ended, well or not."""
        turns = threading.BoundedSemaphore(self.placement.folds_at_once)
        failures: list[BaseException] = []

        def run_in_turn(fold: MemberFold) -> None:
            with turns:
                try:
                    if not self.stopped.is_set() and not self.folder.stop_request.exists():
                        self._run_fold(fold, console)
                except BaseException as failure:
                    failures.append(failure)

        # Daemons: a thread that waits for Ray may wait for ever once Ray is shut down, and must not keep the driver.
        threads = [threading.Thread(target=run_in_turn, args=(fold,), name=str(fold), daemon=True) for fold in folds]
        try:
            for thread in threads:
                thread.start()
            probe = StorageProbe(self.folder, partial(console.print, style="yellow"))
            with watcher:
                while living := [thread for thread in threads if thread.is_alive()]:
                    watcher.update()
                    self.interrupts.check()
                    self.heartbeat.check()
                    probe.look()
                    if self.mirror is not None:
                        self.mirror.lease.check()
                    living[0].join(WATCH_INTERVAL_S)
        except KeyboardInterrupt:
            self._let_folds_save(threads)
            raise
        finally:
            self.stopped.set()
        if failures:
            self.heartbeat.confirm()
            raise failures[0]
        shutil.rmtree(self.folder.train_scratch, ignore_errors=True)

    def _let_folds_save(self, threads: list[threading.Thread]) -> None:
        """Gives the folds in training the time to save where they are; a second interrupt cuts it short."""
        with contextlib.suppress(
            OSError, RunBusyError
        ):  # storage that takes nothing: they go on from their last points
            request_stop(self.folder, StopWhen.NOW, "an interrupt")
            if self.mirror is not None:
                self.mirror.push_run()
        deadline = time.monotonic() + (STOP_WAIT_S if self.mirror is None else PUT_WAIT_S)
        while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline:
            time.sleep(0.05)

    def _run_fold(self, fold: MemberFold, console: Console) -> None:
        """Attempts of one fold until it is complete or trying again makes no sense."""
        attempt, num_deaths, last_start = 0, 0, 0
        while True:
            last = last_attempt(fold.folder, fold.fold)  # or less: the storage may not have taken the last event
            attempt = max(attempt, last) + 1
            failure = self._run_attempt(fold, attempt)
            started_at = read_status(fold.folder, fold.fold).first_step
            num_deaths = 1 if started_at > last_start else num_deaths + 1  # what died before had got further
            last_start = started_at
            is_asked_to_stop = self.stopped.is_set() or self.folder.stop_request.exists()
            if failure is None or is_asked_to_stop or not failure.may_be_retried(num_deaths):
                return
            console.print(f"{fold}: {failure.message}; it goes on in another attempt", style="yellow")

    def _run_attempt(self, fold: MemberFold, attempt: int) -> Failure | None:
        """One attempt of one fold, from launch to its last event. Runs in a thread: `fit` would take over SIGINT."""
        import ray

        num_workers, num_threads = self.placement.num_workers, self.placement.threads_per_worker
        tell = partial(self.coordinator.apply.remote, fold.folder.member)
        launched = tell(FoldLaunched(fold.fold, attempt, num_workers, num_threads))
        failure = None
        try:
            if self.mirror is not None:  # no later driver, on whatever machine, may give the attempt's number once more
                ray.get(launched)
                self.storage.insist(f"announcing attempt {attempt} of {fold}", self.mirror.push_run, by_name=False)
            self._build_trainer(fold, attempt).fit()
            find = partial(self._find_outcome, fold, attempt)
            ended = self.storage.insist(f"looking how {fold} has ended", find)
        except Exception as error:  # whatever ended this fold (a controller that died, too), the others go on
            failure = self._look_for_stall(fold, attempt, explain_failure(error))
            ended = FoldFailed(fold.fold, attempt, failure.message)
        if self.stopped.is_set():  # the driver was interrupted and Ray is gone: nothing failed
            return failure
        ray.get(tell(ended))
        return failure

    def _look_for_stall(self, fold: MemberFold, attempt: int, failure: Failure) -> Failure:
        """Workers that end themselves because nothing moves leave the stacks of their threads."""
        stacks = keep_stacks(fold.folder, fold.fold, attempt)
        if failure.cause != Cause.DIED or not stacks:
            return failure
        return Failure(
            Cause.STALLED, f"made no progress for {self.run.stall_timeout_s:g} s; where it stood: {stacks[0]}"
        )

    def _find_outcome(self, fold: MemberFold, attempt: int) -> FoldCompleted | FoldStopped | FoldFailed:
        """What a train function that ended without an error has come to."""
        if self.mirror is not None:
            self.mirror.bring_fold(fold.folder, fold.fold)
        if fold.folder.fold(fold.fold).is_complete():
            return FoldCompleted(fold.fold, attempt)
        if self.folder.stop_request.exists():
            return FoldStopped(fold.fold, attempt)
        return FoldFailed(fold.fold, attempt, "training ended without a manifest of its files")

    def _build_trainer(self, fold: MemberFold, attempt: int) -> Any:
        import ray.train
        from ray.train.torch import TorchTrainer

        from ray_jobs.worker import train_worker

        task = {
            "folder": str(fold.folder.root),
            "uri": None if self.mirror is None else self.mirror.bucket.uri,
            "patience_s": self.storage.patience_s,
            "fold": fold.fold,
            "attempt": attempt,
            "num_threads": self.placement.threads_per_worker,
            "versions": package_versions(),
        }
        return TorchTrainer(
            train_worker,
            train_loop_config=task,
            scaling_config=ray.train.ScalingConfig(
                num_workers=self.placement.num_workers,
                use_gpu=self.placement.gpus_per_worker > 0,
                resources_per_worker=self.placement.worker_resources(),
            ),
            # A fresh name for each attempt: Ray would take up what an earlier one of that name left.
            run_config=ray.train.RunConfig(
                name="_".join([self.run.name, *fold.name_parts, f"attempt{attempt}", secrets.token_hex(3)]),
                storage_path=str(self.folder.train_scratch),
                failure_config=ray.train.FailureConfig(max_failures=0),
            ),
        )
