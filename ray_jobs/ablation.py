"""Evaluates every model that the folds of a finished run came through, on rows whose truth is known: what does each
stage add?

    python ray_jobs/ablation.py answers --data test.jsonl

It is as evaluate.py, with the models before. What the report says of the held-out rows needs no command.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository's root, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from ray_jobs.cli.entry import main_with_errors
from ray_jobs.evaluate import run_evaluation


def main(argv: list[str]) -> int:
    return run_evaluation("ablation.py", argv, __doc__, is_ablation=True)


if __name__ == "__main__":
    main_with_errors(main)
