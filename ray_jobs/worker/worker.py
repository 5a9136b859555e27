"""A fold's training on one rank: finds its config and split, and runs the family's trainer at a `RayFoldContext`."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch

from ray_jobs.cluster.versions import list_packages, package_versions, refuse_other_versions
from ray_jobs.errors import FoldStoppedError
from ray_jobs.planning.folds import FoldPlan
from ray_jobs.planning.plan import read_plan_table
from ray_jobs.runs.files import read_parquet
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.outages import Storage
from ray_jobs.runs.remote.fold_mirror import FoldMirror
from ray_jobs.runs.remote.no_mirror import NO_MIRROR, NoMirror
from ray_jobs.worker.budget import TimeBudget
from ray_jobs.worker.context import RayFoldContext
from ray_jobs.worker.devices import find_device
from ray_jobs.worker.nodes import bring_for_node
from ray_jobs.worker.watchdog import Watchdog
from trainers.interface import load_train_module

logger = logging.getLogger(__name__)


def train_worker(task: dict[str, Any]) -> None:
    """The train function of a fold's `TorchTrainer`.

    Args:
        task: `folder` (the run's), `uri` (of a run on object storage, else None), `patience_s` (with the storage),
            `fold`, `attempt`, `num_threads`, `progress_interval_s` (between two words to the coordinator), `versions`
            (of the driver's packages), `budget_s` (that the fold may train; None: as long as it likes), `ended_at` (the
            step at which its time was up; None: it was not).
    """
    refuse_other_versions(task["versions"], {ray.util.get_node_ip_address(): package_versions(list(task["versions"]))})
    folder = RunFolder(task["folder"])
    with _mirrored(folder, task) as mirror:
        _train_fold(folder, task, mirror)


@contextmanager
def _mirrored(folder: RunFolder, task: dict[str, Any]) -> Iterator[FoldMirror | NoMirror]:
    """The fold's files on this machine, where the run is on object storage. Rank 0 holds them."""
    if task["uri"] is None:
        yield NO_MIRROR
        return
    train_context = ray.train.get_context()
    storage = Storage(folder, task["patience_s"])
    mirror = FoldMirror(folder, task["uri"], task["fold"], task["attempt"])
    with mirror.at_work(storage) if train_context.get_world_rank() == 0 else nullcontext():
        if train_context.get_world_size() > 1:
            torch.distributed.barrier()
            bring_for_node(mirror, storage)
        yield mirror


def _train_fold(folder: RunFolder, task: dict[str, Any], mirror: FoldMirror | NoMirror) -> None:
    config = folder.read_config()
    train_context = ray.train.get_context()
    rank = train_context.get_world_rank()
    watchdog = Watchdog(folder, task["fold"], task["attempt"], rank, config.run.stall_timeout_s)
    context = RayFoldContext(
        folder,
        task["fold"],
        task["attempt"],
        rank=rank,
        world_size=train_context.get_world_size(),
        device=find_device(
            is_auto=config.resources.gpus_per_fold == "auto",
            share=task["gpus"],
            world_size=train_context.get_world_size(),
        ),
        num_threads=task["num_threads"],
        kind=config.kind,
        progress_interval_s=task["progress_interval_s"],
        packages=list_packages(config.trainer),
        loss_advice=config.trainer.ADVICE.loss,
        tracking=config.tracking,
        checkpoint=config.checkpoint,
        budget=TimeBudget(task["budget_s"], task["ended_at"]),
        watchdog=watchdog,
        mirror=mirror,
    )
    # Ray names neither a worker's actor nor its log after the run: this line in the log of the process does.
    print(
        f"run {folder.run_root.name}, {folder.describe_fold(task['fold'])}, attempt {task['attempt']}, rank {rank}",
        flush=True,
    )
    split = read_plan(folder, config.folds.count, ordered=config.folds.kind == "time").split(task["fold"])
    with watchdog, _logging_to(folder.fold_logs(task["fold"]), rank, continued=context.points.exist()):
        try:
            context.start()
            load_train_module(config.family).train_fold(config.trainer, split, context)
            context.finish()
        except FoldStoppedError as stop:
            logger.info("%s", stop)  # an end as asked for, and no failure: no manifest, so the fold is not complete
        except BaseException:
            context.recording.keep_last_rows()
            logger.exception("fold %d, attempt %d, rank %d failed", task["fold"], task["attempt"], rank)
            raise


def read_plan(folder: RunFolder, count: int, *, ordered: bool) -> FoldPlan:
    """The fold plan of a run."""
    table = read_parquet(folder.fold_plan)
    ids = table["id"].to_numpy(zero_copy_only=False).astype(str)
    return read_plan_table(table, ids, count, is_ordered=ordered)


class _LogFile(logging.FileHandler):
    """A full disk costs lines of the log, and nothing else."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Says nothing: there is no place to say it."""

    def close(self) -> None:
        with suppress(OSError):
            super().close()


@contextmanager
def _logging_to(folder: Path, rank: int, *, continued: bool) -> Iterator[None]:
    """Sends this process's log to a file of the run while a fold trains; a fold that goes on adds to the one it had."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "training" if rank == 0 else f"rank{rank}"
    new = folder / f"{name}_{time.strftime('%Y%m%d_%H%M%S')}.log"
    handler = _LogFile(max(folder.glob(f"{name}_*.log"), default=new) if continued else new)
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
