"""Shows the live table of a run, or the trials of a tuning, from another terminal, until its driver ends.

    python ray_jobs/status.py auctions

RUN may name a tuning, too; a trial's folder is a run's. Only the folder is read.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository's root, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.console import Console

from ray_jobs.cli.arguments import OfRun, parse
from ray_jobs.cli.console import open_console
from ray_jobs.cli.entry import main_with_errors
from ray_jobs.cli.lookup import find_run
from ray_jobs.reporting.live_table import Watcher, fold_table
from ray_jobs.reporting.outcome import print_outcome
from ray_jobs.runs.folder import RunFolder, find_members
from ray_jobs.runs.json_files.status import FoldState, FoldStatus, read_statuses
from ray_jobs.runs.json_files.summary import find_summary
from ray_jobs.runs.remote.run_mirror import is_at_work

INTERVAL_S = 1.0


def main(argv: list[str]) -> int:
    typed = parse("status.py", argv, __doc__, OfRun)
    folder = RunFolder(find_run(typed.arguments.run, typed.storage, takes_tuning=True))
    console = open_console()
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
    summary = find_summary(folder)
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
