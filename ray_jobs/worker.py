"""On each rank of a fold: joins a trainer to the run's folder, the coordination actor and Ray Train."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor

from ensemble.predictions import build_table
from ray_jobs.cluster import package_versions, refuse_other_versions
from ray_jobs.config import TrackingConfig
from ray_jobs.coordinator import NAMESPACE, EpochReported, Event, FoldStarted, ProgressReported, actor_name, read_status
from ray_jobs.errors import RunError
from ray_jobs.folds import FoldPlan
from ray_jobs.run_folder import (
    RunFolder,
    read_checkpoint,
    read_parquet,
    write_checkpoint,
    write_parquet,
    write_whole,
)
from ray_jobs.tracking.journal import FoldJournal
from ray_jobs.tracking.record import Record
from trainers.interface import CheckpointName, Predictions, RowsName, load_train_module

logger = logging.getLogger(__name__)
PROGRESS_INTERVAL_S = 1.0


def train_worker(task: dict[str, Any]) -> None:
    """The train function of a fold's `TorchTrainer`.

    Args:
        task: `folder` (the run's), `fold`, `attempt`, `num_threads`, `versions` (of the driver's packages).
    """
    refuse_other_versions(task["versions"], {ray.util.get_node_ip_address(): package_versions()})
    folder = RunFolder(task["folder"])
    config = folder.read_config()
    context = ray.train.get_context()
    place = RayWorkplace(
        folder,
        task["fold"],
        task["attempt"],
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        device=str(ray.train.torch.get_device()),
        num_threads=task["num_threads"],
        tracking=config.tracking,
    )
    # Ray names neither a worker's actor nor its log after the run: this line in the log of the process does.
    print(f"run {folder.root.name}, fold {task['fold']}, attempt {task['attempt']}, rank {place.rank}", flush=True)
    split = read_plan(folder, config.folds.count, ordered=config.folds.kind == "time").split(task["fold"])
    with _logging_to(folder.fold_logs(task["fold"]), place.rank):
        try:
            place.start()
            load_train_module(config.family).train_fold(config.trainer, split, place)
            place.finish()
        except FoldStoppedError as stop:
            logger.info("%s", stop)  # an end as asked for, and no failure: no manifest, so the fold is not complete
        except BaseException:
            logger.exception("fold %d, attempt %d, rank %d failed", task["fold"], task["attempt"], place.rank)
            raise


def read_plan(folder: RunFolder, count: int, *, ordered: bool) -> FoldPlan:
    """The fold plan of a run."""
    table = read_parquet(folder.fold_plan)
    return FoldPlan(table["id"].to_numpy(zero_copy_only=False).astype(str), table["fold"].to_numpy(), count, ordered)


class SupersededError(RunError):
    """A later attempt of this fold has begun; this one must not write any more."""


class FoldStoppedError(RunError):
    """The run was asked to stop, and this fold has finished an epoch."""


class RayWorkplace:
    """`trainers.interface.Workplace` on a Ray Train worker. Rank 0 writes; see the interface for the methods."""

    def __init__(
        self,
        folder: RunFolder,
        fold: int,
        attempt: int,
        *,
        rank: int,
        world_size: int,
        device: str,
        num_threads: int,
        tracking: TrackingConfig,
    ) -> None:
        self.rank, self.world_size, self.device, self.num_threads = rank, world_size, device, num_threads
        self.folder, self.fold, self.attempt, self.tracking = folder, fold, attempt, tracking
        self.files = folder.fold(fold)
        self.journal: FoldJournal | None = None
        self.bad_rows: Record | None = None
        self.coordinator: Any = None
        self.pending: list[tuple[int, float, Mapping[str, Tensor | float]]] = []
        self.last_progress = 0.0

    def start(self) -> None:
        """Opens a fresh record and tells the coordinator that the fold runs."""
        if self.rank != 0:
            return
        self._refuse_if_superseded()
        self.files.clear()
        self.journal = FoldJournal(self.folder, self.fold, log_batches=self.tracking.log_batch_metrics)
        try:
            self.coordinator = ray.get_actor(actor_name(self.folder), namespace=NAMESPACE)
        except ValueError:
            logger.warning("no coordination actor: the live table will not follow this fold")
        self._tell(FoldStarted(self.fold, self.attempt))

    def finish(self) -> None:
        """Writes the fold's manifest: from here on it counts as completed."""
        if self.rank == 0:
            self._refuse_if_superseded()
            self.journal.close()
            self.files.write_manifest()

    def log_step(self, global_step: int, metrics: Mapping[str, Tensor | float]) -> None:
        self.pending.append((global_step, time.time(), metrics))
        if len(self.pending) >= self.tracking.log_interval:
            self._fetch_pending()

    def log(self, global_step: int, metrics: Mapping[str, float]) -> None:
        self._fetch_pending()
        self._record_row(global_step, time.time(), metrics)

    def report_epoch(self, epoch: int, num_epochs: int, global_step: int, metrics: Mapping[str, float]) -> None:
        self.log(global_step, {**metrics, "epoch": epoch})
        if self.journal is not None:
            self.journal.sync()
        self._tell(EpochReported(self.fold, self.attempt, epoch, num_epochs, global_step, dict(metrics)))
        ray.train.report({f"fold_{self.fold}/{name}": value for name, value in metrics.items()})
        if epoch + 1 < num_epochs and self._is_asked_to_stop():
            raise FoldStoppedError(
                f"the run was asked to stop: fold {self.fold} ends after epoch {epoch + 1}/{num_epochs}"
            )

    def report_progress(self, epoch: int, num_epochs: int, step: int, num_steps: int) -> None:
        if self.journal is not None:
            self.journal.follow(epoch, num_epochs, step, num_steps)
        if self.rank == 0 and time.monotonic() - self.last_progress > PROGRESS_INTERVAL_S:
            self.last_progress = time.monotonic()
            self._tell(ProgressReported(self.fold, self.attempt, epoch, num_epochs, step, num_steps))

    def save_checkpoint(
        self, name: CheckpointName, tensors: Mapping[str, Tensor], description: Mapping[str, Any]
    ) -> None:
        if self.rank == 0:
            self._refuse_if_superseded()
            write_checkpoint(self.files.checkpoint(name), _to_bytes(tensors), description)

    def load_checkpoint(self, name: CheckpointName) -> dict[str, Tensor]:
        if self.world_size > 1:
            dist.barrier()  # rank 0 may still be writing
        return load(read_checkpoint(self.files.checkpoint(name))[0])

    def share_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        if self.rank != 0:
            return {}
        content = _to_bytes(tensors)
        checksum = hashlib.sha256(content).hexdigest()
        path = self.folder.member / f"{name}-{checksum[:12]}.safetensors"
        if not path.exists():
            write_whole(path, content)  # several folds may do it at once: the same bytes, and a rename is whole
        return {"path": str(path.relative_to(self.folder.root)), "sha256": checksum}

    def save_predictions(self, checkpoint: CheckpointName, rows: RowsName, predictions: Predictions) -> None:
        if self.rank != 0:
            return
        self._refuse_if_superseded()
        table = build_table(
            predictions.ids,
            predictions.prediction,
            predictions.prediction_z,
            predictions.target,
            fold=self.fold,
            checkpoint=checkpoint,
        )
        write_parquet(self.files.predictions(rows, checkpoint), table)

    def note_bad_row(self, table: str, row_id: str, problem: str, done: str) -> None:
        logger.warning("%s: id %s: %s (%s)", table, row_id, problem, done)
        if self.bad_rows is None:
            self.bad_rows = Record(self.files.bad_rows(self.rank), keep=0)
        self.bad_rows.append({"table": table, "id": row_id, "problem": problem, "done": done})

    def _fetch_pending(self) -> None:
        """Moves the waiting steps' tensors from the device in one go, adds the ranks, and writes a row for each step."""
        tensors = [value for _, _, metrics in self.pending for value in metrics.values() if isinstance(value, Tensor)]
        fetched: list[float] = []
        if tensors:
            stacked = torch.stack([tensor.detach().float() for tensor in tensors])
            if self.world_size > 1:
                dist.all_reduce(stacked)
            fetched = stacked.cpu().tolist()
        values = iter(fetched)
        for global_step, at, metrics in self.pending:
            row = {name: next(values) if isinstance(value, Tensor) else value for name, value in metrics.items()}
            self._record_row(global_step, at, row)
        self.pending.clear()

    def _record_row(self, global_step: int, at: float, metrics: Mapping[str, float]) -> None:
        if self.journal is not None:
            self.journal.log(global_step, metrics, at)

    def _is_asked_to_stop(self) -> bool:
        """Whether the run's folder holds a request to stop; rank 0 looks, so that all ranks stop at the same epoch."""
        asked = torch.tensor(float(self.rank == 0 and self.folder.stop_request.exists()), device=self.device)
        if self.world_size > 1:
            dist.all_reduce(asked)
        return bool(asked)

    def _tell(self, event: Event) -> None:
        if self.coordinator is not None:
            self.coordinator.apply.remote(event)

    def _refuse_if_superseded(self) -> None:
        current = read_status(self.folder, self.fold).attempt
        if current > self.attempt:
            raise SupersededError(f"attempt {current} of fold {self.fold} has begun; attempt {self.attempt} stops")


def _to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


@contextmanager
def _logging_to(folder: Path, rank: int) -> Iterator[None]:
    """Sends this process's log to a file of the run while a fold trains."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "training" if rank == 0 else f"rank{rank}"
    handler = logging.FileHandler(folder / f"{name}_{time.strftime('%Y%m%d_%H%M%S')}.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    # Of libraries only what is wrong: Ray Train alone would repeat every metric.
    handler.addFilter(lambda line: line.levelno >= logging.WARNING or line.name.startswith(("ray_jobs", "trainers")))
    logging.getLogger().addHandler(handler)
    for name in ("ray_jobs", "trainers"):
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
