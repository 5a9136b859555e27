"""Drives a K-fold run: check, plan, launch, watch, combine, report. Runs in the process that the user started."""

from __future__ import annotations

import dataclasses
import io
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from ensemble.scores import predict_constant
from ray_jobs.cli import Command, show
from ray_jobs.cluster import package_versions, run_on_each_node
from ray_jobs.config import RunConfig, TrackingConfig, find_differences, to_dict
from ray_jobs.connection import Connection, connect, in_submitted_job
from ray_jobs.coordinator import Coordination, FoldState, RunStarted, forget_attempt, read_status, start_actor
from ray_jobs.damage import is_plan_whole, mend_run
from ray_jobs.ensemble_stage import run_ensemble_stage
from ray_jobs.errors import (
    ClusterLostError,
    ConfigChangedError,
    RunBusyError,
    RunError,
    RunFolderError,
    StorageError,
)
from ray_jobs.fold_launcher import FoldLauncher
from ray_jobs.folds import FoldPlan, plan_folds
from ray_jobs.interrupts import listening
from ray_jobs.leaks import COLUMNS, Leak, count_leaks, find_leaks, list_rows, refuse_leaks
from ray_jobs.placement import Placement, place_folds
from ray_jobs.run_folder import RunFolder, StopWhen, read_json, request_stop, write_csv, write_json, write_parquet
from ray_jobs.storage import LossyFile, Storage
from ray_jobs.summary import conclude, print_outcome
from ray_jobs.terminal import open_console, print_leaks, warn_of_open_cluster
from ray_jobs.tracking.wandb_sink import WandbSink
from trainers.interface import Inventory, load_inventory_module

EXIT_OK, EXIT_INCOMPLETE, EXIT_INTERRUPTED = 0, 1, 130
LITTLE_SPACE_BYTES = 200_000_000


@dataclass(frozen=True)
class Plan:
    """A run that has passed every check: nothing of it was written or started yet."""

    config: RunConfig
    folder: RunFolder
    inventory: Inventory
    folds: FoldPlan
    leaks: list[Leak]


def run_kfold(command: Command, argv: Sequence[str]) -> int:
    """The K-fold job.

    Returns:
        0: done; 1: a fold failed; 130: interrupted.

    Raises:
        RunError, DataError: nothing was launched; the message says why.
    """
    console = open_console()
    started = time.monotonic()
    if command.dry_run:
        with tempfile.TemporaryDirectory() as scratch:
            _show_plan(console, _check(command.config, Path(scratch)))
        return EXIT_OK
    plan = _check(command.config, None)
    with plan.folder.lock():
        plan = _write_or_compare(plan, argv, console)
        plan.folder.remove_leftovers()
        mend_run(plan.folder, plan.config.folds.count, partial(console.print, style="yellow"))
        finished = plan.folder.completed_folds(plan.config.folds.count)
        todo = [fold for fold in plan.config.folds.wanted() if fold not in finished]
        if not todo and _is_up_to_date(plan, finished):
            console.print(f"run {plan.folder.root.name} is finished: nothing to do")
            print_outcome(console, plan.folder, read_json(plan.folder.summary))
            return EXIT_OK
        if command.retry_failed:
            todo = keep_failed(plan.folder, todo)
            if not todo:
                console.print("no fold has failed: nothing to retry")
                return EXIT_OK
        plan.folder.stop_request.unlink(missing_ok=True)
        storage, seconds = Storage(plan.folder, 0.0), {"check": time.monotonic() - started}
        hear_stop = partial(_hear_stop, plan, console)
        try:
            with WandbSink(plan.folder, plan.config, console.print, on_stop=hear_stop) as sink:
                work = partial(_train_and_combine, plan, todo, console) if todo else partial(_combine_here, plan)
                stage = work(sink, seconds)
                seconds["total"] = time.monotonic() - started
                storage.check()
                summary = conclude(plan.folder, plan.config, stage, seconds, sink, console)
        except (OSError, RunFolderError, StorageError) as error:
            console.print(storage.explain(error), style="bold red")
            return EXIT_INCOMPLETE
        except (KeyboardInterrupt, ClusterLostError) as end:
            name = plan.folder.root.name
            console.print(
                f"\n{str(end) or 'interrupted'}: every fold goes on from its last checkpoint. The same command continues "
                f"run {name}" + (f", with run.name={name}" if command.config.run.name == "auto" else "")
            )
            return EXIT_INCOMPLETE if isinstance(end, ClusterLostError) else EXIT_INTERRUPTED
        return {"failed": EXIT_INCOMPLETE, "interrupted": EXIT_INTERRUPTED}.get(summary["outcome"], EXIT_OK)


def keep_failed(folder: RunFolder, folds: list[int]) -> list[int]:
    """Those of the folds whose last attempt ended with an error."""
    return [fold for fold in folds if read_status(folder, fold).state == FoldState.FAILED]


def _hear_stop(plan: Plan, console: Console, wandb_run: str) -> None:
    """Somebody pressed "Stop" on a W&B page. W&B may go on saying so when the run continues: once is enough."""
    heard = read_json(plan.folder.wandb / "stopped.json", default=[])
    if wandb_run in heard:
        return
    write_json(plan.folder.wandb / "stopped.json", [*heard, wandb_run])
    if plan.config.tracking.on_stop == "report":
        console.print(
            f'"Stop" was pressed in W&B on {wandb_run}: training goes on (tracking.on_stop=stop would end it)'
        )
        return
    console.print(f'"Stop" was pressed in W&B on {wandb_run}: the folds end after the epochs that are under way')
    request_stop(plan.folder, StopWhen.EPOCH, f"W&B run {wandb_run}")


def _check(config: RunConfig, scratch: Path | None) -> Plan:
    """Everything that can be found out before anything is launched."""
    if "://" in config.run.storage:
        raise RunError(f"run.storage={config.run.storage}: object storage is not supported; give a folder")
    folder = RunFolder(_place_of_run(config))
    if in_submitted_job():
        _refuse_relative_paths(config)
    for path in (folder.root.parent, folder.root):
        if path.exists() and not path.is_dir():
            raise RunError(f"{path} is a file; choose another run.storage or run.name")
    if not os.access(next(path for path in folder.root.parents if path.exists()), os.W_OK):
        raise RunError(f"run.storage={config.run.storage} cannot be written to; choose another folder")
    trainer, inventory = load_inventory_module(config.family).take_inventory(config.trainer, scratch or folder.root)
    run = dataclasses.replace(config.run, name=folder.root.name, storage=str(folder.root.parent))
    config = dataclasses.replace(config, trainer=trainer, run=run)
    folds = plan_folds(config.folds, inventory)
    leaks = find_leaks(folds, inventory)
    refuse_leaks(leaks, config.folds)
    return Plan(config, folder, inventory, folds, leaks)


def _place_of_run(config: RunConfig) -> Path:
    name = config.run.name or config.recipe
    if name == "auto":
        name = f"{config.recipe}_{time.strftime('%Y%m%d_%H%M%S')}"
    return Path(os.path.abspath(os.path.expanduser(config.run.storage))) / name


def _refuse_relative_paths(config: RunConfig) -> None:
    for name, value in {"run.storage": config.run.storage, "data.root": config.trainer.data.root}.items():
        if value and not os.path.isabs(os.path.expanduser(value)):
            raise RunError(
                f"{name}={value} is a relative path: a submitted job runs in a temporary copy of the working directory. "
                f"Give the absolute path as the cluster's machines see it, such as {name}=/mnt/shared/{Path(value).name}"
            )


def _write_or_compare(plan: Plan, argv: Sequence[str], console: Console) -> Plan:
    """A new run writes its config and fold plan; an existing one must train the same on the same data.

    Returns:
        The plan, with what an existing run keeps.
    """
    folder, config = plan.folder, plan.config
    if not folder.config.exists():
        _write_new_run(plan, argv)
        return plan
    try:
        old, known = folder.read_config(), _read_provenance(folder)
    except RunFolderError as error:
        raise RunFolderError(
            f"{error}. Put back a copy of the file, or begin anew with another run.name (run.name=auto)"
        ) from None
    config = _keep_wandb_place(old, config)
    trained, other = find_differences(old, config)
    if trained:
        changes = "\n".join(f"  {name}: {was!r} in the run, {now!r} now" for name, (was, now) in trained.items())
        raise ConfigChangedError(
            f"{folder.root} exists and these fields change what is trained:\n{changes}\n"
            "Use the old values to continue it, or another run.name (run.name=auto) for a new run"
        )
    if known["data_fingerprint"] != plan.inventory.fingerprint:
        raise ConfigChangedError(
            f"{folder.root} exists and its data changed: the tables or pictures below {config.trainer.data.root} are not "
            "the ones it began with. Put them back to continue it, or use another run.name"
        )
    if known["plan_fingerprint"] != plan.folds.fingerprint():
        raise ConfigChangedError(
            f"{folder.root} exists and its rows would be divided otherwise now: by another version of scikit-learn? It began "
            f"with {known['versions'].get('scikit-learn')}. Install that to continue it, or use another run.name"
        )
    if not is_plan_whole(folder, plan.folds):
        console.print(f"{folder.fold_plan} is damaged: it is written anew", style="yellow")
        _write_fold_plan(folder, plan.folds)
    if other:
        console.print("changed in this run: " + ", ".join(f"{name}={now}" for name, (_, now) in other.items()))
        folder.write_config(config)
    return dataclasses.replace(plan, config=config)


def _keep_wandb_place(old: RunConfig, new: RunConfig) -> RunConfig:
    """A continued run stays where it is in W&B when its place was given by variables that this shell does not have."""
    kept = {
        name: getattr(old.tracking, name)
        for name in ("wandb", "project", "entity", "name")
        if getattr(new.tracking, name) == getattr(TrackingConfig(), name)
    }
    return dataclasses.replace(new, tracking=dataclasses.replace(new.tracking, **kept))


def _read_provenance(folder: RunFolder) -> dict[str, Any]:
    known = read_json(folder.provenance)
    missing = {"data_fingerprint", "plan_fingerprint", "versions"} - set(known)
    if missing:
        raise RunFolderError(f"{folder.provenance} has no {', '.join(sorted(missing))}")
    return known


def _write_fold_plan(folder: RunFolder, folds: FoldPlan) -> None:
    table = pa.table(
        {
            "id": pa.array(folds.ids.tolist(), pa.string()),
            "repeat": pa.array(np.zeros(len(folds.ids), np.int32)),
            "fold": pa.array(folds.fold.astype(np.int32)),
        }
    )
    write_parquet(folder.fold_plan, table)


def _write_new_run(plan: Plan, argv: Sequence[str]) -> None:
    folder, folds = plan.folder, plan.folds
    _write_fold_plan(folder, folds)
    write_csv(folder.fold_info, ["fold", "train_size", "val_size"], folds.sizes())
    if plan.inventory.bad_rows:
        columns = list(plan.inventory.bad_rows[0])
        write_csv(folder.bad_rows, columns, [[row[name] for name in columns] for row in plan.inventory.bad_rows])
    if plan.leaks:
        write_csv(folder.leaks, COLUMNS, list_rows(plan.leaks))
    provenance = {
        "command": _command_line(argv),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "target": plan.inventory.target_name,
        "data_fingerprint": plan.inventory.fingerprint,
        "plan_fingerprint": folds.fingerprint(),
        "constant_predictions": _predict_constants(plan),
        "num_train": len(folds.ids),
        "num_test": plan.inventory.num_test,
        "leaks": count_leaks(plan.leaks, plan.inventory),
        "versions": package_versions(),
    }
    write_json(folder.provenance, provenance, checksum=True)
    folder.write_config(plan.config)  # last: from here on the run exists


def _predict_constants(plan: Plan) -> list[float]:
    """For each fold the best constant of its training rows."""
    target = dict(zip(plan.folds.ids, plan.inventory.target, strict=True))
    splits = [plan.folds.split(fold) for fold in range(plan.folds.count)]
    return [predict_constant(np.array([target[row_id] for row_id in split.train_ids])) for split in splits]


def _is_up_to_date(plan: Plan, finished: list[int]) -> bool:
    summary = read_json(plan.folder.summary, default={})  # written last
    scored = [fold["fold"] for fold in (summary.get("scores") or {}).get("folds", [])]
    return summary.get("ensemble") == to_dict(plan.config)["ensemble"] and scored == finished


def _combine_here(plan: Plan, sink: WandbSink, seconds: dict[str, float]) -> dict[str, Any]:
    """The ensemble stage without Ray: there is nothing to train."""
    sink.start()
    began = time.monotonic()
    Coordination(plan.folder, plan.config.folds.count).settle()
    stage = run_ensemble_stage(str(plan.folder.root))
    seconds["ensemble"] = time.monotonic() - began
    return stage


def _train_and_combine(
    plan: Plan, todo: list[int], console: Console, sink: WandbSink, seconds: dict[str, float]
) -> dict[str, Any]:
    folder, config = plan.folder, plan.config
    sizes = plan.folds.sizes()
    console.print(
        f"run {folder.root.name}: {len(plan.folds.ids)} rows, {config.folds.count} folds ({config.folds.kind}), "
        f"{plan.inventory.num_test} test rows; training folds {todo}"
    )
    if plan.inventory.bad_rows:
        console.print(f"{len(plan.inventory.bad_rows)} bad rows, listed in {folder.bad_rows}", style="yellow")
    print_leaks(console, plan.leaks, config.folds, plan.inventory, folder)
    for fold in todo:
        forget_attempt(folder, fold)
    began = time.monotonic()
    with (
        listening() as interrupts,
        _chatter_to(folder.log / "ray.log"),
        connect(folder.root.name, dashboard=config.run.dashboard) as cluster,
    ):
        import ray

        interrupts.listen()
        interrupts.check()
        if not cluster.asks_for_token:
            warn_of_open_cluster(console, is_own=cluster.is_own)
        placement = place_folds(config.resources, cluster.resources, config.folds.count)
        _announce(console, cluster, placement, min(placement.folds_at_once, len(todo)), folder)
        prepare_node = load_inventory_module(config.family).prepare_node
        if cluster.is_own:
            prepare_node(config.trainer)
        else:
            run_on_each_node(prepare_node, config.trainer)
        coordinator = _start_coordinator(folder, config.folds.count)
        world_size = placement.num_workers * placement.folds_at_once
        num_gpus = placement.gpus_per_worker * world_size
        coordinator.apply.remote(RunStarted(len(plan.folds.ids), num_gpus, world_size, tuple(sizes)))
        sink.start()
        seconds["start_ray"] = time.monotonic() - began
        began = time.monotonic()
        launcher = FoldLauncher(folder, config.run, placement, coordinator, cluster.heartbeat, interrupts)
        launcher.train(todo, console, config.folds.count)
        ray.get(coordinator.flush.remote())
        seconds["train"] = time.monotonic() - began
        began = time.monotonic()
        stage = ray.get(ray.remote(num_cpus=0)(run_ensemble_stage).options(name="ensemble").remote(str(folder.root)))
        seconds["ensemble"] = time.monotonic() - began
        return stage


def _start_coordinator(folder: RunFolder, num_folds: int) -> Any:
    try:
        return start_actor(folder, num_folds)
    except ValueError as error:  # the name is taken
        raise RunBusyError(f"a driver in this cluster already works on {folder.root}: {error}") from None


def _announce(console: Console, cluster: Connection, placement: Placement, at_once: int, folder: RunFolder) -> None:
    device = f"{placement.gpus_per_worker:g} GPU" if placement.gpus_per_worker else "no GPU"
    console.print(
        f"{at_once} fold(s) at once, {placement.num_workers} worker(s) each with "
        f"{placement.cpus_per_worker:g} CPU ({placement.threads_per_worker} threads) and {device}; "
        f"{'own Ray cluster' if cluster.is_own else 'joined a Ray cluster'}"
    )
    if placement.waits_for:
        console.print(f"waiting for the autoscaler to start {placement.waits_for}", style="yellow")
    if cluster.dashboard_url:
        asks = " (it asks for a token: `ray get-auth-token` prints it)" if cluster.asks_for_token else ""
        console.print(f"dashboard: http://{cluster.dashboard_url}{asks}")
    console.print(f"folder: {folder.root}")
    free_bytes = shutil.disk_usage(folder.root).free
    if free_bytes < LITTLE_SPACE_BYTES:
        console.print(
            f"only {free_bytes / 1e6:.0f} MB are free there; a fold that finds the disk full waits for space",
            style="yellow",
        )


@contextmanager
def _chatter_to(path: Path) -> Iterator[None]:
    """What libraries print goes to a file; the screen is for the run (its console was opened before)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        io.TextIOWrapper(io.BufferedWriter(LossyFile(path, "a")), line_buffering=True) as file,
        redirect_stdout(file),
        redirect_stderr(file),
    ):
        yield


def _show_plan(console: Console, plan: Plan) -> None:
    console.print(show(plan.config))
    console.print(f"\nwould run in {plan.folder.root}: {len(plan.folds.ids)} rows, {plan.inventory.num_test} test rows")
    for fold, train_size, val_size in plan.folds.sizes():
        console.print(f"  fold {fold}: {train_size} rows train, {val_size} validate")
    print_leaks(console, plan.leaks, plan.config.folds, plan.inventory, plan.folder)
    console.print("dry run: nothing was launched or written")


def _command_line(argv: Sequence[str]) -> str:
    return shlex.join(["python", "ray_jobs/kfold.py", *argv])
