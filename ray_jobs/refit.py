"""Trains a finished run's recipe on all rows, as one model for serving.

    python ray_jobs/refit.py auctions
    python ray_jobs/predict.py auctions --data new.csv --refit

The model is a run of its own, `<run>_refit` beside the run. It is trained for as many steps as the folds were on
average until their checkpoints that count. Its score is the out-of-fold one of the folds: no row is left to score it.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository's root, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from ray_jobs.cli.arguments import OfRun, parse
from ray_jobs.cli.entry import main_with_errors
from ray_jobs.cli.lookup import find_whole_run


def main(argv: list[str]) -> int:
    typed = parse("refit.py", argv, __doc__, OfRun)
    folder = find_whole_run(typed.arguments.run, typed.storage)
    from ray_jobs.driver.refit import refit_run

    return refit_run(folder, argv)


if __name__ == "__main__":
    main_with_errors(main)
