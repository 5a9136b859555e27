"""Tries every ensemble method, space, checkpoint, subset of members and weight parameter on a run's finished folds with
Ray Tune. Nothing is trained.

    python ray_jobs/sweep.py auctions --apply

What is tried is scored on rows that no model has seen. An interrupted sweep goes on. A field that is not given stays as
the run has it.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository's root, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from ensemble.config import EnsembleConfig
from ray_jobs.cli.arguments import OfRun, parse
from ray_jobs.cli.entry import main_with_errors
from ray_jobs.cli.lookup import find_whole_run
from ray_jobs.config.overrides import override, with_wandb_environment
from ray_jobs.config.run import RunConfig
from ray_jobs.errors import RunError
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.remote.run_mirror import hold_run
from ray_jobs.tracking.wandb_settings import keep_wandb_mode


@dataclass(frozen=True)
class Arguments(OfRun):
    """What is typed besides fields."""

    apply: bool = False
    """Take the best for the run's ensemble, and write its submission, if it is shown to be better."""


def main(argv: list[str]) -> int:
    typed = parse("sweep.py", argv, __doc__, Arguments, {"ensemble": EnsembleConfig()})
    folder = find_whole_run(typed.arguments.run, typed.storage)
    with hold_run(folder) as mirror:
        config = with_wandb_environment(keep_wandb_mode(folder.read_config()), os.environ)
        config = override(config, typed.fields, sections=("ensemble",))
        if "sweep" not in config.kind.offers:
            raise RunError(
                f"{folder.root} predicts {config.kind.title}: expected a run that predicts numbers; the report "
                "compares all methods"
            )
        from ray_jobs.results.checks import check_finished

        config = check_finished(folder, config, config.member_names)
        return sweep(folder, config, mirror.push_run, applies=typed.arguments.apply)


def sweep(folder: RunFolder, config: RunConfig, put: Callable[[], object], *, applies: bool) -> int:
    """Searches, shows and records what came out, and applies it if that is wanted and it is better; `put` as in
    `WandbSink`."""
    from ray_jobs.cli.console import open_console
    from ray_jobs.driver.conclude import conclude, read_times
    from ray_jobs.results.stage import run_ensemble_stage
    from ray_jobs.results.sweep.sweep import describe_search, record_search, search
    from ray_jobs.tracking.wandb_sink import WandbSink

    console, began = open_console(), time.monotonic()
    found = search(folder, config, console)
    with WandbSink(folder, config, console.print, put=put) as sink:
        sink.start()
        record_search(folder, found)
        describe_search(console, folder, found)
        if applies and found.choice.replaces:
            config = dataclasses.replace(config, ensemble=found.as_config(config.ensemble))
            folder.write_config(config)
        elif applies:
            console.print("nothing is applied: the run's ensemble stays")
        seconds = read_times(folder)
        stage = run_ensemble_stage(str(folder.root))
        seconds["sweep"] = time.monotonic() - began
        conclude(folder, folder.read_config(), stage, seconds, sink, console)
    return 0


if __name__ == "__main__":
    main_with_errors(main)
