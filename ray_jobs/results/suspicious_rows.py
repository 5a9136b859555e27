"""The rows whose truth is most likely wrong, as the kind of predictions judges them: `suspicious_rows.csv`."""

from __future__ import annotations

import csv

import numpy as np
import pyarrow as pa

from ray_jobs.config.run import RunConfig
from ray_jobs.runs.files import write_csv
from ray_jobs.runs.folder import RunFolder

MOST_ROWS = 1000
COLUMNS = ("id", "fold", "suspicion", "given", "predicted", "picture")


def write_suspects(folder: RunFolder, config: RunConfig, lines: pa.Table) -> None:
    """Writes the most suspicious rows, the first of them first; nothing where the kind does not judge them.

    Args:
        folder, config: the run.
        lines: of `oof.parquet`, of its own recipe.
    """
    found = config.kind.find_suspects(lines)
    if found is None:
        folder.suspicious_rows.unlink(missing_ok=True)
        return
    ids, folds = lines["id"].to_pylist(), lines["fold"].to_pylist()
    rows = [
        (ids[n], folds[n], float(found.suspicion_N[n]), found.given[n], found.predicted[n], _name(found.pictures, n))
        for n in np.argsort(-found.suspicion_N, kind="stable")[:MOST_ROWS].tolist()
    ]
    write_csv(folder.suspicious_rows, COLUMNS, rows)


def _name(pictures: list[str] | None, row: int) -> str:
    return "" if pictures is None else pictures[row]


def read_suspects(folder: RunFolder) -> list[dict[str, str]]:
    """The rows of the file; none where there is no such file."""
    if not folder.suspicious_rows.is_file():
        return []
    with folder.suspicious_rows.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
