"""One driver a run on object storage: an object that the driver at work renews, each time on the condition that it is
as this driver has left it. Of several that take it at once the storage lets one do so, and whoever has lost it cannot
renew it. Each driver has a number, the fence, one more than the driver before.

Who finds one watches it: one that is renewed belongs to a driver that lives; one that stands still for `SILENCE_S` is
taken over. A driver that was silent for so long (a suspended machine) finds another's lease in its place, and ends. No
clock is compared with another. Nobody removes the object: a removal takes no condition.

A storage that knows no conditions has no such lease: there all of this is best effort, as `is_strict` tells."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import threading
import time
from pathlib import Path
from typing import Any

from ray_jobs.errors import RunBusyError
from ray_jobs.runs.remote.bucket import Bucket
from trainers.storage.objects import ABSENT, ChangedError, NoConditionsError, Version

logger = logging.getLogger(__name__)
LEASE = "driver.json"
RENEW_S, SILENCE_S, LOOK_S = 5.0, 20.0, 1.0
_NO_OBJECT = Version(e_tag='"0"', generation="1")  # no object has this version


class Lease:
    """The right to drive a run."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket, self.beat, self.fence = bucket, 0, 0
        self.mine = {"token": secrets.token_hex(8), "host": os.uname().nodename, **_describe_process(os.getpid())}
        self.version, self.is_strict = ABSENT, True
        self.follows_silent = False  # whether the driver before may still be there
        self.other: dict[str, Any] | None = None
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def take(self) -> None:
        """Takes the lease, if need be after its silence.

        Raises:
            RunBusyError: another driver lives, or has taken it at the same moment.
        """
        found, version = _look(self.bucket)
        deadline = time.monotonic() + SILENCE_S
        while _is_held(found) and not _is_dead(found) and time.monotonic() < deadline:
            time.sleep(LOOK_S)
            now, version = _look(self.bucket)
            if _is_held(now) and now != found:
                self._refuse(now)
            found = now
        self.fence, self.version, self.follows_silent = _read_number(found) + 1, version, _is_held(found)
        self._write()
        self.check()
        self._find_out_conditions()
        self.thread.start()

    def confirm(self) -> None:
        """Asks the storage.

        Raises:
            RunBusyError: another driver has it.
        """
        found, _ = _look(self.bucket)
        if found.get("token") != self.mine["token"]:
            self.other = found
        self.check()

    def check(self) -> None:
        """Raises RunBusyError where another driver was seen to have taken over."""
        if self.other is not None:
            self._refuse(self.other)

    def release(self) -> None:
        """Lets the next driver begin at once."""
        self.is_over.set()
        if self.thread.is_alive():
            self.thread.join()
        if self.beat and self.other is None:
            with contextlib.suppress(OSError, RunBusyError):
                self.confirm()
                self._put({"fence": self.fence})

    def _refuse(self, other: dict[str, Any]) -> None:
        if not _is_held(other):
            raise RunBusyError(
                f"{self.bucket.uri} was taken over by another driver while this one was silent, and that one has "
                "ended. The same command goes on from what it left"
            )
        raise RunBusyError(
            f"another driver (process {other.get('process')} on {other.get('host')}) works on {self.bucket.uri}; wait "
            "for it, watch it with status.py, or choose another run.name"
        )

    def _write(self) -> None:
        """Renews it, or finds out whose it is."""
        try:
            self._put(self.mine | {"fence": self.fence, "beat": self.beat + 1})
            self.beat += 1
        except ChangedError:
            found, version = _look(self.bucket)
            if found.get("token") == self.mine["token"]:
                self.version = version
            else:
                self.other = found

    def _put(self, lease: dict[str, Any]) -> None:
        content = json.dumps(lease).encode()
        if self.is_strict:
            try:
                self.version = self.bucket.objects.put(LEASE, content, only_if=self.version)
                return
            except NoConditionsError:
                self._give_up_conditions()
        self.bucket.write(LEASE, content)

    def _find_out_conditions(self) -> None:
        """Puts the lease on two conditions that do not hold: a storage that takes one of them looks at none."""
        content = json.dumps(self.mine | {"fence": self.fence, "beat": "a try"}).encode()
        for condition in (ABSENT, _NO_OBJECT):
            with contextlib.suppress(ChangedError):
                if self.is_strict:
                    with contextlib.suppress(NoConditionsError):
                        self.bucket.objects.put(LEASE, content, only_if=condition)
                    self._give_up_conditions()

    def _give_up_conditions(self) -> None:
        self.is_strict = False
        logger.warning("%s knows no conditions: that one driver has the run is best effort there", self.bucket.uri)

    def _keep(self) -> None:
        while not self.is_over.wait(RENEW_S):
            with contextlib.suppress(OSError):  # a storage that is away: nobody else can take it there, either
                if not self.is_strict:
                    with contextlib.suppress(RunBusyError):
                        self.confirm()
                if self.other is not None:
                    return
                self._write()


def read_lease(bucket: Bucket) -> dict[str, Any] | None:
    """The lease as it lies there; None: nobody has it, or it is no lease."""
    found, _ = _look(bucket)
    return found if _is_held(found) else None


def read_fence(bucket: Bucket) -> int:
    """The number of the latest driver; 0: there was none."""
    return _read_number(_look(bucket)[0])


def _look(bucket: Bucket) -> tuple[dict[str, Any], Version]:
    """What lies there, and its version; of what is no lease nothing but the version."""
    try:
        content, version = bucket.read_version(LEASE)
    except FileNotFoundError:
        return {}, ABSENT
    with contextlib.suppress(ValueError):
        found = json.loads(content)
        if isinstance(found, dict):
            return found, version
    return {}, version


def _is_held(lease: dict[str, Any]) -> bool:
    return "token" in lease and isinstance(lease.get("process"), int)


def _read_number(lease: dict[str, Any]) -> int:
    number = lease.get("fence")
    return number if isinstance(number, int) else 0


def _describe_process(process: int) -> dict[str, Any]:
    """What tells a process from every other on this machine, and the machine from others; nothing where the system does
    not tell."""
    with contextlib.suppress(OSError):
        started = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
        machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return {"process": process, "started": started, "machine": f"{machine} {os.readlink('/proc/self/ns/pid')}"}
    return {"process": process}


def _is_dead(lease: dict[str, Any]) -> bool:
    """Whether its driver was a process of this machine that is not there any more."""
    here = _describe_process(os.getpid()).get("machine")
    if here is None or lease.get("machine") != here or lease.get("host") != os.uname().nodename:
        return False
    return _describe_process(lease["process"]).get("started") != lease.get("started")
