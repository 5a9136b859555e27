"""What lies in the folder of a run, against the table of its files."""

from __future__ import annotations

from pathlib import Path

from ray_jobs.runs.file_table import TRIALS, UNKNOWN, find_file


def list_unknown_files(root: Path) -> list[str]:
    """Files of a run, or of a tuning and its trials, that the table does not know."""
    names = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file()]
    unknown = [name for name in names if find_file(name).file is UNKNOWN]
    return [*unknown, *(name for trial in root.glob(f"{TRIALS}/*") for name in list_unknown_files(trial))]
