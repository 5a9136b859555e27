"""What the driver looks for while folds train, and no fold can notice itself: that its node is being taken away, that
its process is frozen."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterable

from ray_jobs.cluster.nodes import kill_process
from ray_jobs.cluster.ray_private import find_draining_nodes
from ray_jobs.driver.elastic import ElasticFold
from ray_jobs.runs.json_files.status import FoldState

logger = logging.getLogger(__name__)
DRAIN_LOOK_INTERVAL_S = 1.0  # a spot machine has 25 s left when it is told
FROZEN_LOOK_INTERVAL_S = 5.0
FROZEN_GRACE_S = 60.0  # twice as long as a fold is silent at most, while something moves


class DrainWatch:
    """Asks folds to leave nodes that are being taken away: they save where they are and end their attempt. One question
    to Ray for all folds.

    Attributes:
        asked: folds, and in which attempt.
    """

    def __init__(self) -> None:
        self.looked = -math.inf
        self.asked: set[tuple[ElasticFold, int]] = set()

    def look(self, folds: Iterable[ElasticFold]) -> None:
        """To be called again and again with the folds of which some train."""
        if time.monotonic() - self.looked < DRAIN_LOOK_INTERVAL_S:
            return
        self.looked = time.monotonic()
        draining = find_draining_nodes()
        for fold in folds if draining else ():
            # Where the storage is away the next look asks.
            with contextlib.suppress(OSError):
                status = fold.read_status()
                key = (fold, status.attempt)
                if status.state == FoldState.TRAINING and key not in self.asked and draining.intersection(status.nodes):
                    fold.request_leave(status.attempt)
                    self.asked.add(key)


class FrozenWatch:
    """Kills the process of a fold that has said nothing for longer than its own watchdog lets it stand still: a process
    that is stopped cannot end itself. Its fold goes on in another attempt, as after any death. No clock is compared
    with another: a fold is silent while the time at which it was heard last stays as it is.

    Args:
        stall_timeout_s: after which a watchdog ends its process; None: never.
    """

    def __init__(self, stall_timeout_s: float | None) -> None:
        self.patience_s = math.inf if stall_timeout_s is None else stall_timeout_s + FROZEN_GRACE_S
        self.looked = -math.inf
        self.heard: dict[ElasticFold, tuple[float | None, float]] = {}  # as its status says, and since when it says so
        self.killed: set[tuple[ElasticFold, int]] = set()

    def look(self, folds: Iterable[ElasticFold]) -> None:
        """To be called again and again with the folds of which some train."""
        if math.isinf(self.patience_s) or time.monotonic() - self.looked < FROZEN_LOOK_INTERVAL_S:
            return
        self.looked = now = time.monotonic()
        for fold in folds:
            with contextlib.suppress(OSError):
                status = fold.read_status()
                if self.heard.get(fold, (None, now))[0] != status.heard:
                    self.heard[fold] = status.heard, now
                is_silent = status.heard is not None and now - self.heard[fold][1] > self.patience_s
                key = (fold, status.attempt)
                if status.state == FoldState.TRAINING and is_silent and status.nodes and key not in self.killed:
                    logger.warning("%s has been silent for %.0f s: it is killed", fold, self.patience_s)
                    kill_process(status.nodes[0], status.pid)
                    self.killed.add(key)
