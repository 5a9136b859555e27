"""Noticing that the cluster is gone."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ray_jobs.cluster.access import answers
from ray_jobs.errors import EXIT_INCOMPLETE, ClusterLostError

# How long nobody may answer at the cluster's address. Ray itself gives up after 60 s and ends the process without a
# word.
GONE_AFTER_S, OWN_GONE_AFTER_S = 45.0, 3.0
LOOK_INTERVAL_S = 2.0


class Heartbeat:
    """Notices that the cluster is gone: `ray stop`, or a head node that is lost. A head node that comes back in time
    (Ray can restart it elsewhere) is not gone. A driver whose own machine has no node any more has to end: Ray would
    end it without a word.

    Args:
        address: host:port of the head node's control service.
        patience_s: how long it may stay silent.
        own_node: host:port of the node on this machine; None: not looked for.
    """

    def __init__(self, address: str, patience_s: float, own_node: str | None = None) -> None:
        self.address, self.patience_s, self.own_node = address, patience_s, own_node
        self.looked = self.heard = time.monotonic()

    def check(self) -> None:
        """To be called again and again.

        Raises:
            ClusterLostError: nobody has answered for too long.
        """
        if time.monotonic() - self.looked < LOOK_INTERVAL_S:
            return
        if self.own_node and not (answers(self.own_node) or answers(self.own_node)):
            raise ClusterLostError(f"the Ray node of this machine, at {self.own_node}, is gone")
        if answers(self.address):
            self.heard = time.monotonic()
        elif time.monotonic() - self.heard > self.patience_s:
            self.confirm()
        self.looked = time.monotonic()

    def confirm(self) -> None:
        """To be called when something else has failed.

        Raises:
            ClusterLostError: nobody answers now.
        """
        if not answers(self.address):
            raise ClusterLostError(f"the Ray cluster at {self.address} is gone")


@contextmanager
def ending_when_lost(address: str) -> Iterator[None]:
    """Ends the process, with the reason, when nobody answers at a cluster's address for GONE_AFTER_S. For calls of
    Ray's that nothing interrupts: `ray.init` tries for 13 minutes, others end the process after 60 s without a word."""

    def end(_: ClusterLostError) -> None:
        what_to_do = "start it, and type the same command again; nothing is lost"
        print(f"error: the Ray cluster at {address} went while it was joined: {what_to_do}", file=sys.stderr)
        os._exit(EXIT_INCOMPLETE)

    with _watching(Heartbeat(address, GONE_AFTER_S), end):
        yield


@contextmanager
def interrupted_when_lost(heartbeat: Heartbeat) -> Iterator[None]:
    """Interrupts the main thread, which a library may keep waiting, when the cluster is gone.

    Raises:
        ClusterLostError: it is.
    """
    lost = list[ClusterLostError]()

    def interrupt(error: ClusterLostError) -> None:
        lost.append(error)
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)

    try:
        with _watching(heartbeat, interrupt):
            yield
    except (KeyboardInterrupt, Exception):
        if lost:
            raise lost[0] from None
        raise


@contextmanager
def _watching(heartbeat: Heartbeat, on_lost: Callable[[ClusterLostError], None]) -> Iterator[None]:
    """Checks again and again, in a thread, and tells once that the cluster is gone."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(LOOK_INTERVAL_S):
            try:
                heartbeat.check()
            except ClusterLostError as error:
                on_lost(error)
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()
