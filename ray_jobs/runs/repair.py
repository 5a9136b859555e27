"""What of a run is damaged when a driver starts, and what is done about it. Each find is said, with its file.

A finished fold whose files are not what its manifest says is trained again, which gives the same bits. What can be told
from other files (a fold's status, the fold plan) is written anew. Unfinished folds look after their own checkpoints.
"""

from __future__ import annotations

import contextlib
import typing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ray_jobs.errors import RunFolderError
from ray_jobs.runs.files import read_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.events import NOT_KEPT, EpochReported, EvaluationReported, Event, RunStarted, advance
from ray_jobs.runs.json_files.status import FoldStatus, write_status
from ray_jobs.runs.record import read_lines
from trainers.storage.whole_files import sha256_file


def reset_damaged_folds(folder: RunFolder, num_folds: int, say: Callable[[str], None]) -> None:
    """Looks at everything that finished folds left, and sets those back whose files are damaged.

    Args:
        folder: the run, held by this driver.
        num_folds: folds of its plan.
        say: shows a line to the user.
    """
    for fold in range(num_folds):
        files = folder.fold(fold)
        if files.status.exists() and read_json(files.status, default=None) is None:
            say(f"{files.status} is damaged: it is made anew from events.jsonl and the fold's record")
            write_status(folder, rebuild_status(folder, fold))
        if files.manifest.exists() and (damaged := files.find_damage()):
            say(f"{_list(damaged)}: missing or damaged; fold {fold} has to be trained again and gives the same bits")
            files.clear(keep_checkpoints=False)
    for path in _find_damaged_shared_files(folder):
        path.unlink()
        finished = folder.completed_folds(num_folds)
        if not finished:
            say(f"{path} is damaged: the next fold writes it again")
            continue
        say(f"{path} is damaged: fold {finished[0]} has to be trained again, which writes it; the others are kept")
        folder.fold(finished[0]).clear(keep_checkpoints=False)


def rebuild_status(folder: RunFolder, fold: int) -> FoldStatus:
    """A fold's status from the lines that `events.jsonl` and, if it is whole, the fold's record have of it."""
    kinds = {kind.__name__: kind for kind in typing.get_args(Event) if kind not in (RunStarted, *NOT_KEPT)}
    status = FoldStatus(fold)
    for row in read_lines(folder.events):
        if row["event"] == RunStarted.__name__:
            sizes = {number: (train, val) for number, train, val in row["sizes"]}
            train_size, val_size = sizes.get(fold, (0, 0))
            status = replace(status, train_size=train_size, val_size=val_size)
        elif row.get("fold") == fold and row["event"] in kinds:
            values = {name: value for name, value in row.items() if name not in ("event", "time")}
            status = advance(status, kinds[row["event"]](**values), row["time"])
    prefix, rows = f"fold_{fold}/", []
    with contextlib.suppress(RunFolderError):
        rows = read_lines(folder.fold_record(fold))
    for row in rows:
        metrics = {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}
        if metrics.get("score") is None:
            continue
        whose, step = (fold, status.attempt), row["global_step"]
        scored: EpochReported | EvaluationReported = EvaluationReported(*whose, step, metrics)
        if "epoch" in metrics:
            scored = EpochReported(*whose, metrics["epoch"], status.num_epochs, step, metrics)
        status = advance(status, scored, row["time"])
    return status


def _find_damaged_shared_files(folder: RunFolder) -> list[Path]:
    """Tensors that all folds share; their name ends with the beginning of their checksum."""
    paths = sorted(folder.root.glob("*-*.safetensors"))
    return [path for path in paths if not sha256_file(path).startswith(path.stem.rpartition("-")[2])]


def _list(paths: list[Path]) -> str:
    return f"{paths[0]}" + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
