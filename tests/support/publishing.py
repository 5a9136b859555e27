"""Records that a publisher follows, and the processes that it starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ray_jobs.runs.files import read_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import MetricRecord
from support.processes import REPOSITORY


def find_cores(folder: RunFolder) -> list[int]:
    """Process ids of the wandb-core processes that the run's publisher has noted."""
    noted = read_json(folder.wandb / "publisher.json", default={})
    return [int(process) for of_node in noted.values() for process in of_node]


def sync(folder: RunFolder, *words: str) -> subprocess.CompletedProcess[str]:
    """`wandb_sync.py` of a run."""
    return subprocess.run(
        [sys.executable, "ray_jobs/wandb_sync.py", str(folder.root), *words],
        cwd=REPOSITORY,
        text=True,
        capture_output=True,
        timeout=240,
        check=False,
    )


def fill(path: Path, fold: int, num_rows: int, keep: int = 0) -> None:
    """Writes rows as a trainer with these steps would, the same values each time."""
    record = MetricRecord(path, keep=keep)
    for step in range(keep, num_rows):
        record.log(step, {f"fold_{fold}/train/loss_step": step / 7, f"fold_{fold}/learning_rate": 1e-3})
    record.close()
