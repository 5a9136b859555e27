"""Tunes fields of a recipe: each trial is a K-fold run with other values, scored by its out-of-fold predictions. The
same command continues.

    python ray_jobs/tune.py tune.name=search tune.num_trials=20 \\
        'tune.space=[optimizer.lr loguniform 1e-5 1e-2, model.dropout choice 0.0 0.1 0.3]'

A part of tune.space is a field that kfold.py takes, a kind (uniform, loguniform, randint, lograndint, choice) and its
values. Trial 0 is the recipe as it is. The score is ensemble.metric.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository's root, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from ray_jobs.cli.command_line import parse_tune
from ray_jobs.cli.entry import main_with_errors


def main(argv: list[str]) -> int:
    command, tune = parse_tune(argv, __doc__)
    from ray_jobs.tuning.space import parse_space

    space = parse_space(tune.space, command.config)
    from ray_jobs.tuning.driver import run_tuning

    return run_tuning(command, tune, space, argv)


if __name__ == "__main__":
    main_with_errors(main)
