"""Does a run on object storage ever have two drivers?

    python benchmarks/lease.py [--takeovers 1000] [--races 30] [--writers 8] [--seed 1]

Against a real S3 server (moto's, with its check of a condition and the put made one step, as S3 has them). Races: so
many processes want one run at the same moment; each race should have one winner. Takeovers: two processes want one run
for ever. Whichever drives it writes without a pause, is stopped (SIGSTOP) at a random moment, and goes on (SIGCONT) at
a random moment after the other has taken the run. The server's log has the order of what it took: no write of a loser
to an object may come after one of the winner's. The lease's times are divided by 50 and more."""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from support.lease_processes import find_late_writes, run_races, started, take_over
from support.object_server import BUCKET, serving_objects


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--takeovers", type=int, default=1000)
    arguments.add_argument("--races", type=int, default=30)
    arguments.add_argument("--writers", type=int, default=8)
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    with serving_objects() as server:
        with started(given.writers, "race", environment=server.environment) as drivers:
            uris = [f"s3://{BUCKET}/races/{number}" for number in range(given.races)]
            winners = run_races(drivers, uris)
        print(f"{given.races} races of {given.writers}: winners {sorted(set(winners))}", flush=True)
        began = time.monotonic()
        with started(2, "drive", f"s3://{BUCKET}/run", environment=server.environment) as drivers:
            unasked = take_over(drivers, given.takeovers, random.Random(given.seed))
        stored = server.list_stored()
        late, replaced = find_late_writes(stored, "run")
        num_writes = sum(key.startswith("run/") and not key.endswith("driver.json") for key, _ in stored)
    print(
        f"{given.takeovers} takeovers, and {unasked} that nobody asked for, in {time.monotonic() - began:.0f} s: "
        f"{num_writes} writes, {late} of a loser over one of a later driver; {replaced} to an object that the later "
        "one had not put yet, and put over it"
    )
    sys.exit(any(count != 1 for count in winners) or late > 0)


if __name__ == "__main__":
    main()
