"""Parts that grew faster than the rows, folds or candidates, at ten times the size where it hurt, beside what they did
before. Prints a line of JSON a part; CPU seconds of this process.

    python benchmarks/scale_parts.py [sweep] [names] [blocks] [maps] [events] [statuses]
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pyarrow as pa

from ensemble.kinds import load_kind
from ensemble.members.search import Scored as ScoredCandidates
from ensemble.members.search import choose, choose_scored, score_candidates
from ensemble.run import Columns, Evaluation
from ray_jobs.runs.files import write_parquet
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.status import FoldState, FoldStatus, StatusReader, last_attempt, read_status, write_status
from ray_jobs.runs.record import read_lines
from ray_jobs.worker.predictions import arrange, save_in_parts
from trainers.predictions import PredictedMap
from trainers.storage import row_blocks


def main() -> None:
    parts = {name.removeprefix("measure_"): part for name, part in globals().items() if name.startswith("measure_")}
    for name in sys.argv[1:] or parts:
        with tempfile.TemporaryDirectory() as scratch:
            print(json.dumps({"part": name} | parts[name](Path(scratch))), flush=True)


def measure_sweep(scratch: Path, num_candidates: int = 1000, num_rows: int = 20_000) -> dict[str, Any]:
    """The choice among candidates whose predictions are all there, and in batches of 50 that keep scores only."""
    kind, rng = load_kind("number"), np.random.default_rng(0)
    target_N, fold_N = rng.lognormal(3, 1, num_rows), rng.integers(0, 3, num_rows)
    ids_N = np.array([f"r{row}" for row in range(num_rows)])
    columns = Columns(("a",), ids_N, fold_N, target_N, target_N[None])

    def evaluate(number: int) -> Evaluation:
        own = np.random.default_rng(number)
        return Evaluation(target_N * own.lognormal(0, 0.1 + number / num_candidates, num_rows), own.random(3))

    def choose_at_once() -> Any:
        return choose(kind, [evaluate(n) for n in range(num_candidates)], 0, columns, "msle", num_draws=100)

    def choose_in_batches() -> Any:
        parts = [
            score_candidates(kind, [evaluate(n) for n in range(start, start + 50)], columns, "msle", 100)
            for start in range(0, num_candidates, 50)
        ]
        scored = ScoredCandidates(
            np.concatenate([part.error_C for part in parts]),
            np.concatenate([part.drawn_DC for part in parts], axis=1),
            np.concatenate([part.inner_CF for part in parts]),
        )
        return choose_scored(kind, scored, 0, columns, "msle", lambda index: evaluate(index).cross_fitted_N)

    before, peak_before = _trace(choose_at_once)
    after, peak_after = _trace(choose_in_batches)
    same = (before.winner, before.chosen_F, before.nested_error) == (after.winner, after.chosen_F, after.nested_error)
    return {
        "candidates": num_candidates,
        "rows": num_rows,
        "peak_mib_before": peak_before >> 20,
        "peak_mib": peak_after >> 20,
        "same_choice": bool(same and (before.error_C == after.error_C).all()),
    }


def measure_names(scratch: Path, number: int = 20_000) -> dict[str, Any]:
    """Names of which the last one is there twice."""
    names = [f"picture_{n}" for n in range(number)]
    names.append(names[-1])
    before_s = _time(lambda: next(name for name in names if names.count(name) > 1))
    after_s = _time(lambda: next(name for name, times in Counter(names).items() if times > 1))
    return {"names": number, "cpu_s_before": before_s, "cpu_s": after_s}


def measure_blocks(scratch: Path, num_blocks: int = 20_000) -> dict[str, Any]:
    """Rows of a table whose blocks are more than a process maps, taken at random, beside those of mapped blocks."""
    num_rows = num_blocks * row_blocks.BLOCK_ROWS
    keys_NK = np.random.default_rng(0).integers(0, 256, (num_rows, row_blocks.KEY_BYTES), dtype=np.uint8)
    blocks = row_blocks.RowBlocks(scratch, keys_NK, (8,), np.float32)
    sync, os.fsync = os.fsync, lambda _: None
    for block in range(num_blocks):
        blocks.write(block, np.full((row_blocks.BLOCK_ROWS, 8), block, np.float32))
    os.fsync = sync
    found_s = _time(lambda: [blocks.find(block) for block in range(num_blocks)])
    maps = Path("/proc/self/maps").read_text().count("\n")
    mapped_B = np.random.default_rng(1).integers(0, row_blocks.MOST_MAPPED * row_blocks.BLOCK_ROWS, 10_000)
    read_B = np.random.default_rng(1).integers(row_blocks.MOST_MAPPED * row_blocks.BLOCK_ROWS, num_rows, 10_000)
    mapped_s, read_s = _time(lambda: blocks.take(mapped_B)), _time(lambda: blocks.take(read_B))
    told = {"us_a_row_mapped": round(mapped_s * 100, 1), "us_a_row_read": round(read_s * 100, 1)}
    return {"rows": num_rows, "find_cpu_s": found_s, "maps_of_process": maps} | told


def measure_maps(scratch: Path, num_maps: int = 20_000, side: int = 64) -> dict[str, Any]:
    """The peak of a process that saves a fold's maps, beside what it holds before: as one table, and in parts."""
    kind, ids_N = load_kind("map"), np.array([f"r{row:05d}" for row in range(num_maps)])

    def predict() -> Iterator[pa.Table]:
        rng = np.random.default_rng(0)
        for row_id in ids_N:
            one = PredictedMap(str(row_id), rng.random((1, side, side), np.float32), None)
            yield kind.tabulate(one, fold=0, checkpoint="best", member="main")

    def save_at_once() -> None:
        write_parquet(scratch / "before.parquet", pa.concat_tables(list(predict())).combine_chunks())

    before, now = (
        _find_peak(save_at_once),
        _find_peak(lambda: save_in_parts(scratch / "now.parquet", arrange(predict(), ids_N), lambda do: do())),
    )
    size = (scratch / "now.parquet").stat().st_size
    return {"maps": num_maps, "mib_of_file": size >> 20, "peak_mib_before": before >> 20, "peak_mib": now >> 20}


def _find_peak(do: Callable[[], None]) -> int:
    """The most bytes by which a process of its own grows."""
    found = multiprocessing.get_context("fork").SimpleQueue()

    def measure() -> None:
        began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        do()
        found.put((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - began) * 1024)

    process = multiprocessing.get_context("fork").Process(target=measure)
    process.start()
    process.join()
    return found.get()


def measure_events(scratch: Path, num_folds: int = 1000) -> dict[str, Any]:
    """The last attempt of each of K folds, of which each has three events."""
    folder = RunFolder(scratch)
    rows = [
        json.dumps({"event": event, "fold": fold, "attempt": 1, "time": time.time(), "num_workers": 1}) + "\n"
        for event in ("FoldLaunched", "FoldStarted", "FoldCompleted")
        for fold in range(num_folds)
    ]
    folder.events.write_text("".join(rows))

    def parse_for_each() -> None:
        for fold in range(0, num_folds, 50):  # every fiftieth: all take minutes
            max(row["attempt"] for row in read_lines(folder.events) if row.get("fold") == fold)

    before_s = 50 * _time(parse_for_each)
    return {"folds": num_folds, "cpu_s_before_reckoned": round(before_s, 2)} | {
        "cpu_s": _time(lambda: [last_attempt(folder, fold) for fold in range(num_folds)])
    }


def measure_statuses(scratch: Path, num_folds: int = 1000) -> dict[str, Any]:
    """A look at the statuses of K folds, of which one has changed since the last."""
    folder, reader = RunFolder(scratch), StatusReader()
    sync, os.fsync = os.fsync, lambda _: None
    for fold in range(num_folds):
        write_status(folder, FoldStatus(fold, FoldState.TRAINING, 1))
    os.fsync = sync
    reader.read(folder, num_folds)
    write_status(folder, FoldStatus(7, FoldState.FAILED, 1))
    before_s = _time(lambda: [read_status(folder, fold) for fold in range(num_folds)])
    return {"folds": num_folds, "cpu_s_before": before_s, "cpu_s": _time(lambda: reader.read(folder, num_folds))}


def _time(do: Callable[[], Any]) -> float:
    began = time.process_time()
    do()
    return round(time.process_time() - began, 4)


def _trace(do: Callable[[], Any]) -> tuple[Any, int]:
    """What it gives, and the most bytes that it has held."""
    tracemalloc.start()
    result = do()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result, peak


if __name__ == "__main__":
    main()
