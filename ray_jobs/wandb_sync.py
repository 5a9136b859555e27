"""Uploads to W&B what is missing there of a run, from its metric records, and checks that every row has arrived.

    python ray_jobs/wandb_sync.py RUN [--timeout=600] [--new-ids] [tracking.project=...] [run.storage=~/ray_results]

RUN is a run's folder, or its name below run.storage. It asks the server what it holds and sends the rest, so it can be
repeated; local W&B files that a kill has torn are repaired on the way. --new-ids uploads everything as new W&B runs (W&B never
takes the id of a deleted run again).
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository's root, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from ray_jobs.cli import find_run, main_with_errors, override
from ray_jobs.config import RunConfig, to_dict
from ray_jobs.errors import RunError
from ray_jobs.run_folder import RunFolder, write_json

DEFAULT_TIMEOUT_S = 600.0


def main(argv: list[str]) -> int:
    root, words = find_run(argv, __doc__)
    new_ids = "--new-ids" in words
    timeouts = [word.partition("=")[2] for word in words if word.startswith("--timeout=")]
    words = [word for word in words if word != "--new-ids" and not word.startswith("--timeout=")]
    folder = RunFolder(root)
    with folder.lock():
        config = override(folder.read_config(), words, __doc__, sections=("tracking",))
        write_json(folder.config, to_dict(config))
        online = dataclasses.replace(config, tracking=dataclasses.replace(config.tracking, wandb="online"))
        return upload(folder, online, _read_seconds(timeouts), new_ids=new_ids)


def upload(folder: RunFolder, config: RunConfig, timeout_s: float, *, new_ids: bool) -> int:
    """Sends what is missing and checks it; 0: the server holds every row, 1: not (the message says how many)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from ray_jobs.terminal import open_console
    from ray_jobs.tracking.record import count_lines
    from ray_jobs.tracking.wandb_files import mark_as_synced, repair_wandb_files
    from ray_jobs.tracking.wandb_runs import forget_uploaded, list_wandb_runs, renew_ids
    from ray_jobs.tracking.wandb_sink import WandbSink

    console = open_console()
    if new_ids:
        renew_ids(folder)
    forget_uploaded(folder)
    runs = list_wandb_runs(folder, config)
    for run in runs:
        for done in repair_wandb_files(folder.wandb, run.id):
            console.print(done)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bars = {run.key: progress.add_task(run.name, total=count_lines(run.record)) for run in runs}

        def show(rows: dict[str, int]) -> None:
            for key, number in rows.items():
                progress.update(bars[key], completed=number)

        sink = WandbSink(folder, config, console.print, on_progress=show, falls_back=False)
        sink.start()
        is_whole = sink.finish(timeout_s)
    if is_whole:
        for run in runs:
            mark_as_synced(folder.wandb, run.id)
    return 0 if is_whole else 1


def _read_seconds(values: list[str]) -> float:
    try:
        return float(values[-1]) if values else DEFAULT_TIMEOUT_S
    except ValueError:
        raise RunError(f"--timeout={values[-1]}: expected seconds") from None


if __name__ == "__main__":
    main_with_errors(main)
