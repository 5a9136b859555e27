"""THE job: trains the folds of a recipe, combines them, writes the submission and the report.

python ray_jobs/kfold.py [--config-name=RECIPE] [field=value ...] [--dry-run] [--help]
ray job submit --working-dir . -- python ray_jobs/kfold.py ...
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository's root, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from ray_jobs.cli import Command, main_with_errors, parse_kfold
from ray_jobs.connection import HeadStart
from trainers.object_storage import is_uri


def main(argv: list[str]) -> int:
    gc.set_threshold(
        100_000, 50, 50
    )  # a fifth of the time of loading torch and Ray is the collector's, which finds nothing
    command = parse_kfold(argv)  # first: --help answers before pandas is loaded
    head_start = give_head_start(command)
    from ray_jobs.driver import run_kfold

    return run_kfold(command, argv, head_start)


def give_head_start(command: Command) -> HeadStart | None:
    """Starts Ray at once where there is all but certainly something to train: for a new run, whose folder is not there yet. Where the data
    is in object storage Ray is needed to read it, and is started when there is something new to be read."""
    run, is_remote = command.config.run, is_uri(command.config.trainer.data.root or "")
    name = run.name or command.config.recipe
    is_new = name != "auto" and not _is_there(run.storage, name)
    if command.dry_run or not (is_new or is_remote):
        return None
    head_start = HeadStart(name, dashboard=run.dashboard, joins=is_remote)
    if is_new:
        head_start.start()
    return head_start


def _is_there(storage: str, name: str) -> bool:
    """Whether the run is known on this machine; one that is only in an object storage has something to train, in all likelihood."""
    from ray_jobs.mirror import working_folder

    return (working_folder(storage, name) if is_uri(storage) else Path(storage).expanduser() / name).exists()


if __name__ == "__main__":
    main_with_errors(main)
