"""The live table of a run, from another terminal. Reads the run's folder only; follows it until its driver ends.

    python ray_jobs/status.py RUN [run.storage=~/ray_results]

RUN is a run's or a tuning's folder, or its name below run.storage; a trial's folder is a run's.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository's root, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.console import Console

from ray_jobs.cli.console import open_console
from ray_jobs.cli.entry import main_with_errors
from ray_jobs.cli.lookup import find_run
from ray_jobs.errors import RunError
from ray_jobs.reporting.live_table import Watcher, fold_table
from ray_jobs.reporting.outcome import print_outcome
from ray_jobs.runs.files import read_json
from ray_jobs.runs.folder import RunFolder, find_members
from ray_jobs.runs.remote.run_mirror import is_at_work
from ray_jobs.runs.status import FoldState, FoldStatus, read_statuses

INTERVAL_S = 1.0


def main(argv: list[str]) -> int:
    root, rest = find_run(argv, __doc__, takes_tuning=True)
    if rest:
        raise RunError(f"status.py does not know {' '.join(rest)}; usage: status.py RUN [run.storage=FOLDER]")
    folder, console = RunFolder(root), open_console()
    if folder.is_tuning():
        return show_tuning(folder, console)
    config = folder.read_config()
    folders, num_folds = list(find_members(folder, config).values()), config.folds.count
    if not is_at_work(folder):
        left = {own.member: [as_left_by_driver(one) for one in read_statuses(own, num_folds)] for own in folders}
        console.print(fold_table(left, f"run {folder.root.name} (no driver is at work)"))
    else:
        with Watcher(folders, num_folds, console) as watcher:
            while is_at_work(folder):
                watcher.update()
                time.sleep(INTERVAL_S)
    summary = read_json(folder.summary, default=None)
    if summary:
        print_outcome(console, folder, summary)
    return 0


def show_tuning(folder: RunFolder, console: Console) -> int:
    """The trials of a tuning; followed until its driver ends."""
    from ray_jobs.tuning.display import follow_tuning

    follow_tuning(folder, console, INTERVAL_S)
    return 0


def as_left_by_driver(status: FoldStatus) -> FoldStatus:
    """Nobody trains a fold whose driver is gone."""
    if status.state != FoldState.TRAINING:
        return status
    return replace(status, state=FoldState.INTERRUPTED, started=None)


if __name__ == "__main__":
    main_with_errors(main)
