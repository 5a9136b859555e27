"""Trains one model of any recipe, without folds.

    python ray_jobs/train.py --config-name=unet_segmentation_small --epochs 5
    ray job submit --working-dir . -- python ray_jobs/train.py ...

It is as kfold.py with one split, of which folds.holdout_fraction of the rows validates.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository's root, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from ray_jobs.cli.command_line import parse_kfold
from ray_jobs.cli.entry import main_with_errors


def main(argv: list[str]) -> int:
    command = parse_kfold(argv, __doc__, is_one_run=True)  # first: --help answers before pandas is loaded
    from ray_jobs.driver.kfold import run_kfold

    return run_kfold(command, argv)


if __name__ == "__main__":
    main_with_errors(main)
