"""Trains the folds of a run: each as a TorchTrainer of its own (`fold_task.py`), as many at once as the placement says.
Of elastic folds `elastic.py` says how many, and with how many workers."""

from __future__ import annotations

import contextlib
import math
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ray_jobs.cli.console import LineConsole
from ray_jobs.cluster.autoscaler import WaitReport
from ray_jobs.cluster.placement import Placement
from ray_jobs.cluster.signals import Interrupts, find_save_time_s
from ray_jobs.cluster.start import Connection
from ray_jobs.cluster.versions import list_packages, package_versions
from ray_jobs.config.run import MAIN, RunConfig
from ray_jobs.driver.coordinator import MAX_RESTARTS
from ray_jobs.driver.elastic import LAUNCH_TIMEOUT_S, ElasticWorkers, WorkerSlots
from ray_jobs.driver.failures import Cause, Failure, explain_failure
from ray_jobs.driver.fold_task import fit_with_workers, run_as_task
from ray_jobs.driver.watches import DrainWatch, FrozenWatch
from ray_jobs.errors import ClusterLostError, NoRoomError, RunBusyError
from ray_jobs.reporting.live_table import FoldWatcher
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.events import Event, FoldCompleted, FoldFailed, FoldLaunched, FoldResized, FoldStopped
from ray_jobs.runs.json_files.requests import StopWhen, read_stop_request, request_leave, request_stop
from ray_jobs.runs.json_files.status import FoldState, FoldStatus, find_budget_end, last_attempt, read_status
from ray_jobs.runs.outages import Storage, StorageProbe
from ray_jobs.runs.remote.no_mirror import NO_MIRROR, NoMirror
from ray_jobs.runs.remote.run_mirror import RunMirror
from ray_jobs.worker.watchdog import keep_stacks

Outcome = FoldCompleted | FoldStopped | FoldResized | FoldFailed
WATCH_INTERVAL_S = 0.5
_PROGRESS_CALLS_PER_S = 3.0  # that the coordinator is to bear, of all folds
JOIN_S = 2.0  # a cluster that is gone does not answer


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

    def read_status(self) -> FoldStatus:
        """How far it is."""
        return read_status(self.folder, self.fold)

    def request_leave(self, attempt: int) -> None:
        """Asks its workers to save where they are and end."""
        request_leave(self.folder.fold(self.fold), attempt)

    @property
    def name_parts(self) -> list[str]:
        """Parts of the name that Ray's dashboard shows."""
        member = [] if self.folder.member == MAIN else [self.folder.member]
        return [*member, f"fold{self.fold}"]


class FoldLauncher:
    """Launches folds and waits for them.

    Args:
        folder: the run's own.
        config: the run's: its name, by which Ray's dashboard shows the folds, how long a fold may stand still, how long
            the storage may be away when a fold has ended, and how often a fold may be resized.
        trainers: the family's own config of each member, by its folder.
        placement: resources of a worker, folds at once.
        coordinator: handle of the coordination actor.
        cluster: where they train.
        interrupts: the driver's.
        mirror: of the run.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: RunConfig,
        trainers: Mapping[Path, Any],
        placement: Placement,
        coordinator: Any,
        cluster: Connection,
        interrupts: Interrupts,
        mirror: RunMirror | NoMirror = NO_MIRROR,
    ) -> None:
        self.folder, self.run, self.resources, self.trainers = folder, config.run, config.resources, trainers
        self.placement, self.coordinator, self.cluster = placement, coordinator, cluster
        self.interrupts, self.mirror = interrupts, mirror
        self.last_step = config.folds.last_step
        self.num_folds, self.storage = config.folds.count, Storage(folder, config.checkpoint.storage_patience_s)
        self.stopped = threading.Event()
        self.elastic: ElasticWorkers | None = None
        self.drains = None if cluster.is_own else DrainWatch()
        self.budget_s: float | None = None  # for each fold
        self.running: dict[MemberFold, int] = {}  # in which attempt; until the coordinator has written how it has ended
        self.alone: set[MemberFold] = set()  # those that have a GPU of their own, where others share one
        self.frozen = FrozenWatch(config.run.stall_timeout_s)

    def train(
        self,
        folds: list[MemberFold],
        console: LineConsole,
        watcher: FoldWatcher,
        say_interrupted: Callable[[], None] = lambda: None,
    ) -> None:
        """Trains these folds, which may be of several members, until they have ended, well or not.

        Args:
            folds: what to train.
            console: where to.
            watcher: shows how they get on.
            say_interrupted: called first of all when there is an interrupt: soon after it somebody may kill the driver.
        """
        turns = threading.BoundedSemaphore(self.placement.folds_at_once)
        self.budget_s = self._share_time(len(folds))
        say = partial(console.print, style="yellow")
        if self.resources.is_elastic:
            turns, slots = threading.BoundedSemaphore(len(folds)), WorkerSlots(self.placement.worker_resources())
            self.elastic = ElasticWorkers(self.placement, self.resources, self.num_folds, say, self._is_over, slots)
            self.elastic.enrol(folds)
        failures: list[BaseException] = []
        # Not `Thread.join`: an interrupt that strikes in it makes a thread that goes on look ended (until Python 3.13).
        ended = {fold: threading.Event() for fold in folds}

        def run_in_turn(fold: MemberFold) -> None:
            with turns:
                try:
                    if not self._is_over():
                        self._run_fold(fold, console)
                except BaseException as failure:
                    failures.append(failure)
                finally:
                    if self.elastic:
                        self.elastic.forget(fold)
                    ended[fold].set()

        # Daemons: a thread that waits for Ray may wait for ever once Ray is shut down, and must not keep the driver.
        threads = [threading.Thread(target=run_in_turn, args=(fold,), name=str(fold), daemon=True) for fold in folds]
        watch = self.elastic.watch if self.elastic else None
        resizer = threading.Thread(target=watch, name="elastic workers", daemon=True)
        try:
            for thread in threads:
                thread.start()
            if self.elastic:
                resizer.start()
            with watcher:
                self._wait_for(ended, console, watcher)
        except KeyboardInterrupt:
            say_interrupted()
            self._let_folds_save(ended)
            raise
        finally:
            self.stopped.set()
            if self.elastic:
                resizer.join(JOIN_S)  # it asks Ray, and Ray ends a process that asks when it has been shut down
        if failures:
            self.cluster.heartbeat.confirm()
            if type(failures[0]).__name__ == "ActorDiedError":  # of the coordinator; of a fold's it is a failed attempt
                raise ClusterLostError(
                    f"the run's coordinator has died {MAX_RESTARTS + 1} times, last of: {str(failures[0]).strip():.500}"
                )
            raise failures[0]
        shutil.rmtree(self.folder.train_scratch, ignore_errors=True)

    def _share_time(self, num_folds: int) -> float | None:
        """The seconds that each fold may train: folds that train one after another share `run.time_budget`."""
        if self.run.time_budget_s is None:
            return None
        return self.run.time_budget_s / math.ceil(num_folds / max(1, self.placement.folds_at_once))

    def _wait_for(self, ended: dict[MemberFold, threading.Event], console: LineConsole, watcher: FoldWatcher) -> None:
        """Returns when all folds have ended; meanwhile it shows how they get on and checks that cluster and storage are
        still there."""
        say = partial(console.print, style="yellow")
        probe, waits = StorageProbe(self.folder, say), WaitReport(say)
        while living := [end for end in ended.values() if not end.is_set()]:
            watcher.update()
            self.pass_on(console)
            self.interrupts.check()
            self.cluster.heartbeat.check()
            probe.look()
            self.frozen.look(ended)
            if self.drains:
                self.drains.look(ended)
                waits.look(partial(self._find_waiting, list(ended)))
            self.mirror.check()
            living[0].wait(WATCH_INTERVAL_S)

    def pass_on(self, console: LineConsole) -> None:
        """Sends what is new on the terminal to the coordinator's log."""
        if lines := console.take_lines():
            self.coordinator.show.remote(lines)

    def _find_waiting(self, folds: list[MemberFold]) -> list[str]:
        """Folds that are to train and have no room."""
        if self.elastic:
            return self.elastic.list_waiting()
        try:
            statuses = {fold: fold.read_status() for fold in folds}
        except OSError:  # storage that is away; this is only news
            return []
        return [str(fold) for fold, one in statuses.items() if one.state == FoldState.WAITING and one.num_workers]

    def _is_over(self) -> bool:
        """Whether no further attempt is to begin."""
        return self.stopped.is_set() or read_stop_request(self.folder) is not None

    def _let_folds_save(self, ended: dict[MemberFold, threading.Event]) -> None:
        """Gives the folds in training the time to save where they are; a second interrupt cuts it short.

        Raises:
            ClusterLostError: nobody is left to save: whoever ended the driver (`timeout`, a batch system) has ended its
                own cluster, too.
        """
        time_s = find_save_time_s()
        # Where the storage takes nothing they go on from their last points.
        with contextlib.suppress(OSError, RunBusyError):
            request_stop(self.folder, StopWhen.NOW, "an interrupt")
            self.mirror.push_run()
        deadline = time.monotonic() + time_s
        while time.monotonic() < deadline and any(self._is_saving(*one) for one in ended.items()):
            if self.cluster.is_own:
                self.cluster.heartbeat.confirm()
            time.sleep(0.05)
        if self.running:
            if self.cluster.is_own:
                self.cluster.heartbeat.confirm()
            self._end_attempts()

    def _end_attempts(self) -> None:
        """Says that the attempts under way are at their end, since they go with the driver, and returns when the
        coordinator has written it."""
        import ray

        told = [self._tell(fold, FoldStopped(fold.fold, attempt)) for fold, attempt in list(self.running.items())]
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(told, timeout=JOIN_S)

    def _tell(self, fold: MemberFold, event: Event) -> Any:
        return self.coordinator.apply.remote(fold.folder.member, event)

    def _is_saving(self, fold: MemberFold, ended: threading.Event) -> bool:
        """Whether a fold may still have something to save: not while it waits for its resources."""
        try:
            return not ended.is_set() and fold.read_status().state == FoldState.TRAINING
        except OSError:  # storage that is away takes nothing
            return False

    def _run_fold(self, fold: MemberFold, console: LineConsole) -> None:
        """Attempts of one fold until it is complete or trying again makes no sense."""
        attempt, num_deaths, last_start = 0, 0, 0
        while True:
            last = last_attempt(fold.folder, fold.fold)  # or less: the storage may not have taken the last event
            attempt = max(attempt, last) + 1
            num_workers = self.elastic.take(fold) if self.elastic else self.placement.num_workers
            if num_workers is None:
                return
            ended, failure = self._run_attempt(fold, attempt, num_workers)
            if isinstance(ended, FoldResized):
                continue
            if failure is not None and failure.cause in (Cause.DIED, Cause.STALLED):
                started_at = fold.read_status().first_step
                num_deaths = 1 if started_at > last_start else num_deaths + 1  # what died before had got further
                last_start = started_at
            if failure is None or self._is_over():
                return
            if not failure.may_be_retried(num_deaths) and not self._let_train_alone(fold, failure):
                return
            alone = ", with a GPU of its own" if fold in self.alone else ""
            console.print(f"{fold}: {failure.message}; it goes on in another attempt{alone}", style="yellow")

    def _let_train_alone(self, fold: MemberFold, failure: Failure) -> bool:
        """Whether a fold that has filled its share of a GPU gets a whole one, for which it waits: once."""
        shares = 0 < self.placement.gpus_per_worker < 1 and fold not in self.alone
        if failure.cause != Cause.MEMORY or not shares:
            return False
        self.alone.add(fold)
        return True

    def _run_attempt(self, fold: MemberFold, attempt: int, num_workers: int) -> tuple[Outcome, Failure | None]:
        """One attempt of one fold, from launch to its last event. Runs in a thread: `fit` would take over SIGINT."""
        import ray

        self.running[fold] = attempt
        launched = self._tell(fold, FoldLaunched(fold.fold, attempt, num_workers, self.placement.threads_per_worker))
        if self.elastic:
            self.elastic.launch(fold, attempt)
        failure: Failure | None = None
        ended: Outcome
        try:
            try:
                if self.mirror.uri:
                    # No later driver, on whatever machine, may give the attempt's number once more.
                    ray.get(launched)
                    self.storage.retry_while_unavailable(
                        f"announcing attempt {attempt} of {fold}", self.mirror.push_run, by_name=False
                    )
                self._fit(fold, attempt, num_workers)
            finally:
                is_resized = self.elastic is not None and self.elastic.give_back(fold)
            find = partial(self._find_outcome, fold, attempt, is_resized=is_resized)
            ended = self.storage.retry_while_unavailable(f"looking how {fold} has ended", find)
            if isinstance(ended, FoldFailed):
                failure = self._explain_end(fold, attempt, ended)
        except Exception as error:  # whatever ended this fold (a controller that died, too), the others go on
            with contextlib.suppress(OSError):  # its log and last lines, for the user
                self.mirror.bring_fold(fold.folder, fold.fold)
            advice = self.trainers[fold.folder.root].ADVICE.memory
            failure = self._look_for_stall(fold, attempt, explain_failure(error, advice))
            if failure.cause == Cause.DIED and self._was_drained(fold, attempt):
                failure = Failure(Cause.PREEMPTED, "its node was taken away before it could save where it was")
            ended = FoldFailed(fold.fold, attempt, failure.message)
            with contextlib.suppress(OSError):
                if fold.folder.fold(fold.fold).is_complete():  # it has died after its last word
                    ended, failure = FoldCompleted(fold.fold, attempt), None
        if not self.stopped.is_set():  # else the driver was interrupted and Ray is gone: nothing failed
            ray.get(self._tell(fold, ended))
            self.running.pop(fold)
        return ended, failure

    def _look_for_stall(self, fold: MemberFold, attempt: int, failure: Failure) -> Failure:
        """Workers that end themselves because nothing moves leave the stacks of their threads."""
        stacks = keep_stacks(fold.folder, fold.fold, attempt)
        if failure.cause != Cause.DIED or not stacks:
            return failure
        return Failure(
            Cause.STALLED, f"made no progress for {self.run.stall_timeout_s:g} s; where it stood: {stacks[0]}"
        )

    def _was_drained(self, fold: MemberFold, attempt: int) -> bool:
        """Whether an attempt was asked to leave its node."""
        return self.drains is not None and (fold, attempt) in self.drains.asked

    def _explain_end(self, fold: MemberFold, attempt: int, ended: FoldFailed) -> Failure:
        """Why a train function has ended without an error, and not completed the fold."""
        if self._was_drained(fold, attempt):
            return Failure(Cause.PREEMPTED, "its node is being taken away, and it has saved where it is")
        return Failure(Cause.ERROR, ended.error)

    def _find_outcome(self, fold: MemberFold, attempt: int, *, is_resized: bool) -> Outcome:
        """What a train function that ended without an error has come to."""
        self.mirror.bring_fold(fold.folder, fold.fold)
        if fold.folder.fold(fold.fold).is_complete():
            return FoldCompleted(fold.fold, attempt)
        if self.folder.stop_request.exists():
            return FoldStopped(fold.fold, attempt)
        if is_resized:
            return FoldResized(fold.fold, attempt)
        return FoldFailed(fold.fold, attempt, "training ended without a manifest of its files")

    def _fit(self, fold: MemberFold, attempt: int, num_workers: int) -> None:
        """Trains until the attempt's train function has ended.

        Raises:
            Exception: what ended it otherwise, in Ray's frame; see `explain_failure`.
        """
        placement = replace(self.placement, gpus_per_worker=1.0) if fold in self.alone else self.placement
        task = {
            "folder": str(fold.folder.root),
            "uri": self.mirror.uri,
            "patience_s": self.storage.patience_s,
            "fold": fold.fold,
            "attempt": attempt,
            "num_threads": self.placement.threads_per_worker,
            "gpus": placement.gpus_per_worker,
            "progress_interval_s": max(1.0, self.placement.folds_at_once / _PROGRESS_CALLS_PER_S),
            "budget_s": self.budget_s,
            "ended_at": self.last_step or find_budget_end(fold.folder, fold.fold),
            "versions": package_versions(list_packages(self.trainers[fold.folder.root])),
        }
        if num_workers == 1:
            self._run_task(fold, f"{self.run.name}/{fold} (attempt {attempt})", task, placement)
        else:
            assert self.run.name is not None
            name = "_".join([self.run.name, *fold.name_parts, f"attempt{attempt}"])
            may_wait = not self.resources.is_elastic
            fit_with_workers(name, task, self.placement, num_workers, self.folder.train_scratch, may_wait=may_wait)

    def _run_task(self, fold: MemberFold, name: str, task: dict[str, Any], placement: Placement) -> None:
        """Trains a fold of one worker. An elastic one that finds no room in time takes what room there is in another
        attempt."""
        import ray

        running = run_as_task(name, task, placement)
        if self.elastic is not None:
            ray.wait([running], timeout=LAUNCH_TIMEOUT_S)
            if fold.read_status().state == FoldState.WAITING and not ray.wait([running], timeout=0)[0]:
                ray.cancel(running)
                with contextlib.suppress(ray.exceptions.TaskCancelledError):
                    ray.get(running)
                raise NoRoomError
        ray.get(running)
