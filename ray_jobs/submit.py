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

from ray_jobs.cli.entry import main_with_errors
from ray_jobs.cli.lookup import find_whole_run
from ray_jobs.config.overrides import override, with_wandb_environment
from ray_jobs.runs.remote.run_mirror import hold_run
from ray_jobs.tracking.wandb_settings import keep_wandb_mode


def main(argv: list[str]) -> int:
    folder, overrides = find_whole_run(argv, __doc__)
    with hold_run(folder):
        old = with_wandb_environment(keep_wandb_mode(folder.read_config()), os.environ)
        config = override(old, overrides, __doc__, sections=("ensemble",))
        from ray_jobs.cli.console import open_console
        from ray_jobs.driver.conclude import conclude_again
        from ray_jobs.results.checks import check_finished
        from ray_jobs.results.stage import run_ensemble_stage
        from ray_jobs.tracking.wandb_sink import WandbSink

        config = check_finished(folder, config, config.combined_members)
        console, began = open_console(), time.monotonic()
        with WandbSink(folder, config, console.print) as sink:
            sink.start()
            folder.write_config(config)
            stage = run_ensemble_stage(str(folder.root))
            conclude_again(folder, config, stage, {"ensemble": time.monotonic() - began}, sink, console)
    return 0


if __name__ == "__main__":
    main_with_errors(main)
