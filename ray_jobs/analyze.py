"""Pictures and a text report of recorded trainings; a comparison of runs; a live picture; pruning of old files.

    python ray_jobs/analyze.py                              the newest run below run.storage
    python ray_jobs/analyze.py RUN                          all folds of a run
    python ray_jobs/analyze.py RUN OTHER_RUN                compare runs in one picture and a table
    python ray_jobs/analyze.py RUN --follow                 redraw training_live.png until the run's driver ends
    python ray_jobs/analyze.py --metrics_file FILE          an epoch CSV file anywhere
    python ray_jobs/analyze.py RUN --keep-last 3 --dry-run  which old files pruning would remove

RUN is a run's folder, or its name below run.storage (run.storage=FOLDER, by default ~/ray_results).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository's root, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from ray_jobs.cli.console import open_console
from ray_jobs.cli.entry import main_with_errors
from ray_jobs.cli.lookup import find_run, find_runs, take_storage
from ray_jobs.errors import RunBusyError, RunError
from ray_jobs.reporting.curves import Curve, read_epoch_file, read_run
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.location import find_uri
from trainers.storage.object_storage import is_uri


def main(argv: list[str]) -> int:
    storage, words = take_storage(argv)
    wanted = _parse(words)
    if wanted.metrics_file and (wanted.runs or wanted.follow):
        raise RunError("--metrics_file analyses one file: give it without a RUN and without --follow")
    is_pruning = wanted.keep_days is not None or wanted.keep_last is not None
    if is_pruning and not wanted.runs:
        raise RunError("name the runs to prune: analyze.py RUN … --keep-last N")
    if wanted.dry_run and not is_pruning:
        raise RunError("--dry-run belongs to --keep-days and --keep-last: an analysis removes nothing")
    folders = [RunFolder(find_run([name, f"run.storage={storage}"], __doc__)[0]) for name in dict.fromkeys(wanted.runs)]
    if not folders and not wanted.metrics_file:
        folders = [_find_newest_run(storage)]
    if is_pruning:
        return _prune(folders, wanted)
    if wanted.metrics_file:
        return _analyse_file(wanted)
    if wanted.follow:
        return _follow(folders, wanted)
    return _compare(folders, wanted) if len(folders) > 1 else _analyse_run(folders[0], wanted)


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("analyze.py", description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("runs", nargs="*", metavar="RUN")
    parser.add_argument("--metrics_file", "--metrics-file", type=Path, metavar="FILE", help="an epoch CSV file")
    parser.add_argument("--batch_metrics", "--batch-metrics", type=Path, metavar="FILE", help="its batch CSV file")
    parser.add_argument("--output_dir", "--output-dir", type=Path, metavar="FOLDER",
                        help="default: analysis/ in the run's folder, or the folder of the metrics file")  # fmt: skip
    parser.add_argument("--follow", action="store_true", help="live, until the run's driver ends")
    parser.add_argument(
        "--interval", type=positive_number, default=5.0, metavar="SECONDS", help="of --follow (default 5)"
    )
    parser.add_argument("--keep-days", "--keep_days", type=positive_number, metavar="N",
                        help="prune: keep what was written in the last N days")  # fmt: skip
    parser.add_argument("--keep-last", "--keep_last", type=count, metavar="N",
                        help="prune: keep the newest N files of each kind and fold; with both, what either keeps")  # fmt: skip
    parser.add_argument("--dry-run", "--dry_run", action="store_true", help="prune: only list")
    return parser.parse_args(words)


def _find_newest_run(storage: str) -> RunFolder:
    if is_uri(storage):
        raise RunError(f"name the run below {storage}: which is the newest is only known of a folder")
    runs = {
        root: max((file.stat().st_mtime for file in (root / "metrics").rglob("*")), default=0.0)
        for root in find_runs(storage)
    }
    return RunFolder(max(runs, key=lambda root: (runs[root], root.name)).resolve())


def _analyse_run(folder: RunFolder, wanted: argparse.Namespace) -> int:
    from ray_jobs.reporting.analysis_files import write_analysis

    if wanted.batch_metrics:
        raise RunError("--batch_metrics belongs to --metrics_file: a run's batches are found by themselves")
    write_analysis(
        f"run {folder.root.name}", _read_epochs(folder), wanted.output_dir or folder.analysis, open_console()
    )
    return 0


def _analyse_file(wanted: argparse.Namespace) -> int:
    from ray_jobs.reporting.analysis_files import write_analysis

    path = wanted.metrics_file
    curve = read_epoch_file(path, wanted.batch_metrics)
    write_analysis(path.name, [curve], wanted.output_dir or path.parent, open_console())
    return 0


def _compare(folders: Sequence[RunFolder], wanted: argparse.Namespace) -> int:
    from ray_jobs.reporting.analysis_files import write_comparison

    names = [folder.root.name for folder in folders]
    names = [str(f.root) if names.count(f.root.name) > 1 else f.root.name for f in folders]
    runs = {name: _read_epochs(folder) for name, folder in zip(names, folders, strict=True)}
    write_comparison(runs, wanted.output_dir or folders[0].analysis, open_console())
    return 0


def _follow(folders: Sequence[RunFolder], wanted: argparse.Namespace) -> int:
    from ray_jobs.reporting.live_analysis import follow_run

    if len(folders) > 1:
        raise RunError("--follow follows one run")
    follow_run(folders[0], wanted.output_dir or folders[0].analysis, wanted.interval, open_console())
    return 0


def _prune(folders: Sequence[RunFolder], wanted: argparse.Namespace) -> int:
    from ray_jobs.runs.prune import prune_run

    if elsewhere := [uri for folder in folders if (uri := find_uri(folder))]:
        raise RunError(f"{elsewhere[0]} is in object storage, where nothing is pruned")
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
    curves = read_run(folder)
    if not curves:
        raise RunError(f"no fold of {folder.root} has finished an epoch; try again later, or use --follow")
    return curves


def positive_number(word: str) -> float:
    if not (value := float(word)) > 0:
        raise argparse.ArgumentTypeError(f"{word}: expected more than 0")
    return value


def count(word: str) -> int:
    if (value := int(word)) < 1:
        raise argparse.ArgumentTypeError(f"{word}: expected at least 1")
    return value


if __name__ == "__main__":
    main_with_errors(main)
