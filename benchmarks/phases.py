"""A whole run by phase as its rows grow: features of a small frozen encoder, three folds at once, ensemble, submission,
report, and the same command again.

    python benchmarks/phases.py [--rows 20000 200000 1000000]

A table with texts of about 60 characters, dates, and a picture of 32 pixels for each row (links to a few files), and a
test table of a tenth of the rows. The encoder is `tiny-clip` (embedding of 64 numbers), frozen; one epoch, batches of
4,096. Each phase in wall and in CPU seconds of all processes: where other work shares the machine, CPU seconds count,
though those of Ray's processes, and of who waits for others, grow with the wall time. A phase ends when the file of the
run is there that it leaves. Prints a line of JSON for each size, and between each two sizes the CPU microseconds that a
further row costs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

import numpy as np
import pandas as pd
from memory import draw_pictures, make_data, measure
from predict_memory import find_family

from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import read_lines

MODEL = "model.freeze=true model.allow_random_frozen=true model.token_dropout=0 training.horizontal_flip=false"
TRAINING = "training.epochs=1 training.batch_size=4096 training.eval_batch_size=4096"
QUIET = "tracking.wandb=disabled run.dashboard=false run.name=phases"
TICKS = os.sysconf("SC_CLK_TCK")
PHASES = ("check", "inputs", "start", "encode and train", "combine and submit", "report", "again")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 200_000, 1_000_000])
    found: list[dict[str, Any]] = []
    for num_rows in parser.parse_args().rows:
        with tempfile.TemporaryDirectory() as scratch:
            root, storage = Path(scratch) / "data", Path(scratch) / "runs"
            make_data(root, num_rows)
            add_test_rows(root, num_rows // 10)
            time.sleep(11)  # nothing is remembered of files that were written just now
            words = [*MODEL.split(), *TRAINING.split(), *QUIET.split(), f"data.root={root}", f"run.storage={storage}"]
            first, again = watch(words), watch(words)
            found.append({"rows": num_rows} | cut(RunFolder(storage / "phases"), first, again))
        print(json.dumps(found[-1]), flush=True)
    for before, after in pairwise(found):
        further = after["rows"] - before["rows"]
        slopes = {phase: round((after[phase]["cpu_s"] - before[phase]["cpu_s"]) / further * 1e6, 1) for phase in PHASES}
        print(json.dumps({"rows": [before["rows"], after["rows"]], "cpu_us_a_row": slopes}), flush=True)


def add_test_rows(root: Path, number: int) -> None:
    """As the training rows, with other texts and without targets."""
    frame = pd.read_csv(root / "train_val.csv", nrows=number).drop(columns="views")
    frame["id"] = [f"t{row:07d}" for row in range(number)]
    frame["title"] = "another " + frame["title"]
    frame.to_csv(root / "test.csv", index=False)
    (root / "test").mkdir()
    for name, picture in zip(frame["id"], draw_pictures(number, seed=2), strict=True):
        os.symlink(f"../{picture}.jpg", root / "test" / f"{name}.jpg")


def watch(words: list[str]) -> dict[str, Any]:
    """Runs the K-fold job; `times` and `cpu_s` of all its processes until then, twice a second, and `peaks` by kind of
    process of its memory in MiB."""
    used: dict[tuple[int, str], float] = {}
    times, totals, peaks = [time.time()], [0.0], Counter()
    job = subprocess.Popen([sys.executable, "ray_jobs/kfold.py", *words], cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    while job.poll() is None:
        family = find_family(job.pid)
        for pid in family:
            with suppress(OSError):
                values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                used[pid, values[19]] = (int(values[11]) + int(values[12])) / TICKS
        held = [measure(pid) for pid in family]
        for kind, mib in held:
            peaks[kind] = max(peaks[kind], round(mib))
        peaks["all"] = max(peaks["all"], round(sum(mib for _, mib in held)))
        times.append(time.time())
        totals.append(sum(used.values()))
        time.sleep(0.5)
    if job.returncode:
        raise SystemExit(f"kfold.py ended with {job.returncode}")
    return {"times": [*times, time.time()], "cpu_s": [*totals, totals[-1]], "peaks": dict(peaks)}


def cut(folder: RunFolder, first: dict[str, Any], again: dict[str, Any]) -> dict[str, Any]:
    """Wall and CPU seconds by phase."""
    events = read_lines(folder.events)
    ends = [
        folder.config.stat().st_mtime,
        max(path.stat().st_mtime for path in folder.inputs.rglob("*")),
        max(row["time"] for row in events if row["event"] == "FoldStarted"),
        max(row["time"] for row in events if row["event"] == "FoldCompleted"),
        folder.submission("mean").stat().st_mtime,
        first["times"][-1],
    ]
    edges = [first["times"][0], *ends]
    cpu_s = np.interp(edges, first["times"], first["cpu_s"])
    spent = {
        phase: {"wall_s": round(wall, 1), "cpu_s": round(float(cpu), 1)}
        for phase, wall, cpu in zip(PHASES, np.diff(edges), np.diff(cpu_s), strict=False)
    }
    spent["again"] = {"wall_s": round(again["times"][-1] - again["times"][0], 1), "cpu_s": round(again["cpu_s"][-1], 1)}
    return spent | {"peak_mib": first["peaks"]}


if __name__ == "__main__":
    main()
