"""Combines the finished folds of a run anew and writes its submission and report; nothing is trained.

    python ray_jobs/submit.py auctions ensemble.method=median

A field that is not given stays as the run has it.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository's root, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from ensemble.config import EnsembleConfig
from ray_jobs.cli.arguments import OfRun, parse
from ray_jobs.cli.entry import main_with_errors
from ray_jobs.cli.lookup import find_whole_run
from ray_jobs.config.overrides import override, with_wandb_environment
from ray_jobs.runs.remote.run_mirror import hold_run
from ray_jobs.tracking.wandb_settings import keep_wandb_mode


def main(argv: list[str]) -> int:
    typed = parse("submit.py", argv, __doc__, OfRun, {"ensemble": EnsembleConfig()})
    folder = find_whole_run(typed.arguments.run, typed.storage)
    with hold_run(folder) as mirror:
        old = with_wandb_environment(keep_wandb_mode(folder.read_config()), os.environ)
        config = override(old, typed.fields, sections=("ensemble",))
        from ray_jobs.cli.console import open_console
        from ray_jobs.driver.conclude import conclude, read_times
        from ray_jobs.results.checks import check_finished
        from ray_jobs.results.stage import run_ensemble_stage
        from ray_jobs.tracking.wandb_sink import WandbSink

        config = check_finished(folder, config, config.combined_members)
        console, began = open_console(), time.monotonic()
        with WandbSink(folder, config, console.print, put=mirror.push_run) as sink:
            sink.start()
            folder.write_config(config)
            seconds = read_times(folder)
            stage = run_ensemble_stage(str(folder.root))
            seconds["ensemble"] = time.monotonic() - began
            conclude(folder, config, stage, seconds, sink, console)
    return 0


if __name__ == "__main__":
    main_with_errors(main)
