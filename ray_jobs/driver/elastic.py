"""How many workers each attempt of an elastic fold has, and when a fold is asked to begin another attempt with more or
fewer.

Folds that wait take what room there is, each at least the least and all as evenly as can be. When none waits, the fold
that gains most by the room of a fold that has ended, or of a new node, is asked to save where it is and goes on with
more. When one waits in vain, the largest is asked to make room. Whoever is nearly done, or has just begun, is left
alone.

Ray Train's own elasticity (`ScalingConfig(num_workers=(least, most))`, Ray 2.60) is not used. Measured with two
trainers of (1, 3) on three cores that started together: one took all three workers, the other none until the first had
ended, 55 s later. A resize kills the workers in the middle of a step without a word to them, so that they go back to
their last checkpoint, and took 13 s. Its looks at the cluster are 60 s apart, and it does not count fractions of a core
("do not work well here"). A lost worker still ends `fit()`. Here a resize is an end of one attempt and the beginning of
the next, which exist anyway: no step is lost, and all folds are weighed against each other.

This owns the numbers; it launches nothing, and reads how far a fold is from its status.
"""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from ray_jobs.cluster.placement import Placement, add_workers, divides_cores, find_gain, share_workers
from ray_jobs.config.resources import ResourcesConfig
from ray_jobs.runs.json_files.status import FoldState, FoldStatus

logger = logging.getLogger(__name__)
LOOK_INTERVAL_S = 0.5
SETTLE_S = 1.0  # room that comes piece by piece (the workers of a fold that has ended) is given away together
LEAVE_S = 10.0  # how long a fold may take to leave, and Ray to give its room free again
LAUNCH_TIMEOUT_S = 60.0  # after which a fold that was launched no longer keeps the others from looking for room
FIRST_RESTART_S = 10.0  # what another attempt costs, until this run has seen it


class ElasticFold(Protocol):
    """What is asked of a fold; `fold_launcher.MemberFold` is one."""

    def read_status(self) -> FoldStatus:
        """How far it is."""

    def request_leave(self, attempt: int) -> None:
        """Asks its workers to save where they are and end."""


class WorkerSlots:
    """Room for workers, held by Ray placement groups of one worker each, until it is given to a fold: what Ray has
    granted nobody else has, no draining node is among it, and what it cannot grant its autoscaler is asked for.

    Args:
        bundle: what a worker reserves.
    """

    def __init__(self, bundle: dict[str, float]) -> None:
        importlib.import_module("google.protobuf.descriptor_pb2")  # here, since `count` is called in another thread
        self.bundle = bundle
        self.groups: list[Any] = []

    def count(self) -> int:
        """Slots that Ray has granted."""
        from ray.util import placement_group_table

        states = {id(group): placement_group_table(group).get("state") for group in self.groups}
        self.groups.sort(key=lambda group: states[id(group)] != "CREATED")  # granted ones first
        return sum(state == "CREATED" for state in states.values())

    def want(self, number: int) -> None:
        """Asks for more, or gives back, those that are not granted first."""
        from ray.util import placement_group, remove_placement_group

        while len(self.groups) > number:
            remove_placement_group(self.groups.pop())
        while len(self.groups) < number:
            self.groups.append(placement_group([self.bundle]))

    def give(self, number: int) -> None:
        """Lets granted ones go, for a fold that is launched now. First those that are not granted, which would take its
        room."""
        self.want(self.count())
        self.want(len(self.groups) - number)


@dataclass
class _Attempt:
    """A fold that has its workers."""

    num_workers: int
    launched: float
    number: int = 0
    is_placed: bool = False
    has_begun: bool = False


class ElasticWorkers:
    """Gives the folds of a run their workers. `take` and `give_back` are called by each fold's own thread; everything
    is decided by `decide`, which `watch` calls again and again.

    Args:
        placement: resources of a worker, and the least and the most of a fold.
        resources: how often a fold may be resized, and how many folds may train at once.
        num_folds: of a member.
        say: shows a line to the user.
        is_over: whether no further attempt is to begin.
        slots: where room is found.
    """

    def __init__(
        self,
        placement: Placement,
        resources: ResourcesConfig,
        num_folds: int,
        say: Callable[[str], None],
        is_over: Callable[[], bool],
        slots: WorkerSlots,
    ) -> None:
        self.least, self.most = placement.num_workers, placement.most_workers
        self.most_folds, self.may_grow = resources.max_folds_at_once, placement.may_grow
        if divides_cores(resources, placement.gpus_per_worker):
            self.most_folds = min(num_folds, self.most_folds or num_folds)
        if placement.is_short_of_memory:
            self.most_folds = placement.folds_at_once
        self.interval_s, self.say, self.is_over, self.slots = resources.resize_interval_s, say, is_over, slots
        self.changed = threading.Condition()
        self.waiting: dict[ElasticFold, int] = {}  # and how many workers each may have
        self.running: dict[ElasticFold, _Attempt] = {}
        self.known: set[ElasticFold] = set()  # have had workers: they go before those that have not
        self.wishes: dict[ElasticFold, int] = {}  # workers of folds that were asked to leave, until they wait
        self.restart_s: float | None = None
        self.granted, self.settled_since = 0, 0.0
        self.awaited, self.patient_until = 0, 0.0  # room that there will be when a resized fold's own is free
        self.asked_at = 0.0  # when a fold was last asked to leave
        self.content_until = 0.0  # nobody gains by the room that there was

    def enrol(self, folds: Sequence[ElasticFold]) -> None:
        """Lets folds wait for room before their threads run, so that none takes the room of another that is late by a
        moment."""
        with self.changed:
            for fold in folds:
                self.wait(fold, time.monotonic())

    def take(self, fold: ElasticFold) -> int | None:
        """Waits for room; the workers of the fold's next attempt, or None if none is to begin."""
        with self.changed:
            if fold not in self.waiting and fold not in self.running:
                self.wait(fold, time.monotonic())
            while fold not in self.running:
                if self.is_over():
                    self.waiting.pop(fold, None)
                    return None
                self.changed.wait(LOOK_INTERVAL_S)
            return self.running[fold].num_workers

    def wait(self, fold: ElasticFold, now: float) -> None:
        """A fold is to be given workers. One that was asked to leave has had some of them itself: it waits until they
        are free."""
        if fold in self.wishes:
            self.patient_until = now + LEAVE_S
        self.waiting[fold] = self.wishes.pop(fold, self.most)
        self.settled_since = now

    def list_waiting(self) -> list[str]:
        """The folds that wait for room."""
        return [str(fold) for fold in self._next_to_run()]

    def launch(self, fold: ElasticFold, attempt: int) -> None:
        """Says which attempt begins with them."""
        with self.changed:
            self.running[fold].number = attempt

    def give_back(self, fold: ElasticFold) -> bool:
        """The attempt has ended; whether it was asked to."""
        with self.changed:
            num_workers = self.running.pop(fold).num_workers
            if fold in self.wishes:
                self.awaited = self.granted + num_workers
            return fold in self.wishes

    def forget(self, fold: ElasticFold) -> None:
        """No further attempt begins."""
        with self.changed:
            self.wishes.pop(fold, None)
            self.waiting.pop(fold, None)

    def watch(self) -> None:
        """Decides until nothing is left to decide. Runs in a thread of its own: a cluster that is gone does not
        answer."""
        while not self.is_over():
            try:
                with self.changed:
                    self.decide(time.monotonic(), time.time())
                    self.changed.notify_all()
            except Exception:  # Ray raises what it likes; whether the cluster is gone, the driver's heartbeat knows
                logger.warning("looking for room for workers failed", exc_info=True)
            time.sleep(LOOK_INTERVAL_S)
        with suppress(Exception):
            self.slots.want(0)

    def decide(self, now: float, unix_now: float) -> None:
        """Looks at the room there is and gives it away, or asks a fold to leave."""
        remaining_s = {fold: self._follow(fold, attempt, now, unix_now) for fold, attempt in self.running.items()}
        if any(not one.is_placed and now - one.launched < LAUNCH_TIMEOUT_S for one in self.running.values()):
            self.slots.want(self.slots.count())  # whatever Ray grants now is what the fold is about to take
            return
        waiting, is_any_leaving = self._next_to_run(), bool(self.wishes)
        if is_any_leaving and (not waiting or now - self.asked_at < LEAVE_S):
            return  # one after the other: a fold is about to leave
        resizable = {} if waiting or now < self.content_until else self._find_resizable(remaining_s, now)
        most = sum(self.most - self.running[fold].num_workers for fold in resizable)
        # Where a fold that shall leave does not answer, others take what they need to begin: its room may come back at
        # any moment.
        wanted = [self.least if is_any_leaving else self.waiting[fold] for fold in waiting]
        self.slots.want(sum(wanted) or most)
        granted = self.slots.count()
        if granted != self.granted:
            self.granted, self.settled_since = granted, now
        is_complete = granted >= len(self.slots.groups)
        is_awaiting = granted < self.awaited and now < self.patient_until
        if not is_complete and (is_awaiting or now - self.settled_since < SETTLE_S):
            return
        if waiting:
            if not self._start(waiting, wanted, granted, now) and not is_any_leaving:
                self._make_room(waiting[0], granted, remaining_s, now)
        elif granted and not self._grow(resizable, granted, now) and not self.may_grow:
            self.content_until = now + self.interval_s  # others may have the room until then
            self.slots.want(0)

    def _follow(self, fold: ElasticFold, attempt: _Attempt, now: float, unix_now: float) -> float:
        """Seconds that the fold still needs as it is; 0 while nothing is known. Notices when it has its workers, and
        what it cost until the first step was done."""
        status = fold.read_status()
        if status.state != FoldState.TRAINING or status.attempt != attempt.number:
            return 0.0
        attempt.is_placed = True
        if not attempt.has_begun and status.step > status.first_step:
            attempt.has_begun = True
            took_s = now - attempt.launched - max(0.0, (status.prepared or 0.0) - (status.started or 0.0))
            self.restart_s = took_s if self.restart_s is None else min(took_s, self.restart_s)
        return status.estimate_remaining(unix_now)

    def _next_to_run(self) -> list[ElasticFold]:
        """Folds that wait, in the order in which they get workers; no more than may train at once."""
        waiting = [*self.waiting]  # at once: other threads ask, too
        waiting.sort(key=lambda fold: fold not in self.known)
        return waiting if self.most_folds is None else waiting[: max(0, self.most_folds - len(self.running))]

    def _find_resizable(self, remaining_s: dict[ElasticFold, float], now: float) -> dict[ElasticFold, float]:
        """Folds that could use more workers for long enough, with the seconds that they still need."""
        return {
            fold: seconds
            for fold, seconds in remaining_s.items()
            if now - self.running[fold].launched >= self.interval_s
            and self.running[fold].num_workers < self.most
            and find_gain(seconds, self.running[fold].num_workers, self.most, self._restart_s())
        }

    def _restart_s(self) -> float:
        if not self.interval_s:
            return 0.0
        return FIRST_RESTART_S if self.restart_s is None else self.restart_s

    def _start(self, waiting: list[ElasticFold], wanted: list[int], granted: int, now: float) -> bool:
        """Gives the room to those that wait; whether there was enough for one."""
        shares = share_workers(granted, self.least, wanted)
        for fold, share in zip(waiting, shares, strict=True):
            if share:
                del self.waiting[fold]
                self.known.add(fold)
                self.running[fold] = _Attempt(share, now)
        if any(shares):
            self.slots.give(sum(shares))
        return any(shares)

    def _grow(self, resizable: dict[ElasticFold, float], granted: int, now: float) -> bool:
        """Asks the fold that gains most by its share of the room; whether one gains by it."""
        folds = sorted(resizable, key=lambda fold: resizable[fold], reverse=True)
        sizes = [self.running[fold].num_workers for fold in folds]
        then = add_workers(sizes, granted, [self.most] * len(folds))
        gains = [
            find_gain(resizable[fold], size, new, self._restart_s())
            for fold, size, new in zip(folds, sizes, then, strict=True)
        ]
        if any(gains):
            best = gains.index(max(gains))
            self._ask(folds[best], then[best], "there is room", now)
        return any(gains)

    def _make_room(self, fold: ElasticFold, granted: int, remaining_s: dict[ElasticFold, float], now: float) -> None:
        """Asks the largest fold to go on with its fair share where another finds no room at all."""
        long_enough = [
            one
            for one, attempt in self.running.items()
            if now - attempt.launched >= self.interval_s and remaining_s[one] > 2 * self._restart_s()
        ]
        if not long_enough:
            return
        largest = max(long_enough, key=lambda one: self.running[one].num_workers)
        size = self.running[largest].num_workers
        others = len(self.running) + 1
        room = granted + sum(attempt.num_workers for attempt in self.running.values())
        share = min(filter(None, share_workers(room, self.least, [self.most] * others)), default=size)
        if share < size:
            self._ask(largest, max(share, self.least), f"{fold} finds no room", now)

    def _ask(self, fold: ElasticFold, num_workers: int, why: str, now: float) -> None:
        attempt, self.asked_at = self.running[fold], now
        fold.request_leave(attempt.number)
        self.wishes[fold] = num_workers
        self.say(
            f"{fold}: {why}; it saves where it is and goes on with {num_workers} instead of "
            f"{attempt.num_workers} workers"
        )
