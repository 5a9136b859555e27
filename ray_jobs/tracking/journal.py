"""What rank 0 writes down of a fold while it trains: the metric record, the CSV files made from it, lines in the
log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.outages import Storage
from ray_jobs.runs.record import MetricRecord, read_lines
from ray_jobs.tracking.csv_files import RATE, STEP_LOSS, CsvFiles, EpochSummary
from trainers.interface import Progress

logger = logging.getLogger(__name__)


class FoldJournal:
    """Records of one attempt of a fold. The record has to be written, and is waited for; the CSV files may fail.

    Args:
        folder: the run.
        fold: its number; every name gets the prefix `fold_<i>/`.
        keep: rows of an earlier attempt to go on from: the position of the checkpoint.
        kept_rows: these rows, where they were read already.
        log_batches: write the CSV file of batches, too.
        storage: lets lines wait while the storage takes nothing; None: they fail at once.
        confirm: as in `Record`.
    """

    def __init__(
        self,
        folder: RunFolder,
        fold: int,
        *,
        keep: int = 0,
        kept_rows: list[dict[str, Any]] | None = None,
        log_batches: bool = False,
        storage: Storage | None = None,
        confirm: Callable[[], object] | None = None,
    ) -> None:
        self.prefix = f"fold_{fold}/"
        self.storage = storage or Storage(folder, 0.0)
        path = folder.fold_record(fold)
        self.record = MetricRecord(path, keep=keep, confirm=confirm)
        kept_rows = read_lines(path) if kept_rows is None else kept_rows
        self.csv = CsvFiles(folder.fold_csv(fold), self.prefix, kept_rows=kept_rows, log_batches=log_batches)
        self.started = time.monotonic()
        self.first: int | None = None  # what was done before this attempt, in the unit of `Progress.amounts`
        self.position = Progress(0)  # of the last progress report
        self.unsaid: dict[str, Any] | None = None  # the latest step's values, while no line has told them

    def log(self, global_step: int, metrics: Mapping[str, Any], at: float) -> None:
        """Adds a row to the record, and to the CSV files what belongs there; says when an epoch is over."""
        named = {self.prefix + name: value for name, value in metrics.items()}
        row = self.storage.retry_while_unavailable(
            "a line of the metric record", lambda: self.record.log(global_step, named, at=at), by_name=False
        )
        ended = self.csv.add(row)
        if ended:
            self._say_epoch(ended)
        elif any(name in metrics for name in STEP_LOSS):
            self.unsaid = dict(metrics)

    def follow(self, position: Progress) -> None:
        """Takes in where the fold is; writes a progress line when step losses have come from the device since the
        last."""
        self.position = position
        if self.first is None:
            self.first = position.amounts[0] - (1 if position.tokens is None else 0)
        if self.unsaid is None:
            return
        loss = next(self.unsaid[name] for name in STEP_LOSS if name in self.unsaid)
        rate = _show_rate(next((self.unsaid[name] for name in RATE if name in self.unsaid), None))
        where = f"step {position.step}{_share(*position.amounts)}"
        if position.epoch is not None and position.num_epochs and position.batch is not None:
            done = _share(position.batch, position.num_batches)
            where = f"epoch {position.epoch + 1}/{position.num_epochs}{done}"
        logger.info("%s loss %.6f%s, ETA %s", where, loss, rate, self._time_left())
        self.unsaid = None

    def sync(self) -> None:
        """Returns when the record is on the disk."""
        self.storage.retry_while_unavailable("syncing the metric record", self.record.sync, by_name=False)

    def close(self) -> None:
        """Syncs and closes the record, closes the CSV files."""
        self.sync()
        self.record.close()
        self.csv.close()

    def _say_epoch(self, ended: EpochSummary) -> None:
        self.unsaid = None
        losses = ", ".join(
            f"{name} {value:.6f}"
            for name, value in (("mean", ended.mean_loss), ("min", ended.min_loss), ("max", ended.max_loss))
            if value is not None
        )
        further = ", ".join(
            f"{label} {ended.further[name]:.6f}"
            for label, name in (("validation loss", "val/loss_epoch"), ("score", "score"))
            if ended.further.get(name) is not None
        )
        number = f"{ended.epoch}/{self.position.num_epochs}" if self.position.num_epochs else f"{ended.epoch}"
        seconds = "" if ended.seconds is None else f", {ended.seconds:.2f} s"
        logger.info(
            "epoch %s is over: batch loss %s; %s%s%s, ETA %s",
            number, losses, further, _show_rate(ended.rate), seconds, self._time_left(),
        )  # fmt: skip
        if ended.is_best:
            by = "" if ended.gain is None else f", better by {ended.gain:.6f}"
            logger.info("new best at epoch %d: score %.6f%s", ended.epoch, ended.further["score"], by)

    def _time_left(self) -> str:
        done, total = self.position.amounts
        if total is None:
            return "unknown"
        seconds = (time.monotonic() - self.started) * (total - done) / max(1, done - (self.first or 0))
        return time.strftime("%H:%M:%S", time.gmtime(seconds)) if seconds < 86_400 else f"{seconds / 86_400:.1f} days"


def _show_rate(rate: float | None) -> str:
    """Nothing where a trainer does not say it."""
    return "" if rate is None else f", learning rate {rate:.8f}"


def _share(done: int, total: int | None) -> str:
    return f" [{done}/{total} {100 * done / max(1, total):3.0f}%]" if total is not None else f" [{done}]"
