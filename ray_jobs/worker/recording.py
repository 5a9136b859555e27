"""What a fold records and tells while it trains: the metric record, the coordination actor, rows that turned out
bad."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NoReturn

import ray
import torch
from torch import Tensor

from ray_jobs.cluster.access import NAMESPACE, actor_name
from ray_jobs.config.run import TrackingConfig
from ray_jobs.errors import NonFiniteLossError
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.events import AliveReported, Event, PreparationReported, ProgressReported
from ray_jobs.runs.outages import Storage
from ray_jobs.runs.record import Record, read_lines
from ray_jobs.tracking.journal import FoldJournal
from ray_jobs.worker.ranks import Ranks
from ray_jobs.worker.watchdog import Watchdog
from trainers.interface import Progress

logger = logging.getLogger(__name__)
UNSTAGED = ("epoch", "score")  # metrics that have the same name in every stage


class Recording:
    """The record of one attempt of a fold, as a rank sees it. Rank 0 writes and tells; each notes its own bad rows.

    Args:
        folder: of the run.
        fold, attempt: which.
        ranks: whose parts of a step's values are added.
        storage: lets writes wait.
        watchdog: hears of every step.
        tracking: how many steps are fetched together.
        progress_interval_s: between two words on progress.
        loss_advice: what to do about a loss that is not finite.
    """

    def __init__(
        self,
        folder: RunFolder,
        fold: int,
        attempt: int,
        ranks: Ranks,
        storage: Storage,
        watchdog: Watchdog,
        tracking: TrackingConfig,
        *,
        progress_interval_s: float,
        loss_advice: str,
    ) -> None:
        self.folder, self.fold, self.attempt, self.ranks, self.storage = folder, fold, attempt, ranks, storage
        self.watchdog, self.tracking, self.loss_advice = watchdog, tracking, loss_advice
        self.stage = ""  # its metrics' names begin with it
        self.progress: Progress | None = None  # the last word on it
        self.journal: FoldJournal | None = None
        self.bad_rows: Record | None = None
        self.noted: set[tuple[str, str]] = set()
        self.coordinator: Any = None
        self.pending: list[tuple[int, float, Mapping[str, Tensor | float]]] = []
        self.last_progress, self.progress_interval_s = 0.0, progress_interval_s

    @property
    def num_lines(self) -> int:
        """Lines of the record."""
        assert self.journal is not None
        return self.journal.record.num_lines

    def open(self, keep: int, rows: list[dict[str, Any]] | None, confirm: Callable[[], object]) -> None:
        """Opens the record with the lines to keep, and finds the coordinator; on rank 0.

        Args:
            keep: lines.
            rows: these lines, where they were read already.
            confirm: as in `Record`.
        """
        self.journal = FoldJournal(
            self.folder,
            self.fold,
            keep=keep,
            kept_rows=rows,
            log_batches=self.tracking.log_batch_metrics,
            storage=self.storage,
            confirm=confirm,
        )
        try:
            self.coordinator = ray.get_actor(actor_name(self.folder), namespace=NAMESPACE)
        except ValueError:
            logger.warning("no coordination actor: the live table will not follow this fold")
        self.watchdog.say_alive = lambda: self.tell(AliveReported(self.fold, self.attempt))

    def choose_precision(self, found: str) -> str:
        """What `precision=auto` is in this run: what was found here, or by a fold that has asked before; on rank 0."""
        if self.coordinator is None:
            return found
        chosen: str = ray.get(self.coordinator.choose_precision.remote(found))
        return chosen

    def close(self) -> None:
        """Closes the record; on rank 0."""
        assert self.journal is not None
        self.journal.close()

    def keep_last_rows(self) -> None:
        """Records the steps that were not fetched yet when the trainer failed. Several ranks cannot: one is gone."""
        if self.ranks.world_size == 1:
            with contextlib.suppress(Exception):  # the device may be what failed
                self.fetch_pending()

    def log_step(self, global_step: int, metrics: Mapping[str, Tensor | float]) -> None:
        """Takes in a step's values; tensors stay on the device."""
        self.watchdog.touch()
        self.pending.append((global_step, time.time(), metrics))
        if len(self.pending) >= self.tracking.log_interval:
            self.fetch_pending()

    def log(self, global_step: int, metrics: Mapping[str, float]) -> None:
        """Records values of all ranks."""
        self.watchdog.touch()
        self.fetch_pending()
        self._record_row(global_step, time.time(), metrics)

    def sync(self) -> None:
        """Returns when the record is on the disk."""
        if self.journal is not None:
            self.journal.sync()

    def report_progress(self, now: Progress) -> None:
        """Says where the fold is, now and then."""
        self.progress = now
        if now.ends_epoch:
            self.fetch_pending()  # what is wrong with an epoch's loss is found before it is validated
        if self.journal is not None:
            self.journal.follow(now)
        if self.ranks.rank == 0 and time.monotonic() - self.last_progress > self.progress_interval_s:
            self.last_progress = time.monotonic()
            counts = (now.epoch or 0, now.num_epochs or 0, now.step, now.num_steps or 0, now.tokens, now.num_tokens)
            self.tell(ProgressReported(self.fold, self.attempt, *counts))

    def report_preparation(self, what: str, done: int, total: int) -> None:
        """Says how far the preparation is, now and then."""
        self.watchdog.touch()
        now = time.monotonic()
        if self.ranks.rank == 0 and (now - self.last_progress >= self.progress_interval_s or done == total):
            self.last_progress = now
            self.tell(PreparationReported(self.fold, self.attempt, what, done, total))

    def tell(self, event: Event) -> None:
        """Tells the coordinator."""
        if self.coordinator is not None:
            self.coordinator.apply.remote(self.folder.member, event)

    def note_bad_row(self, table: str, row_id: str, problem: str, done: str) -> None:
        """Lists a row, once."""
        if self.bad_rows is None:
            path = self.folder.fold(self.fold).bad_rows(self.ranks.rank)
            self.bad_rows = self.storage.retry_while_unavailable(f"opening {path.name}", lambda: Record(path))
            self.noted = {(row["table"], row["id"]) for row in read_lines(self.bad_rows.path)}
        if (table, row_id) in self.noted:  # by the attempt before
            return
        self.noted.add((table, row_id))
        logger.warning("%s: id %s: %s (%s)", table, row_id, problem, done)
        row = {"table": table, "id": row_id, "problem": problem, "done": done}
        line = partial(self.bad_rows.append, row)
        self.storage.retry_while_unavailable(f"a line of {self.bad_rows.path.name}", line, by_name=False)

    def fetch_pending(self) -> None:
        """Moves the waiting steps' tensors from the device in one go, adds the ranks, and writes a row for each step.

        Raises:
            NonFiniteLossError: a step's loss is NaN or infinite.
        """
        tensors = [value for _, _, metrics in self.pending for value in metrics.values() if isinstance(value, Tensor)]
        fetched: list[float] = []
        if tensors:
            fetched = self.ranks.add_up(torch.stack([tensor.detach().float() for tensor in tensors])).cpu().tolist()
        values = iter(fetched)
        bad_step = None
        for global_step, at, metrics in self.pending:
            row = {name: next(values) if isinstance(value, Tensor) else value for name, value in metrics.items()}
            self._record_row(global_step, at, row)
            if bad_step is None and not math.isfinite(row.get("train/loss_step", 0.0)):
                bad_step, loss = global_step, row["train/loss_step"]
        self.pending.clear()
        if bad_step is not None:
            self._refuse_loss(bad_step, loss)

    def _refuse_loss(self, global_step: int, loss: float) -> NoReturn:
        """Ends the fold. What was saved before is kept: no point is written between this step and here."""
        where, now = "", self.progress
        if now is not None and now.epoch is not None and now.batch is not None:
            # Of this epoch, since steps are fetched at its end; or the next one's first, of which nothing was said yet.
            epoch, batch = now.epoch, now.batch + global_step - now.step
            if now.num_batches is not None and batch > now.num_batches:
                epoch, batch = epoch + 1, batch - now.num_batches
            where = f" (epoch {epoch + 1} of {now.num_epochs}, batch {batch} of {now.num_batches})"
        raise NonFiniteLossError(
            f"the training loss of step {global_step}{where} is {loss}. "
            f"{self.loss_advice[0].upper()}{self.loss_advice[1:]} in a new run (another run.name); the checkpoints "
            "from before this step are kept"
        )

    def _record_row(self, global_step: int, at: float, metrics: Mapping[str, float]) -> None:
        if self.journal is not None:
            named = metrics
            if self.stage:
                named = {name if name in UNSTAGED else f"{self.stage}/{name}": value for name, value in metrics.items()}
            self.journal.log(global_step, named, at)
