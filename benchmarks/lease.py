"""Does a run on object storage ever have two drivers?

    python benchmarks/lease.py [--takeovers 1000] [--minutes 60] [--races 30] [--writers 8] [--seed 1]

Against a real S3 server (moto's, with its check of a condition and the put made one step, as S3 has them). Races: so
many processes want one run at the same moment; each race should have one winner. Takeovers: two processes want one run
for ever. Whichever drives it writes without a pause, is stopped (SIGSTOP) at a random moment, and goes on (SIGCONT) at
a random moment after the other has taken the run. The server's log has the order of what it took: no write of a loser
to an object may come after one of the winner's. The lease's times are divided by 50 and more; where the server is so
slow that nobody writes for a minute, the processes begin anew with times twice as long."""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from support.lease_processes import WRITTEN, find_late_writes, run_races, started, take_over
from support.object_server import BUCKET, ObjectServer, serving_objects

TOLD_EVERY, PATIENCE_S = 50, 60.0


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--takeovers", type=int, default=1000)
    arguments.add_argument("--minutes", type=float, default=math.inf, help="end the takeovers after so long")
    arguments.add_argument("--races", type=int, default=30)
    arguments.add_argument("--writers", type=int, default=8)
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    with serving_objects() as server:
        with started(given.writers, "race", environment=server.environment) as drivers:
            uris = [f"s3://{BUCKET}/races/{number}" for number in range(given.races)]
            winners = run_races(drivers, uris)
        print(f"{given.races} races of {given.writers}: winners {sorted(set(winners))}", flush=True)
        late = _take_over(server, given.takeovers, 60 * given.minutes, random.Random(given.seed))
    sys.exit(any(count != 1 for count in winners) or late > 0)


def _take_over(server: ObjectServer, times: int, most_s: float, chance: random.Random) -> int:
    """How many writes of a driver that had lost the run are over one of a later driver."""
    began, slower, done, unasked, told = time.monotonic(), 1.0, 0, 0, 0
    while done < times and time.monotonic() - began < most_s:
        with started(2, "drive", f"s3://{BUCKET}/run", str(slower), environment=server.environment) as drivers:
            try:
                while done < times and time.monotonic() - began < most_s:
                    unasked += take_over(drivers, 1, chance, PATIENCE_S)
                    done += 1
                    if done >= told + TOLD_EVERY:
                        told, _ = done, _tell(server, began, done, unasked)
            except TimeoutError as error:
                slower *= 2
                print(f"{error}, after {done} takeovers: from here on times {slower:g} times as long", flush=True)
    return _tell(server, began, done, unasked)


def _tell(server: ObjectServer, began: float, done: int, unasked: int) -> int:
    stored = server.list_stored()
    late, replaced = find_late_writes(stored, "run")
    writes = sum(key.removeprefix("run/") in WRITTEN for key, _ in stored)
    print(
        f"{done} takeovers, and {unasked} that nobody asked for, in {time.monotonic() - began:.0f} s: {writes} writes, "
        f"{late} of a loser over one of a later driver; {replaced} to an object that the later one had not put "
        "yet, and put over it",
        flush=True,
    )
    return late


if __name__ == "__main__":
    main()
