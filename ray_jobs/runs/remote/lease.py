"""One driver a run on object storage, which has no locks: an object that the driver at work renews.

Best effort. Who finds one watches it: one that is renewed belongs to a driver that lives; one that stands still for
`SILENCE_S` is taken over. A driver that was silent for so long (a suspended machine) finds another's lease in its
place, or none, and ends. No clock is compared with another."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
import time
from pathlib import Path
from typing import Any

from ray_jobs.errors import RunBusyError
from ray_jobs.runs.remote.bucket import Bucket

LEASE = "driver.json"
RENEW_S, SILENCE_S, LOOK_S = 5.0, 20.0, 1.0


class Lease:
    """The right to drive a run."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket, self.beat = bucket, 0
        self.mine = {"token": secrets.token_hex(8), "host": os.uname().nodename, **_describe_process(os.getpid())}
        self.other: dict[str, Any] | None = None
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def take(self) -> None:
        """Takes the lease, if need be after its silence.

        Raises:
            RunBusyError: another driver lives.
        """
        found = read_lease(self.bucket)
        deadline = time.monotonic() + SILENCE_S
        while found is not None and not _is_dead(found) and time.monotonic() < deadline:
            time.sleep(LOOK_S)
            now = read_lease(self.bucket)
            if now is not None and now != found:
                self._refuse(now)
            found = now
        self._write()
        self.thread.start()

    def confirm(self) -> None:
        """To be called some time after `take`: whoever took it at the same moment has written by now.

        Raises:
            RunBusyError: another driver has it.
        """
        self._look()
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
        with contextlib.suppress(OSError):
            if (read_lease(self.bucket) or {}).get("token") == self.mine["token"]:
                self.bucket.delete([LEASE])

    def _look(self) -> None:
        """Whether somebody else has it; or had, while this driver was silent, and has ended."""
        found = read_lease(self.bucket)
        if found is None or found["token"] != self.mine["token"]:
            self.other = found or {}

    def _refuse(self, other: dict[str, Any]) -> None:
        if not other:
            raise RunBusyError(
                f"{self.bucket.uri} was taken over by another driver while this one was silent, and that one has "
                "ended. The same command goes on from what it left"
            )
        raise RunBusyError(
            f"another driver (process {other.get('process')} on {other.get('host')}) works on {self.bucket.uri}; wait "
            "for it, watch it with status.py, or choose another run.name"
        )

    def _write(self) -> None:
        self.beat += 1
        self.bucket.write(LEASE, json.dumps(self.mine | {"beat": self.beat}).encode())

    def _keep(self) -> None:
        while not self.is_over.wait(RENEW_S):
            with contextlib.suppress(OSError):  # a storage that is away: nobody else can take it there, either
                self._look()
                if self.other is not None:
                    return
                self._write()


def read_lease(bucket: Bucket) -> dict[str, Any] | None:
    """The lease as it lies there; None: nobody has it, or it is no lease."""
    content = bucket.find(LEASE)
    with contextlib.suppress(ValueError, TypeError):
        found = json.loads(content or b"null")
        if isinstance(found, dict) and "token" in found and isinstance(found.get("process"), int):
            return found
    return None


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
