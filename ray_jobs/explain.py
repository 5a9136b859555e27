"""Measures what a finished run's models look at: by how much the error of out-of-fold rows grows when a column, or a
whole modality such as the picture, is shuffled among them.

    python ray_jobs/explain.py auctions
    python ray_jobs/explain.py auctions --rows 5000

Each row is predicted by the model that has not seen it, in this process. Of rows with pictures those that are predicted
worst and best are predicted again with parts of them covered. The result is importance.csv and occlusion/ in the run's
folder, and pictures in its report. Of a run with members it is of the run's own recipe.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository's root, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from ray_jobs.cli.arguments import OfRun, parse
from ray_jobs.cli.entry import main_with_errors
from ray_jobs.cli.lookup import find_whole_run
from ray_jobs.errors import RunError
from ray_jobs.runs.remote.run_mirror import hold_run


@dataclass(frozen=True)
class Arguments(OfRun):
    """What is typed besides fields."""

    rows: int = 1000
    """Out-of-fold rows that are predicted anew, drawn at random; each is predicted five times for each input."""


def main(argv: list[str]) -> int:
    typed = parse("explain.py", argv, __doc__, Arguments)
    given = typed.arguments
    if given.rows < 10:
        raise RunError(f"--rows={given.rows}: expected at least 10")
    folder = find_whole_run(given.run, typed.storage)
    from ray_jobs.cli.console import open_console
    from ray_jobs.prediction.importance import find_importance, find_rows, read_folds
    from ray_jobs.prediction.occlusion import find_occlusion, write_occlusion
    from ray_jobs.reporting.html_report import write_report_or_warn
    from ray_jobs.reporting.outcome import print_importance
    from ray_jobs.results.importance_file import write_importance
    from ray_jobs.results.run_files import with_own_recipe
    from ray_jobs.runs.json_files.summary import read_summary

    config, console = folder.read_config(), open_console()
    with hold_run(folder):
        say = partial(console.print, style="dim")
        own = with_own_recipe(config)
        rows = find_rows(folder, own)
        folds = read_folds(folder, own, rows, given.rows)
        found = find_importance(own, rows, folds, say)
        write_importance(folder, config, found, sum(len(one.ids_n) for one in folds))
        write_occlusion(folder, find_occlusion(folder, own, rows, folds, say))
        print_importance(console, folder)
        write_report_or_warn(folder, config, read_summary(folder))
    return 0


if __name__ == "__main__":
    main_with_errors(main)
