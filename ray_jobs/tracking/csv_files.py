"""The CSV files of a fold, made from its metric record row by row: one line an epoch, and one a batch if wanted.

They hold nothing that the record does not hold, so they can be made again from it at any time; a fold that continues
makes them anew from the rows that it keeps, under the name they had.
"""

from __future__ import annotations

import csv
import io
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray_jobs.runs.files import append_whole
from trainers.storage.whole_files import write_whole

logger = logging.getLogger(__name__)

EPOCH_COLUMNS = (
    "Epoch", "Avg_Loss", "Min_Batch_Loss", "Max_Batch_Loss", "Learning_Rate", "Epoch_Time_Seconds",
    "Best_Loss_So_Far", "Is_Best_Model", "Timestamp",
)  # fmt: skip
BATCH_COLUMNS = ("Epoch", "Batch", "Loss", "Learning_Rate", "Timestamp")
# The names under which trainers record them, the first that a row has.
STEP_LOSS = ("train/loss_step", "train/loss")
EPOCH_LOSS = ("train/loss_epoch", "train/epoch_loss")
RATE = ("learning_rate", "train/learning_rate")


@dataclass(frozen=True)
class EpochSummary:
    """One finished epoch. Losses are means over the rows of a batch or an epoch, times in seconds.

    Attributes:
        epoch: from 1.
        best_loss: lowest `mean_loss` so far.
        is_best: whether its score is the lowest so far, so that it became the best checkpoint.
        gain: by how much it beat the score before; None for the first epoch and where it did not.
        further: every other scalar of the epoch by its own name; of those that come with a step the last.
    """

    epoch: int
    mean_loss: float | None
    min_loss: float | None
    max_loss: float | None
    rate: float | None
    seconds: float | None
    best_loss: float | None
    is_best: bool
    gain: float | None
    time: float
    further: Mapping[str, Any]


@dataclass
class Epochs:
    """Folds the rows of a record into epochs, one row at a time.

    Args:
        prefix: what the fold's names begin with, `fold_0/`.
        takes_evaluations: of a training by steps, which ends no epochs, its evaluations count instead.
    """

    prefix: str
    takes_evaluations: bool = False
    epoch: int = 1
    losses: list[float] = field(default_factory=list)
    latest: dict[str, Any] = field(default_factory=dict)
    rate: float | None = None
    best_loss: float | None = None
    best_score: float | None = None

    def add(self, row: Mapping[str, Any]) -> EpochSummary | None:
        """Takes in a row; returns the epoch that it ends, if it does."""
        values = {name.removeprefix(self.prefix): value for name, value in row.items() if name.startswith(self.prefix)}
        self.rate = _first(values, RATE, self.rate)
        if self.takes_evaluations and "score" in values:  # what every `report_evaluation` records
            values.setdefault("epoch", self.epoch - 1)
        if not {"epoch", "score"} <= values.keys():  # what every `report_epoch` records; steps may have an epoch, too
            loss = _first(values, STEP_LOSS)
            if loss is not None:
                self.losses.append(loss)
            if self.losses:
                self.latest |= values
            return None
        ended = self._end_epoch(self.latest | values, row["time"])
        self.epoch, self.losses, self.latest = ended.epoch + 1, [], {}
        return ended

    def _end_epoch(self, values: dict[str, Any], at: float) -> EpochSummary:
        mean_loss, score = _first(values, EPOCH_LOSS), values.get("score")
        before = self.best_score
        gain: float | None = None
        is_best = score is not None and (before is None or score < before)
        if score is not None and is_best:
            gain = None if before is None else before - score
            self.best_score = score
        self.best_loss = min((loss for loss in (self.best_loss, mean_loss) if loss is not None), default=None)
        return EpochSummary(
            epoch=int(values["epoch"]) + 1,
            mean_loss=mean_loss,
            min_loss=min(self.losses, default=None),
            max_loss=max(self.losses, default=None),
            rate=self.rate,
            seconds=values.get("train/epoch_time"),
            best_loss=self.best_loss,
            is_best=is_best,
            gain=gain,
            time=at,
            further={
                name: value
                for name, value in values.items()
                if name not in ("epoch", "train/epoch_time", *STEP_LOSS, *EPOCH_LOSS, *RATE)
                and not isinstance(value, dict | list)
            },
        )


class CsvFiles:
    """Writes the CSV files of a fold. They never cost the training: lines that the disk refuses wait for the next ones,
    and a value that makes no number ends the files.

    Args:
        folder: `metrics/fold_<i>/`.
        prefix: what the fold's names begin with, `fold_0/`.
        kept_rows: rows of the record that the fold continues from; none: it begins, and its files get a new stamp.
        log_batches: write a line for each batch, too.
    """

    def __init__(
        self, folder: Path, prefix: str, *, kept_rows: Iterable[Mapping[str, Any]] = (), log_batches: bool = False
    ) -> None:
        self.epochs = Epochs(prefix)
        self.has_ended = self.is_behind = False
        kept = list(kept_rows)
        stamp = (newest_stamp(folder) if kept else None) or time.strftime("%Y%m%d_%H%M%S")
        self.epoch_file = _CsvFile(folder / f"epoch_metrics_{stamp}.csv", EPOCH_COLUMNS, can_widen=True)
        self.batch_file = None
        if log_batches:
            self.batch_file = _CsvFile(folder / f"batch_metrics_{stamp}.csv", BATCH_COLUMNS, can_widen=False)
        for row in kept:
            self._try(self._take, row)
        self._try(self._write_waiting, True)

    def add(self, row: Mapping[str, Any]) -> EpochSummary | None:
        """Takes in a row that was added to the record; returns the epoch that it ends, if it does."""
        ended = self._try(self._take, row)
        self._try(self._write_waiting, ended is not None)
        return ended

    def _write_waiting(self, epochs: bool) -> None:
        """Writes the lines that no file has yet, of batches and perhaps of epochs."""
        if epochs or self.is_behind:
            self.epoch_file.append_waiting()
        if self.batch_file:
            self.batch_file.append_waiting()
        if self.is_behind:
            self.is_behind = False
            logger.info("the CSV files of %s go on", self.epoch_file.path.parent)

    def close(self) -> None:
        """Closes the files."""
        self.epoch_file.close()
        if self.batch_file:
            self.batch_file.close()

    def _take(self, row: Mapping[str, Any]) -> EpochSummary | None:
        num_losses, epoch = len(self.epochs.losses), self.epochs.epoch
        ended = self.epochs.add(row)
        if ended:
            self.epoch_file.add(_epoch_cells(ended), ended.further)
        elif self.batch_file and len(self.epochs.losses) > num_losses:
            cells = (epoch, num_losses, _loss(self.epochs.losses[-1]), _rate(self.epochs.rate), _clock(row["time"]))
            self.batch_file.add(cells, {})
        return ended

    def _try(self, do: Callable[[Any], EpochSummary | None], what: Any) -> EpochSummary | None:
        """A full disk, or a trainer's value that makes no number, hurts the files and not the training."""
        if self.has_ended:
            return None
        try:
            return do(what)
        except OSError as error:
            if not self.is_behind:
                logger.warning("the CSV files of %s wait: %s; the record goes on", self.epoch_file.path.parent, error)
            self.is_behind = True
        except Exception as error:
            self.has_ended = True
            where = self.epoch_file.path.parent
            logger.warning("the CSV files of %s end here: %s; the record goes on", where, error, exc_info=True)
        return None


class _CsvFile:
    """A CSV file that grows by lines. With `can_widen`, a column that turns up later makes it anew.

    Holds its file open: once a later attempt has put another under the name, what is written here goes nowhere.
    """

    def __init__(self, path: Path, columns: Iterable[str], *, can_widen: bool) -> None:
        self.path, self.columns, self.can_widen = path, list(columns), can_widen
        self.num_fixed = len(self.columns)
        self.lines: list[tuple[tuple[Any, ...], Mapping[str, Any]]] = []
        self.num_written = 0
        self.has_new_column = False
        self.file: int | None = None

    def add(self, cells: tuple[Any, ...], further: Mapping[str, Any]) -> None:
        self.lines.append((cells, further))
        for name in further:
            if name not in self.columns:
                self.columns.append(name)
                self.has_new_column = True

    def append_waiting(self) -> None:
        if self.has_new_column or self.file is None:
            self.write()
            return
        text = self._format(self.lines[self.num_written :])
        if text:
            append_whole(self.file, text.encode(), self.path)
        self._forget_written()

    def write(self) -> None:
        if self._is_replaced():
            return
        header = io.StringIO()
        csv.writer(header, lineterminator="\n").writerow(self.columns)
        write_whole(self.path, (header.getvalue() + self._format(self.lines)).encode())
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        self.close()
        self.file = file
        self.has_new_column = False
        self._forget_written()

    def close(self) -> None:
        if self.file is not None:
            os.close(self.file)
            self.file = None

    def _is_replaced(self) -> bool:
        """Whether a later attempt has put its file under the name."""
        return self.file is not None and not os.path.samestat(os.fstat(self.file), os.stat(self.path))

    def _forget_written(self) -> None:
        if not self.can_widen:
            self.lines.clear()
        self.num_written = len(self.lines)

    def _format(self, lines: Iterable[tuple[tuple[Any, ...], Mapping[str, Any]]]) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        names = self.columns[self.num_fixed :]
        for cells, further in lines:
            writer.writerow([*cells, *("" if further.get(name) is None else further[name] for name in names)])
        return text.getvalue()


def newest_stamp(folder: Path) -> str | None:
    """The stamp `YYYYmmdd_HHMMSS` of the newest epoch file of a folder."""
    files = sorted(folder.glob("epoch_metrics_*.csv"))
    return files[-1].stem.removeprefix("epoch_metrics_") if files else None


def _epoch_cells(ended: EpochSummary) -> tuple[Any, ...]:
    losses = (_loss(value) for value in (ended.mean_loss, ended.min_loss, ended.max_loss))
    seconds = "" if ended.seconds is None else f"{ended.seconds:.2f}"
    return (
        ended.epoch, *losses, _rate(ended.rate), seconds, _loss(ended.best_loss), ended.is_best, _clock(ended.time),
    )  # fmt: skip


def _first(values: Mapping[str, Any], names: Iterable[str], default: Any = None) -> Any:
    return next((values[name] for name in names if values.get(name) is not None), default)


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:.8f}"


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
