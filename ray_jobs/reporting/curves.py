"""What a training recorded, as tables: epochs and batches of each fold, from CSV files or from the metric record.

It reads files of this project and of other tools that write the same fixed columns. It computes and draws nothing.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from ray_jobs.errors import RunError
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import read_lines
from ray_jobs.tracking.csv_files import BATCH_COLUMNS, EPOCH_COLUMNS, Epochs
from trainers.values import describe_missing, suggest

VALIDATION_LOSS = ("val/loss_epoch", "val/loss", "epoch/val_loss")
_NOT_NUMBERS = ("Is_Best_Model", "Timestamp")


@dataclass(frozen=True)
class Curve:
    """One training.

    Attributes:
        label: `fold 0`, or the file's name.
        source: the file it was read from.
        epochs: a row an epoch with the numbers of `EPOCH_COLUMNS` and the trainer's own ones; NaN where unknown.
        batches: a row a batch with the numbers of `BATCH_COLUMNS`; empty where none were recorded.
        note: what the user should know about the file, or nothing.
        unit: what a row of `epochs` is: an epoch or, of a training by steps, an evaluation.
    """

    label: str
    source: Path
    epochs: pd.DataFrame
    batches: pd.DataFrame
    note: str = ""
    unit: str = "epoch"

    @property
    def validation_loss(self) -> str | None:
        """The column of the validation loss, if there is one."""
        return next((name for name in VALIDATION_LOSS if name in self.epochs), None)


def read_run(folder: RunFolder) -> list[Curve]:
    """Every fold of a run that has finished an epoch: its record, which is the truth; its newest CSV file where a run
    has no record."""
    curves = [_read_fold(folder, number) for number in find_folds(folder)]
    return of_one_unit([curve for curve in curves if curve is not None])


def find_folds(folder: RunFolder) -> list[int]:
    """Folds that have recorded anything."""
    names = (re.fullmatch(r"fold_(\d+)(\.jsonl)?", path.name) for path in folder.metrics.glob("fold_*"))
    return sorted({int(match[1]) for match in names if match})


def read_record(path: Path) -> Curve:
    """A fold's metric record; its name says which fold. Of a training by steps, which ends no epochs, its
    evaluations."""
    rows = read_lines(path)
    by_epoch = _fold_rows(path, rows, takes_evaluations=False)
    if not by_epoch.epochs.empty:
        return by_epoch
    by_evaluation = _fold_rows(path, rows, takes_evaluations=True)
    if by_evaluation.epochs.empty:
        return by_epoch
    note = "by evaluations, as no epoch has ended"
    return replace(by_evaluation, unit="evaluation", note=note)


def of_one_unit(curves: Sequence[Curve]) -> list[Curve]:
    """The curves of a run that share an axis: where a fold has ended an epoch, those of such folds."""
    by_epoch = [curve for curve in curves if curve.unit == "epoch"]
    return by_epoch or list(curves)


def _fold_rows(path: Path, rows: Sequence[Mapping[str, Any]], *, takes_evaluations: bool) -> Curve:
    state, epochs, batches = Epochs(f"{path.stem}/", takes_evaluations), [], []
    for row in rows:
        epoch, num_losses = state.epoch, len(state.losses)
        ended = state.add(row)
        if ended:
            cells = (ended.epoch, ended.mean_loss, ended.min_loss, ended.max_loss, ended.rate, ended.seconds)
            epochs.append(dict(zip(EPOCH_COLUMNS, (*cells, ended.best_loss), strict=False)) | dict(ended.further))
        elif len(state.losses) > num_losses:
            batches.append((epoch, num_losses, state.losses[-1], state.rate))
    table = pd.DataFrame(epochs, columns=None if epochs else list(EPOCH_COLUMNS))
    label = path.stem.replace("_", " ")
    return Curve(label, path, _keep_numbers(table), pd.DataFrame(batches, columns=list(BATCH_COLUMNS[:4])))


def read_epoch_file(path: Path, batch_file: Path | None = None) -> Curve:
    """An epoch CSV file, and the batch file that was named or that stands beside it under the same stamp.

    Raises:
        RunError: a file is missing, is empty, lacks columns, or holds something else than numbers.
    """
    epochs, note = _read_csv(path, EPOCH_COLUMNS)
    if epochs.empty:
        raise RunError(f"{path} holds no epoch: training has not finished one yet; try again later")
    beside = path.with_name(path.name.replace("epoch_metrics_", "batch_metrics_"))
    batch_file = batch_file or (beside if beside != path and beside.is_file() else None)
    batches = _read_csv(batch_file, BATCH_COLUMNS)[0] if batch_file else pd.DataFrame(columns=list(BATCH_COLUMNS[:4]))
    return Curve(path.stem.removeprefix("epoch_metrics_"), path, epochs, batches, note)


def _read_fold(folder: RunFolder, number: int) -> Curve | None:
    record = folder.fold_record(number)
    if record.exists():
        curve = read_record(record)
        return None if curve.epochs.empty else curve
    files = sorted(folder.fold_csv(number).glob("epoch_metrics_*.csv"))
    if not files or _read_csv(files[-1], EPOCH_COLUMNS)[0].empty:
        return None
    return replace(read_epoch_file(files[-1]), label=f"fold {number}")


def _read_csv(path: Path, expected: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """The numbers of a CSV file, and a note on what was left out."""
    try:
        lines = path.read_text("utf-8-sig").splitlines(keepends=True)
    except FileNotFoundError:
        beside = sorted(file.name for file in path.parent.glob("*.csv")) if path.parent.is_dir() else []
        raise RunError(f"{path}: no such file{suggest(path.name, beside)}") from None
    except UnicodeDecodeError:
        raise RunError(
            f"{path} is not a text file: expected a CSV file with the columns {', '.join(expected)}"
        ) from None
    if not lines:
        raise RunError(f"{path} is empty: training has not finished an epoch yet; try again later")
    found = lines[0].strip().split(",")
    if missing := [name for name in expected if name not in found]:
        raise RunError(f"{path}: {describe_missing([(name, '') for name in missing], found)}")
    note = ""
    if len(lines) > 1 and not _is_whole(lines[-1], found):
        lines.pop()
        note = f"the last line of {path.name} is torn and was left out"
    try:
        table = pd.read_csv(io.StringIO("".join(lines)))
        for name in expected:
            if name not in _NOT_NUMBERS:
                table[name] = pd.to_numeric(table[name]).astype(float)
    except (ValueError, TypeError) as error:  # pandas' ParserError is a ValueError
        raise RunError(f"{path} is damaged: {error}; expected a CSV file of numbers") from None
    return _keep_numbers(table), note


def _is_whole(line: str, header: Sequence[str]) -> bool:
    cells = line.rstrip("\r\n").split(",")
    if len(cells) < len(header):
        return False
    # Without a line end the last cell may be cut; a time stamp shows that it is not.
    return line.endswith("\n") or (header[-1] == "Timestamp" and len(cells[-1]) == len("2000-01-01 00:00:00"))


def _keep_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Number columns as floats; a column of the trainer's own that holds no number is left out."""
    columns = {}
    for name in table:
        numbers = pd.to_numeric(table[name], errors="coerce").astype(float)
        if name in EPOCH_COLUMNS or numbers.notna().any():
            columns[name] = numbers
    return pd.DataFrame(columns).drop(columns=list(_NOT_NUMBERS), errors="ignore")
