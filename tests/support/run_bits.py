"""What has to be the same, bit for bit, in two runs that train the same."""

from __future__ import annotations

import os

from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import read_lines

TIMINGS = (
    "time", "train/epoch_time", "train/samples_per_second", "train/data_wait_share", "train/tokens_per_second",
    "train/elapsed_time",
)  # fmt: skip


def describe_bits(run: RunFolder, num_folds: int = 3) -> list:
    """Predictions, checkpoints (their names hold their checksums), records without times."""
    bits: list = [run.submission("mean").read_bytes()]
    for fold in range(num_folds):
        files = run.fold(fold)
        bits += [sorted(os.listdir(files.checkpoint(name))) for name in ("best", "final")]
        bits += [path.read_bytes() for path in sorted((files.root / "predictions").iterdir())]
        bits += [
            [(name, value) for name, value in row.items() if not name.endswith(TIMINGS)]
            for row in read_lines(run.fold_record(fold))
        ]
    return bits
