"""What a row of the metric record costs the training process.

    python benchmarks/record_write.py [--rows 50000]

Baseline: `json.dumps` of the same row and a write into Python's buffered file, flushed each line, in the same process.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import MetricRecord
from ray_jobs.tracking.journal import FoldJournal

ROUNDS = 5


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rows", type=int, default=50_000)
    num_rows = arguments.parse_args().rows
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        timed = {"baseline": [], "record": [], "journal": []}
        for number in range(ROUNDS):  # interleaved: whatever else the machine does hits all of them
            timed["baseline"].append(_time(_baseline(folder / f"plain_{number}.jsonl"), num_rows))
            timed["record"].append(_time(_record(folder / f"record_{number}.jsonl"), num_rows))
            timed["journal"].append(_time(_journal(folder / f"run_{number}"), num_rows))
        syncs = _time_sync(folder / "sync.jsonl")
    best = {name: min(values) * 1e6 for name, values in timed.items()}
    print(f"{num_rows} rows of two metrics, best of {ROUNDS} rounds")
    print(f"  json.dumps + buffered write + flush (baseline) {best['baseline']:6.1f} µs a row")
    print(f"  MetricRecord.log                               {best['record']:6.1f} µs a row")
    print(f"  with CSV files and log (FoldJournal.log)       {best['journal']:6.1f} µs a row")
    print(f"  MetricRecord.sync, once an epoch               {syncs * 1e3:6.1f} ms")
    print(
        f"record {best['record']:.1f} µs a row, {best['record'] / best['baseline']:.2f} of the baseline (limit: 20 µs)"
    )


def _time(log: Callable[[int], None], num_rows: int) -> float:
    began = time.perf_counter()
    for step in range(num_rows):
        log(step)
    return (time.perf_counter() - began) / num_rows


def _metrics(step: int) -> dict[str, float]:
    return {"fold_0/train/loss_step": 1 / (step + 1), "fold_0/learning_rate": 1e-3}


def _baseline(path: Path) -> Callable[[int], None]:
    file = path.open("w")

    def log(step: int) -> None:
        file.write(json.dumps({"step": step, "global_step": step, "time": time.time(), **_metrics(step)}) + "\n")
        file.flush()

    return log


def _record(path: Path) -> Callable[[int], None]:
    record = MetricRecord(path)
    return lambda step: record.log(step, _metrics(step))


def _journal(root: Path) -> Callable[[int], None]:
    journal = FoldJournal(RunFolder(root), 0)

    def log(step: int) -> None:
        journal.log(step, {"train/loss_step": 1 / (step + 1), "learning_rate": 1e-3}, time.time())

    return log


def _time_sync(path: Path) -> float:
    record, seconds = MetricRecord(path), []
    for step in range(20):
        record.log(step, _metrics(step))
        began = time.perf_counter()
        record.sync()
        seconds.append(time.perf_counter() - began)
    return sorted(seconds)[len(seconds) // 2]


if __name__ == "__main__":
    main()
