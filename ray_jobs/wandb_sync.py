"""Uploads to W&B what is missing there of a run, from its metric records, and checks that every row has arrived.

    python ray_jobs/wandb_sync.py auctions tracking.project=prices

It asks the server what it holds and sends the rest, so it can be repeated; local W&B files that a kill has torn are
repaired on the way. RUN may name a tuning, too. A field that is not given stays as the run has it.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository's root, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from ray_jobs.cli.arguments import OfRun, parse
from ray_jobs.cli.entry import main_with_errors
from ray_jobs.cli.lookup import find_run
from ray_jobs.config.overrides import override, with_wandb_environment
from ray_jobs.config.run import RunConfig, TrackingConfig
from ray_jobs.errors import RunError
from ray_jobs.runs.folder import RunFolder, refuse_member
from ray_jobs.runs.remote.run_mirror import hold_run
from ray_jobs.tracking.wandb_settings import read_wandb_settings


@dataclass(frozen=True)
class Arguments(OfRun):
    """What is typed besides fields."""

    timeout: float = 600.0
    """How many seconds the upload may take."""
    new_ids: bool = False
    """Upload everything as new W&B runs: W&B never takes the id of a deleted run again."""


def main(argv: list[str]) -> int:
    typed = parse("wandb_sync.py", argv, __doc__, Arguments, {"tracking": TrackingConfig()})
    given = typed.arguments
    folder = RunFolder(find_run(given.run, typed.storage, takes_tuning=True))
    refuse_member(folder)
    if problem := read_wandb_settings().problem:
        raise RunError(f"{problem}. Correct this file first, as it may name the server of the rows")
    with hold_run(folder):
        config = with_wandb_environment(folder.read_config(), os.environ)
        config = override(config, typed.fields, sections=("tracking",))
        folder.write_config(config)
        online = dataclasses.replace(config, tracking=dataclasses.replace(config.tracking, wandb="online"))
        return upload(folder, online, given.timeout, new_ids=given.new_ids)


def upload(folder: RunFolder, config: RunConfig, timeout_s: float, *, new_ids: bool) -> int:
    """Sends what is missing and checks it; 0: the server holds every row, 1: not (the message says how many)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from ray_jobs.cli.console import open_console
    from ray_jobs.runs.record import count_lines
    from ray_jobs.tracking.wandb_runs import forget_uploaded, list_wandb_runs, renew_ids, settle_ids
    from ray_jobs.tracking.wandb_sink import WandbSink

    console = open_console()
    settle_ids(folder, config)
    if new_ids:
        renew_ids(folder, config)
    forget_uploaded(folder)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bars = {
            run.key: progress.add_task(run.name, total=count_lines(run.record))
            for run in list_wandb_runs(folder, config)
        }

        def show(rows: dict[str, int]) -> None:
            for key, number in rows.items():
                progress.update(bars[key], completed=number)

        with WandbSink(folder, config, console.print, on_progress=show, falls_back=False) as sink:
            sink.start()
            is_whole = sink.finish(timeout_s)
    return 0 if is_whole else 1


if __name__ == "__main__":
    main_with_errors(main)
