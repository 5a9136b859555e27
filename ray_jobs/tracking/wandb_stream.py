"""One metric record and the W&B run that shows it. Used by the publisher process alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import wandb

from ray_jobs.config.run import RunConfig
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.location import count_put
from ray_jobs.runs.record import RecordReader
from ray_jobs.tracking.wandb_files import find_wandb_files, read_wandb_file
from ray_jobs.tracking.wandb_runs import WandbRun, read_uploaded
from ray_jobs.tracking.wandb_sink import HAS_GAP

INIT_TIMEOUT_S, FINISH_TIMEOUT_S = 20, 30
UNKNOWN = -1  # instead of a number of rows

# Without W&B only TensorBoard's files are written.
Mode = Literal["online", "offline", "disabled"]


class UnreachableError(Exception):
    """`wandb.init` failed online: no server, or one that refuses."""


class WandbStream:
    """Logs the rows of a record as they come; the W&B run begins with the first row that is not there yet.

    Args:
        folder: the run.
        config: its config.
        spec: the W&B run.
        mode: online or offline.
        on_stop: called with the W&B run's name when somebody presses "Stop" on its page.
    """

    def __init__(
        self, folder: RunFolder, config: RunConfig, spec: WandbRun, mode: Mode, on_stop: Callable[[str], None]
    ) -> None:
        self.folder, self.config, self.spec, self.mode, self.on_stop = folder, config, spec, mode, on_stop
        self.run: wandb.Run | None = None
        self.is_closed = False
        self.first_step = 0
        self.reader = RecordReader(spec.record, self._count_known())

    @property
    def next_step(self) -> int:
        """The first row that was not logged yet."""
        return self.reader.next_step

    def publish_new(self) -> int:
        """Logs rows that have come; returns how many.

        Raises:
            UnreachableError: the W&B run could not be opened online.
        """
        if self.is_closed:
            return 0
        is_complete = (
            self.spec.source is not None and self.spec.source.is_complete()
        )  # before the record is read: nothing comes after that
        rows = self._read_new()
        run = self.run
        if rows and run is None:
            run = self._open()
            if self.mode == "online":
                rows = self._read_from(run.starting_step)
            self.first_step = rows[0]["step"] if rows else self.next_step
        for row in rows:
            assert run is not None, "it was opened for its first row"
            run.log(self._to_wandb(row), step=row["step"], commit=True)
        if not rows and self.run is not None and is_complete:
            self.close()
        return len(rows)

    def close(self) -> None:
        """Finishes the W&B run; bounded by W&B's own `finish_timeout`, and by the parent, who can kill this process."""
        if self.run is not None and not self.is_closed:
            self.is_closed = True
            is_good = self.spec.source is None or self.spec.source.is_complete()
            self.run.finish(exit_code=0 if is_good else 1)

    def count_held(self) -> int:
        """Rows that the server holds; UNKNOWN if it does not say, HAS_GAP if some are missing in between."""
        if self.run is None:
            return self.next_step
        try:
            run = wandb.Api(timeout=INIT_TIMEOUT_S).run(f"{self.run.entity}/{self.run.project}/{self.spec.id}")
            num_rows, last_step = run.historyLineCount, run.lastHistoryStep
        except (wandb.Error, OSError, ValueError):
            return UNKNOWN
        return num_rows if num_rows == last_step + 1 else HAS_GAP

    def _count_known(self) -> int:
        """Rows that are known to be there without asking the server."""
        uploaded = read_uploaded(self.folder).get(self.spec.key, 0)
        if self.mode == "online":
            return uploaded
        held = [read_wandb_file(path) for path in find_wandb_files(self.folder.wandb, self.spec.id, offline_only=True)]
        return max([uploaded, *(file.last_step + 1 for file in held)])

    def _read_from(self, step: int) -> list[dict[str, Any]]:
        """Rows from the first that the server lacks on, whatever was known of it."""
        self.reader.close()
        self.reader = RecordReader(self.spec.record, step)
        return self._read_new()

    def _read_new(self) -> list[dict[str, Any]]:
        """Rows that no other driver can write in another way any more: W&B never takes one back."""
        return self.reader.read_new(end=count_put(self.folder, self.spec.record))

    def _open(self) -> wandb.Run:
        spec, tracking = self.spec, self.config.tracking
        try:
            self.run = run = wandb.init(
                id=spec.id,
                name=spec.name,
                group=spec.group,
                job_type=spec.job_type,
                project=tracking.project,
                entity=tracking.entity,
                config=spec.config,
                tags=[self.config.recipe, *tracking.tags],
                dir=self.folder.root,
                mode=self.mode,
                resume="allow",
                reinit="create_new",
                settings=wandb.Settings(
                    console="off",
                    silent=True,
                    disable_code=True,
                    disable_git=True,
                    x_disable_stats=True,
                    x_save_requirements=False,
                    init_timeout=INIT_TIMEOUT_S,
                    finish_timeout=FINISH_TIMEOUT_S,
                    x_transaction_log_flush_interval=1.0,
                    x_file_stream_transmit_interval=5,
                    x_file_stream_retry_wait_min_seconds=0.5,  # a server that is back is found within seconds
                    x_file_stream_retry_wait_max_seconds=10,
                    x_graphql_retry_wait_min_seconds=0.5,
                    x_graphql_retry_wait_max_seconds=10,
                    stop_fn=lambda: self.on_stop(spec.name),
                ),
            )
        except (wandb.Error, OSError) as error:
            if self.mode == "offline":
                raise
            raise UnreachableError(str(error)) from error
        run.define_metric("*", step_metric="global_step")
        return run

    def _to_wandb(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row as W&B shows it: its own time, tables and pictures as W&B's, and no step of ours."""
        values = {name: self._to_wandb_value(value) for name, value in row.items() if name not in ("step", "time")}
        return values | {"_timestamp": row["time"]}

    def _to_wandb_value(self, value: Any) -> Any:
        if value is None:
            # as W&B's own API gives it back; a bare NaN is no JSON, and resuming the W&B run would fail on it
            return "NaN"
        if isinstance(value, dict) and "columns" in value:
            return wandb.Table(columns=value["columns"], data=_with_one_type_a_column(value["data"]))
        if isinstance(value, dict) and "image" in value:
            return _to_picture(self.folder.root / value["image"], value.get("sha256"))
        return value


def _with_one_type_a_column(rows: list[list[Any]]) -> list[list[Any]]:
    """W&B refuses a column of numbers and texts: it becomes one of texts."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    for number, column in enumerate(columns):
        if len({isinstance(cell, str) for cell in column if cell is not None}) > 1:
            columns[number] = [None if cell is None else str(cell) for cell in column]
    return [list(row) for row in zip(*columns, strict=True)]


def _to_picture(path: Path, checksum: str | None) -> wandb.Image | str:
    """The picture, if it is still the one that was recorded."""
    if not path.is_file():
        return f"{path.name} is not there any more"
    if checksum and hashlib.sha256(path.read_bytes()).hexdigest() != checksum:
        return f"{path.name} was drawn anew by a later submission"
    return wandb.Image(str(path))
