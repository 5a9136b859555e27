"""Draws recorded trainings and writes a text report; compares runs; follows a run; prunes old files.

    python ray_jobs/analyze.py                              the newest run below run.storage
    python ray_jobs/analyze.py RUN                          all folds of a run
    python ray_jobs/analyze.py RUN OTHER_RUN                compare runs in one picture and a table
    python ray_jobs/analyze.py RUN --follow                 redraw training_live.png until the run's driver ends
    python ray_jobs/analyze.py --metrics-file FILE          an epoch CSV file anywhere
    python ray_jobs/analyze.py RUN --keep-last 3 --dry-run  which old files pruning would remove

Pictures and reports never overwrite earlier ones.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a file: imports start at the repository's root, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from ray_jobs.cli.arguments import parse
from ray_jobs.cli.console import open_console
from ray_jobs.cli.entry import main_with_errors
from ray_jobs.cli.lookup import find_run, find_runs
from ray_jobs.cli.places import refuse_unwritable
from ray_jobs.errors import RunBusyError, RunError
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.location import find_uri
from trainers.storage.object_storage import is_uri
from trainers.values import check_number

if TYPE_CHECKING:
    from ray_jobs.reporting.curves import Curve


@dataclass(frozen=True)
class Arguments:
    """What is typed."""

    runs: tuple[str, ...]
    """Each a run's folder, its name below run.storage, or its s3:// address."""
    metrics_file: Path | None = None
    """An epoch CSV file, instead of a run."""
    batch_metrics: Path | None = None
    """Its batch CSV file."""
    output_dir: Path | None = None
    """Where to write; by default analysis/ in the run's folder, or the folder of the metrics file."""
    follow: bool = False
    """Draw again and again, until the run's driver ends."""
    interval: float = 5.0
    """Seconds between two pictures of --follow."""
    keep_days: float | None = None
    """Prune: keep what was written in the last so many days."""
    keep_last: int | None = None
    """Prune: keep the newest so many files of each kind and fold; with both, what either keeps."""
    dry_run: bool = False
    """Prune: only list."""

    def __post_init__(self) -> None:
        for flag, value in {"--interval": self.interval, "--keep-days": self.keep_days}.items():
            check_number(flag, value, above=0, instead="none")
        check_number("--keep-last", self.keep_last, least=1, instead="none")


def main(argv: list[str]) -> int:
    typed = parse("analyze.py", argv, __doc__, Arguments)
    wanted, storage = typed.arguments, typed.storage
    if wanted.metrics_file and (wanted.runs or wanted.follow):
        raise RunError(f"--metrics-file={wanted.metrics_file}: expected neither RUN nor --follow; leave them out")
    is_pruning = wanted.keep_days is not None or wanted.keep_last is not None
    if is_pruning and not wanted.runs:
        raise RunError("no RUN to prune: expected analyze.py RUN … --keep-last N")
    if wanted.dry_run and not is_pruning:
        raise RunError("--dry-run: expected --keep-days or --keep-last, which remove files; add one, or leave it out")
    folders = [RunFolder(find_run(name, storage)) for name in dict.fromkeys(wanted.runs)]
    if not folders and not wanted.metrics_file:
        folders = [_find_newest_run(storage)]
    if is_pruning:
        return _prune(folders, wanted)
    output = wanted.output_dir or (wanted.metrics_file.parent if wanted.metrics_file else folders[0].analysis)
    refuse_unwritable(output, "--output_dir=FOLDER names another")
    if wanted.metrics_file:
        return _analyse_file(wanted.metrics_file, wanted)
    if wanted.follow:
        return _follow(folders, wanted)
    return _compare(folders, wanted) if len(folders) > 1 else _analyse_run(folders[0], wanted)


def _find_newest_run(storage: str) -> RunFolder:
    if is_uri(storage):
        raise RunError(f"no RUN: expected one, as the newest run in object storage ({storage}) is not known; name it")
    runs = {
        root: max((file.stat().st_mtime for file in (root / "metrics").rglob("*")), default=0.0)
        for root in find_runs(storage)
    }
    return RunFolder(max(runs, key=lambda root: (runs[root], root.name)).resolve())


def _analyse_run(folder: RunFolder, wanted: Arguments) -> int:
    from ray_jobs.reporting.analysis_files import write_analysis

    if wanted.batch_metrics:
        raise RunError("--batch-metrics: expected --metrics-file; leave it out, as the batches of a run are found")
    write_analysis(
        f"run {folder.root.name}", _read_epochs(folder), wanted.output_dir or folder.analysis, open_console()
    )
    return 0


def _analyse_file(path: Path, wanted: Arguments) -> int:
    from ray_jobs.reporting.analysis_files import write_analysis
    from ray_jobs.reporting.curves import read_epoch_file

    curve = read_epoch_file(path, wanted.batch_metrics)
    write_analysis(path.name, [curve], wanted.output_dir or path.parent, open_console())
    return 0


def _compare(folders: Sequence[RunFolder], wanted: Arguments) -> int:
    from ray_jobs.reporting.analysis_files import write_comparison

    names = [folder.root.name for folder in folders]
    names = [str(f.root) if names.count(f.root.name) > 1 else f.root.name for f in folders]
    runs = {name: _read_epochs(folder) for name, folder in zip(names, folders, strict=True)}
    write_comparison(runs, wanted.output_dir or folders[0].analysis, open_console())
    return 0


def _follow(folders: Sequence[RunFolder], wanted: Arguments) -> int:
    from ray_jobs.reporting.live_analysis import follow_run

    if len(folders) > 1:
        raise RunError(f"--follow: expected one RUN, found {len(folders)}; name one")
    follow_run(folders[0], wanted.output_dir or folders[0].analysis, wanted.interval, open_console())
    return 0


def _prune(folders: Sequence[RunFolder], wanted: Arguments) -> int:
    from ray_jobs.runs.prune import prune_run

    if elsewhere := [uri for folder in folders if (uri := find_uri(folder))]:
        raise RunError(f"{elsewhere[0]} is in object storage: expected a run in a folder, as nothing else is pruned")
    console, verb, num_files, num_bytes = open_console(), "would remove" if wanted.dry_run else "removed", 0, 0
    for folder in folders:
        try:
            old = prune_run(folder, keep_days=wanted.keep_days, keep_last=wanted.keep_last, dry_run=wanted.dry_run)
        except RunBusyError as error:
            console.print(str(error), style="yellow")
            continue
        for file in old:
            console.print(f"{verb} {file.path} ({file.num_bytes} bytes)")
        num_files, num_bytes = num_files + len(old), num_bytes + sum(file.num_bytes for file in old)
    console.print(f"{verb} {num_files} files, {num_bytes} bytes")
    return 0


def _read_epochs(folder: RunFolder) -> list[Curve]:
    from ray_jobs.reporting.curves import read_run

    curves = read_run(folder)
    if not curves:
        raise RunError(f"no fold of {folder.root} has finished an epoch; try again later, or use --follow")
    return curves


if __name__ == "__main__":
    main_with_errors(main)
