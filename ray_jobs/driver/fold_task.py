"""One attempt of a fold on Ray: a `TorchTrainer`, and what Ray's dashboard calls it.

A fold of one worker needs no controller, no placement group and no worker group: its trainer runs in Ray Train's local
mode (`ScalingConfig(num_workers=0)`) inside one Ray task that reserves what the worker reserves. A fold of several
workers is a trainer with a controller of its own."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from ray_jobs.cluster.placement import Placement
from ray_jobs.cluster.ray_private import SETTINGS_OF_GPU_RANKS, apply_settings


def run_as_task(name: str, task: dict[str, Any], placement: Placement) -> Any:
    """Starts a fold of one worker as a Ray task, in a process that serves nothing else.

    Args:
        name: by which the dashboard's tables and timeline show it.
        task: of `worker.train_worker`.
        placement: what it reserves.

    Returns:
        A reference: `ray.get` waits for the end, and raises what the trainer has raised or how its process has died.
    """
    import ray

    remote = ray.remote(max_calls=1, max_retries=0)(train_fold)
    return remote.options(
        name=name,
        num_cpus=placement.cpus_per_worker,
        num_gpus=placement.gpus_per_worker,
        memory=placement.memory_per_worker_bytes or None,
    ).remote(task)


def train_fold(task: dict[str, Any]) -> None:
    """Trains a fold in this process."""
    hide_gpus_that_are_not_reserved()
    import ray.train
    from ray.train.torch import TorchTrainer

    from ray_jobs.worker.worker import train_worker

    TorchTrainer(train_worker, train_loop_config=task, scaling_config=ray.train.ScalingConfig(num_workers=0)).fit()


def hide_gpus_that_are_not_reserved() -> None:
    """Before torch is loaded: in its local mode Ray Train would use any GPU that torch sees, also for a fold that has
    reserved none."""
    import ray

    if not ray.get_gpu_ids():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def load_trainer() -> None:
    """Loads in the main thread what `fit_with_workers` needs in another one."""
    import ray.train.torch  # noqa: F401
    from ray.data import DataContext

    import ray_jobs.worker.worker  # noqa: F401

    DataContext.get_current()


def fit_with_workers(
    name: str, task: dict[str, Any], placement: Placement, num_workers: int, scratch: Path, *, may_wait: bool
) -> None:
    """Trains a fold of several workers; returns when it has ended.

    Args:
        name: by which Ray Train knows it. A mark is added: Ray would take up what an earlier trainer of that name has
            left.
        task: of `worker.train_worker`.
        placement: what a worker reserves.
        num_workers: how many there are.
        scratch: where Ray Train writes.
        may_wait: whether Ray may wait for room. What an elastic fold has no room for takes what room there is in
            another attempt.

    Raises:
        TrainingFailedError: whatever ended it; nothing is tried again here.
    """
    import ray.train
    from ray.train.torch import TorchTrainer

    from ray_jobs.worker.worker import train_worker

    if num_workers > 1 and placement.gpus_per_worker:
        apply_settings(SETTINGS_OF_GPU_RANKS)
    TorchTrainer(
        train_worker,
        train_loop_config=task,
        scaling_config=ray.train.ScalingConfig(
            num_workers=num_workers,
            use_gpu=placement.gpus_per_worker > 0,
            resources_per_worker=placement.worker_resources(),
        ),
        run_config=ray.train.RunConfig(
            name=f"{name}_{secrets.token_hex(3)}",
            storage_path=str(scratch),
            failure_config=ray.train.FailureConfig(  # type: ignore[call-arg] # its types are those of Train V1
                max_failures=0, controller_failure_limit=-1 if may_wait else 0
            ),
        ),
    ).fit()
