"""The submission stage again, on the finished folds of a run; nothing is trained.

    python ray_jobs/submit.py RUN [ensemble.method=median ...] [run.storage=~/ray_results]

RUN is a run's folder, or its name below run.storage.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository's root, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from ray_jobs.cli import find_run, main_with_errors, override, with_wandb_environment
from ray_jobs.errors import IncompleteRunError
from ray_jobs.members import refuse_member
from ray_jobs.run_folder import RunFolder, read_json, read_parquet


def main(argv: list[str]) -> int:
    root, overrides = find_run(argv, __doc__)
    folder = RunFolder(root)
    refuse_member(folder)
    with folder.lock():
        old = with_wandb_environment(folder.read_config(), os.environ)
        config = override(old, overrides, __doc__, sections=("ensemble",))
        from ray_jobs.ensemble_stage import refuse_damaged, run_ensemble_stage
        from ray_jobs.planning import check_ensemble, with_absolute_external

        config = with_absolute_external(config)
        check_ensemble(config, read_parquet(folder.fold_plan))
        for own in map(folder.of_member, config.combined_members):
            refuse_damaged(own, config.folds.count)
            missing = sorted(set(range(config.folds.count)) - set(own.completed_folds(config.folds.count)))
            if missing:
                raise IncompleteRunError(
                    f"folds {missing} of {own.root} are not finished; train them first: the command is in provenance.json"
                )
        from ray_jobs.summary import conclude
        from ray_jobs.terminal import open_console
        from ray_jobs.tracking.wandb_sink import WandbSink

        console, began = open_console(), time.monotonic()
        with WandbSink(folder, config, console.print) as sink:
            sink.start()
            folder.write_config(config)
            stage = run_ensemble_stage(str(folder.root))
            seconds = read_json(folder.summary, default={}).get("seconds", {}) | {"ensemble": time.monotonic() - began}
            seconds.pop("total", None)
            conclude(folder, config, stage, seconds, sink, console)
    return 0


if __name__ == "__main__":
    main_with_errors(main)
