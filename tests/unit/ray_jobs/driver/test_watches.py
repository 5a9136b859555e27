"""Which folds are asked to leave their nodes, and which processes are killed because they are frozen."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest

from ray_jobs.driver import watches
from ray_jobs.driver.watches import FROZEN_GRACE_S, DrainWatch, FrozenWatch
from ray_jobs.runs.json_files.status import FoldState, FoldStatus


@dataclass(eq=False)
class WatchedFold:
    """A fold whose status a test sets."""

    status: FoldStatus
    asked: list[int] = field(default_factory=list)

    def read_status(self):
        return self.status

    def request_leave(self, attempt):
        self.asked.append(attempt)


def train(attempt=1, **values):
    return WatchedFold(FoldStatus(0, FoldState.TRAINING, attempt, pid=7, **values))


def look_again(watch, folds):
    watch.looked = float("-inf")
    watch.look(folds)


@pytest.fixture
def draining(monkeypatch):
    nodes = set()
    monkeypatch.setattr(watches, "find_draining_nodes", lambda: nodes)
    return nodes


@pytest.fixture
def killed(monkeypatch):
    found = []
    monkeypatch.setattr(watches, "kill_process", lambda node, pid: found.append((node, pid)))
    return found


def test_only_folds_that_train_on_a_draining_node_are_asked_to_leave_it_and_once(draining):
    here, ranks, elsewhere = train(nodes=("a",)), train(nodes=("b", "a")), train(nodes=("b",))
    waiting = WatchedFold(FoldStatus(3, nodes=("a",)))
    folds, watch = [here, ranks, elsewhere, waiting], DrainWatch()
    look_again(watch, folds)
    draining.add("a")
    look_again(watch, folds)
    look_again(watch, folds)
    assert [fold.asked for fold in folds] == [[1], [1], [], []]
    assert watch.asked == {(here, 1), (ranks, 1)}


def test_the_next_attempt_of_a_fold_is_asked_anew(draining):
    draining.add("a")
    fold, watch = train(nodes=("a",)), DrainWatch()
    look_again(watch, [fold])
    fold.status = train(attempt=2, nodes=("a",)).status
    look_again(watch, [fold])
    assert fold.asked == [1, 2]


@pytest.mark.parametrize("jump_s", [0.0, -1e5, 1e5])
def test_a_process_that_is_silent_for_longer_than_its_watchdog_allows_is_killed_once_whatever_the_clock_says(
    killed, monkeypatch, jump_s
):
    clock = SimpleNamespace(monotonic=lambda: clock.now, now=0.0)
    monkeypatch.setattr(watches, "time", clock)
    silent, heard, never_heard = train(nodes=("a", "b"), heard=1e9), train(nodes=("a",)), train(nodes=("a",))
    folds, watch = [heard, silent, never_heard], FrozenWatch(10.0)
    for clock.now in range(0, int(10 + FROZEN_GRACE_S), 10):
        heard.status = replace(heard.status, heard=1e9 + clock.now + jump_s)
        look_again(watch, folds)
    assert killed == []
    for clock.now in (10 + FROZEN_GRACE_S + 1, 10 + FROZEN_GRACE_S + 6):
        look_again(watch, folds)
    assert killed == [("a", 7)]
    assert watch.killed == {(silent, 1)}


def test_nobody_is_killed_where_there_is_no_watchdog(killed):
    FrozenWatch(None).look([train(nodes=("a",), heard=0.0)])
    assert killed == []
