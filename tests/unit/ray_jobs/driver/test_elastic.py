"""Which workers elastic folds get, and when they are asked to go on with others: decisions on made time, without
Ray."""

import threading
import time
from dataclasses import dataclass, field

import pytest

from ray_jobs.cluster.placement import Placement
from ray_jobs.config.resources import ResourcesConfig
from ray_jobs.driver.elastic import ElasticWorkers
from ray_jobs.runs.json_files.status import FoldState, FoldStatus


@dataclass(eq=False)
class MadeFold:
    """A fold whose progress the test sets; remembers which attempts were asked to leave."""

    name: str
    status: FoldStatus = field(default_factory=lambda: FoldStatus(0))
    asked: list = field(default_factory=list)

    def __str__(self):
        return self.name

    def read_status(self):
        return self.status

    def request_leave(self, attempt):
        self.asked.append(attempt)


class MadeSlots:
    """A cluster with room for so many workers, which nobody else uses."""

    def __init__(self, room):
        self.room, self.groups = room, []

    def count(self):
        return min(len(self.groups), self.room)

    def want(self, number):
        self.groups = [None] * number

    def give(self, number):
        assert number <= self.count()
        self.room -= number
        self.want(0)


class MadeRun:
    """Folds on a made cluster and clock."""

    def __init__(self, room, least=1, most=2, **resources):
        config = ResourcesConfig(workers_per_fold=(least, most), **resources)
        placement = Placement(least, most, 1.0, 0.0, 0, 1, 9, room)
        self.slots, self.said, self.now, self.is_over = MadeSlots(room), [], 1000.0, False
        self.elastic = ElasticWorkers(placement, config, 9, self.said.append, lambda: self.is_over, self.slots)

    def wait(self, *folds):
        for fold in folds:
            self.elastic.wait(fold, self.now)

    def pass_time(self, seconds=3.0):
        for _ in range(int(2 * seconds)):
            self.now += 0.5
            self.elastic.decide(self.now, self.now)
        return {str(fold): attempt.num_workers for fold, attempt in self.elastic.running.items()}

    def train(self, fold, *, remaining_s, attempt=1):
        """The fold's workers have run for 10 s; it needs so many more."""
        self.elastic.launch(fold, attempt)
        steps = {"step": 100, "num_steps": 100 + int(10 * remaining_s), "started": self.now - 10}
        steps["pace"] = (self.now - 10, 0)
        fold.status = FoldStatus(0, FoldState.TRAINING, attempt, **steps)

    def end(self, fold):
        self.slots.room += self.elastic.running[fold].num_workers
        return self.elastic.give_back(fold)


def test_folds_that_start_together_share_the_room_and_freed_room_goes_to_the_one_that_gains_most():
    run, folds = MadeRun(3, most=3, resize_interval_s=20), [MadeFold(name) for name in "abc"]
    run.wait(*folds)
    assert run.pass_time() == {"a": 1, "b": 1, "c": 1}
    for fold, remaining_s in zip(folds, (0, 200, 400), strict=True):
        run.train(fold, remaining_s=remaining_s)
    assert not run.end(folds[0])
    run.pass_time(10)
    assert not folds[2].asked  # it has its workers for less than 20 s
    run.pass_time(10)
    assert (folds[1].asked, folds[2].asked) == ([], [1])
    assert run.said == ["c: there is room; it saves where it is and goes on with 2 instead of 1 workers"]
    assert run.end(folds[2])
    run.wait(folds[2])
    assert run.pass_time() == {"b": 1, "c": 2}


def test_a_fold_that_is_nearly_done_is_left_alone():
    run, (fold,) = MadeRun(1, resize_interval_s=1), [MadeFold("a")]
    run.wait(fold)
    run.pass_time()
    run.train(fold, remaining_s=3)
    run.slots.room = 1
    run.pass_time()
    assert not fold.asked
    assert run.slots.groups == []  # and nothing is asked of the autoscaler for it


def test_room_by_whose_share_nobody_gains_is_given_back():
    """With all 64 workers the fold would be done clearly earlier, with the 33 that there are it would not."""
    run, (fold,) = MadeRun(32, most=64, resize_interval_s=20), [MadeFold("a")]
    run.wait(fold)
    assert run.pass_time() == {"a": 32}
    run.train(fold, remaining_s=200)
    run.elastic.restart_s, run.elastic.running[fold].has_begun = 20.0, True
    run.pass_time(20)
    run.slots.room = 1
    run.train(fold, remaining_s=200)
    run.pass_time(5)
    assert not fold.asked
    assert run.slots.groups == []


def test_a_fold_that_does_not_answer_for_long_keeps_nobody_from_room_that_is_free():
    run, (slow, lost) = MadeRun(1, resize_interval_s=0), [MadeFold("slow"), MadeFold("lost")]
    run.wait(slow)
    run.pass_time()
    run.train(slow, remaining_s=300)
    run.slots.room = 1
    run.pass_time()
    assert slow.asked == [1]
    run.wait(lost)
    assert run.pass_time(5) == {"slow": 1}
    assert run.pass_time(10) == {"slow": 1, "lost": 1}


def test_without_an_interval_room_is_taken_whatever_it_costs():
    run, (fold,) = MadeRun(1, resize_interval_s=0), [MadeFold("a")]
    run.wait(fold)
    run.pass_time()
    run.train(fold, remaining_s=3)
    run.slots.room = 1
    run.pass_time()
    assert fold.asked == [1]


def test_a_fold_that_was_resized_waits_until_ray_has_given_its_own_room_free():
    """Measured on a loaded machine: seconds. It would go on with what was new alone, no larger than before."""
    run, (fold,) = MadeRun(1, resize_interval_s=0), [MadeFold("a")]
    run.wait(fold)
    run.pass_time()
    run.train(fold, remaining_s=300)
    run.slots.room = 1
    run.pass_time(5)
    run.elastic.give_back(fold)
    run.wait(fold)
    assert run.pass_time(4) == {}
    run.slots.room += 1
    assert run.pass_time(1) == {"a": 2}


def test_a_fold_that_was_resized_goes_on_with_less_where_its_room_stays_away():
    run, (fold,) = MadeRun(1, resize_interval_s=0), [MadeFold("a")]
    run.wait(fold)
    run.pass_time()
    run.train(fold, remaining_s=300)
    run.slots.room = 1
    run.pass_time(5)
    run.elastic.give_back(fold)
    run.wait(fold)
    assert run.pass_time(12) == {"a": 1}


def test_a_fold_that_waits_comes_before_folds_that_could_grow():
    run, folds = MadeRun(2, most=4, resize_interval_s=0, max_folds_at_once=2), [MadeFold(name) for name in "abc"]
    run.wait(*folds)
    assert run.pass_time() == {"a": 1, "b": 1}
    for fold in folds[:2]:
        run.train(fold, remaining_s=500)
    run.end(folds[0])
    assert run.pass_time() == {"b": 1, "c": 1}
    assert not folds[1].asked


def test_the_largest_makes_room_for_a_fold_that_waits_in_vain():
    """Its node was lost while the other had three workers."""
    run, (large, lost) = MadeRun(4, most=3, resize_interval_s=5), [MadeFold("large"), MadeFold("lost")]
    run.wait(large)
    assert run.pass_time() == {"large": 3}
    run.train(large, remaining_s=300)
    run.slots.room = 0
    run.wait(lost)
    run.pass_time(10)
    assert large.asked == [1]
    assert "lost finds no room" in run.said[0]
    run.slots.room += 3  # Ray has its workers' room back before the fold's thread hears that they have ended
    run.pass_time(1)
    assert run.elastic.give_back(large)
    run.wait(large)
    assert sorted(run.pass_time().items()) == [("large", 1), ("lost", 2)]


def test_while_a_fold_takes_up_its_room_no_other_room_is_asked_for():
    """What its group has not reserved yet would look free."""
    run, folds = MadeRun(1), [MadeFold("a"), MadeFold("b")]
    run.wait(*folds)
    assert run.pass_time() == {"a": 1}
    assert run.slots.groups == []
    run.train(folds[0], remaining_s=100)
    run.pass_time(1)
    assert len(run.slots.groups) == 2  # now b's


def test_a_fold_that_is_done_before_it_hears_that_it_is_to_leave_keeps_nobody_waiting():
    run, folds = MadeRun(2, resize_interval_s=0), [MadeFold("a"), MadeFold("b")]
    run.wait(*folds)
    run.pass_time()
    for fold in folds:
        run.train(fold, remaining_s=100)
    run.slots.room = 1
    run.pass_time()
    (asked,) = [fold for fold in folds if fold.asked]
    run.end(asked)
    run.elastic.forget(asked)
    run.pass_time()
    assert all(fold.asked for fold in folds)


@pytest.mark.parametrize("ends", ["granted", "stopped"])
def test_a_fold_waits_for_its_workers_until_there_is_room_or_the_run_is_asked_to_stop(ends):
    run, fold, taken = MadeRun(0), MadeFold("a"), []
    thread = threading.Thread(target=lambda: taken.append(run.elastic.take(fold)))
    thread.start()
    while fold not in run.elastic.waiting:
        time.sleep(0.01)
    run.pass_time()
    assert taken == []
    run.slots.room = 2
    if ends == "granted":
        run.pass_time()
    else:
        run.is_over = True
    thread.join(5)
    assert taken == [2 if ends == "granted" else None]
