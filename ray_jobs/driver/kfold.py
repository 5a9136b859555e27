"""Drives a K-fold run: check, plan, launch, watch, combine, report. Runs in the process that the user started."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from ray_jobs.cli.command_line import Command, show
from ray_jobs.cli.console import RunConsole, open_console
from ray_jobs.cluster.placement import Placement, place_folds
from ray_jobs.cluster.spread import ClusterSpread
from ray_jobs.cluster.start import RayStart
from ray_jobs.config.members import resolve_members
from ray_jobs.config.run import RunConfig, find_differences, to_dict
from ray_jobs.driver.conclude import conclude
from ray_jobs.driver.coordinator import Coordination
from ray_jobs.driver.launcher import MemberFold
from ray_jobs.driver.session import (
    Session,
    list_unfinished,
    no_empty_run,
    note_memory,
    print_leaks,
    say_dry_run_ends,
    start_coordinator,
    write_inputs,
)
from ray_jobs.errors import EXIT_INCOMPLETE, EXIT_INTERRUPTED, EXIT_OK
from ray_jobs.planning.checks import check_run, name_run
from ray_jobs.planning.continuation import write_or_compare
from ray_jobs.planning.ended import find_ended, note_end
from ray_jobs.planning.plan import Plan
from ray_jobs.reporting.live_table import Watcher
from ray_jobs.reporting.outcome import print_outcome
from ray_jobs.results.stage import run_ensemble_stage
from ray_jobs.runs.files import read_json, write_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.requests import StopWhen, request_stop
from ray_jobs.runs.json_files.status import FoldState, forget_attempt, read_status
from ray_jobs.runs.json_files.summary import StageResult, Summary, find_summary, read_summary
from ray_jobs.runs.location import join_run
from ray_jobs.runs.outages import Storage
from ray_jobs.runs.remote.run_mirror import hold_run
from ray_jobs.runs.repair import reset_damaged_folds
from ray_jobs.tracking.wandb_sink import WandbSink

_FLUSH_INTERVAL_S = 1.0  # between two tries to write what the coordinator has heard


def run_kfold(command: Command, argv: Sequence[str], settle: Callable[[Plan], Plan] | None = None) -> int:
    """The K-fold job.

    Args:
        command: what the user wants.
        argv: what was typed.
        settle: gives a plan that has passed every check what else belongs to it.

    Returns:
        0: done; 1: a fold failed; 130: interrupted.

    Raises:
        RunError, DataError: nothing was launched; the message says why.
    """
    console = open_console()
    started = time.monotonic()
    if command.dry_run:
        with tempfile.TemporaryDirectory() as scratch:
            _show_plan(console, check_run(command.config, Path(scratch)))
        return EXIT_OK
    config = name_run(command.config)
    assert config.run.name is not None
    with no_empty_run(config.run.storage, config.run.name):
        return _run(command, config, argv, settle, console, started)


def _run(
    command: Command,
    config: RunConfig,
    argv: Sequence[str],
    settle: Callable[[Plan], Plan] | None,
    console: RunConsole,
    started: float,
) -> int:
    """A run that has its name; returns the exit code."""
    began_ns = time.time_ns()
    if settle is None and (folder := find_ended(config)) is not None and _is_still_whole(folder, console):
        return _say_finished(folder, console)
    start = RayStart.for_run(config)
    plan = check_run(config, None, ClusterSpread(start, console.print))
    plan = settle(plan) if settle is not None else plan
    uri, warn = join_run(plan.config.run.storage, plan.folder.root.name), partial(console.print, style="yellow")
    with hold_run(plan.folder, uri, pushes=False) as mirror:
        plan = write_or_compare(plan, argv, warn, command.job)
        plan.folder.remove_leftovers()
        for folder in [member.folder for member in plan.members.values()]:
            reset_damaged_folds(folder, plan.config.folds.count, warn)
        todo = list_unfinished(plan)
        if not todo and _is_up_to_date(plan):
            note_end(plan.folder, config, began_ns)
            return _say_finished(plan.folder, console)
        if command.retry_failed:
            todo = keep_failed(todo)
            if not todo:
                console.print("no fold has failed: nothing to retry")
                return EXIT_OK
        plan.folder.stop_request.unlink(missing_ok=True)
        name = plan.folder.root.name
        continued = f"run {name}, with run.name={name}" if command.config.run.name == "auto" else f"run {name}"
        session = Session(continued, plan.folder, plan.config, start, console, mirror)
        code = session.run(partial(_work, session, plan, todo, started))
    if code == EXIT_OK:
        note_end(plan.folder, config, began_ns)
    return code


def _is_still_whole(folder: RunFolder, console: RunConsole) -> bool:
    """Whether every fold of a run that has ended is there, and as it was."""
    config = folder.read_config()
    with hold_run(folder, pushes=False):
        folders = [folder, *(folder.of_member(name) for name in list(resolve_members(config))[1:])]
        for one in folders:
            reset_damaged_folds(one, config.folds.count, partial(console.print, style="yellow"))
        return all(one.fold(fold).is_complete() for one in folders for fold in config.folds.wanted())


def _say_finished(folder: RunFolder, console: RunConsole) -> int:
    console.print(f"run {folder.root.name} is finished: nothing to do")
    print_outcome(console, folder, read_summary(folder))
    return EXIT_OK


def _work(session: Session, plan: Plan, todo: list[MemberFold], started: float) -> int:
    """Trains, combines and concludes; returns the exit code."""
    console, mirror, seconds = session.console, session.mirror, {"check": time.monotonic() - started}
    warn = partial(console.print, style="yellow")
    hear_stop = partial(_hear_stop, plan, console)
    patient = Storage(plan.folder, plan.config.checkpoint.storage_patience_s, warn)
    with WandbSink(plan.folder, plan.config, console.print, on_stop=hear_stop, put=mirror.push_run) as sink:
        end = partial(_combine_and_conclude, session, plan, started, seconds, sink)
        with mirror.keeping([member.folder for member in plan.members.values()], plan.folds.count, warn):
            summary = (
                _train(session, plan, todo, sink, seconds, end) if todo else _conclude_without_training(plan, sink, end)
            )
    patient.retry_while_unavailable("putting the run's files", partial(mirror.push_run, logs=True), by_name=False)
    if summary.outcome == "partial" and (untrained := list_untrained(todo)):
        console.print(f"not trained: {', '.join(map(str, untrained))}; the same command goes on", style="bold red")
        return EXIT_INCOMPLETE
    return {"failed": EXIT_INCOMPLETE, "interrupted": EXIT_INTERRUPTED}.get(summary.outcome, EXIT_OK)


def list_untrained(folds: list[MemberFold]) -> list[MemberFold]:
    """Those of the folds that are not complete. No status need say that they have failed: what was to write it down may
    have died before the disk took it."""
    return [fold for fold in folds if not fold.folder.fold(fold.fold).is_complete()]


def keep_failed(folds: list[MemberFold]) -> list[MemberFold]:
    """Those of the folds whose last attempt ended with an error."""
    return [fold for fold in folds if read_status(fold.folder, fold.fold).state == FoldState.FAILED]


def _hear_stop(plan: Plan, console: Console, wandb_run: str) -> None:
    """Somebody pressed "Stop" on a W&B page. W&B may go on saying so when the run continues: once is enough."""
    heard = read_json(plan.folder.wandb_stopped, default=[])
    if wandb_run in heard:
        return
    write_json(plan.folder.wandb_stopped, [*heard, wandb_run])
    if plan.config.tracking.on_stop == "report":
        console.print(
            f'"Stop" was pressed in W&B on {wandb_run}: training goes on (tracking.on_stop=stop would end it)'
        )
        return
    console.print(f'"Stop" was pressed in W&B on {wandb_run}: the folds end after the epochs that are under way')
    request_stop(plan.folder, StopWhen.EPOCH, f"W&B run {wandb_run}")


def _is_up_to_date(plan: Plan) -> bool:
    summary = find_summary(plan.folder) or Summary()
    done = {name: tuple(member.folder.completed_folds(plan.folds.count)) for name, member in plan.members.items()}
    return bool(summary.ensemble == to_dict(plan.config)["ensemble"] and summary.stage.scored_folds == done)


def _combine_and_conclude(
    session: Session,
    plan: Plan,
    started: float,
    seconds: dict[str, float],
    sink: WandbSink,
    stage: StageResult | None = None,
) -> Summary:
    """Everything after the training; returns the summary. Without what an ensemble task has returned it combines
    here."""
    if stage is None:
        began = time.monotonic()
        stage = run_ensemble_stage(str(plan.folder.root))
        seconds["ensemble"] = time.monotonic() - began
    seconds["total"] = time.monotonic() - started
    session.storage.check()
    return conclude(plan.folder, plan.config, stage, seconds, sink, session.console)


def _conclude_without_training(plan: Plan, sink: WandbSink, end: Callable[[], Summary]) -> Summary:
    """The end of a run without Ray: there is nothing to train."""
    sink.start()
    for member in plan.members.values():
        Coordination(member.folder, plan.config.folds.count).fail_unfinished_attempts()
    return end()


def _train(
    session: Session,
    plan: Plan,
    todo: list[MemberFold],
    sink: WandbSink,
    seconds: dict[str, float],
    end: Callable[[StageResult | None], Summary],
) -> Summary:
    folder, config, console, mirror = plan.folder, plan.config, session.console, session.mirror
    folders = [member.folder for member in plan.members.values()]
    members = f", {len(folders)} members" if len(folders) > 1 else ""
    console.print(
        f"run {folder.root.name}: {len(plan.folds.ids)} rows, {config.folds.count} folds "
        f"({config.folds.kind}){members}, "
        f"{plan.inventory.num_test} test rows"
    )
    if plan.inventory.bad_rows:
        console.print(f"{len(plan.inventory.bad_rows)} bad rows, listed in {folder.bad_rows}", style="yellow")
    for note in plan.inventory.notes:
        console.print(note, style="yellow")
    print_leaks(console, plan.leaks, config.folds, plan.inventory, folder)
    write_inputs(plan)
    plan.forget_rows()
    for fold in todo:
        forget_attempt(fold.folder, fold.fold)
    mirror.publish_inputs(folders)
    began = time.monotonic()
    with session.on_cluster():
        cluster = session.cluster
        placement = place_folds(config.resources, cluster.resources, config.folds.count, len(todo))
        console.print(f"training {', '.join(map(str, todo))}")
        session.announce(_count(placement), placement)
        session.prepare_nodes(plan)
        coordinator = start_coordinator(plan, placement)
        sink.start()
        seconds["start_ray"] = time.monotonic() - began
        began = time.monotonic()
        launcher = session.make_launcher(plan, config, placement, coordinator)
        watcher = Watcher(folders, config.folds.count, console, placement.waits_for)
        launcher.train(todo, console, watcher, session.say_interrupted)
        _await_rows(coordinator, config.checkpoint.storage_patience_s)
        seconds["train"] = time.monotonic() - began
        stage = None if cluster.is_own or mirror.uri else _combine_in_task(folder, seconds)
        summary = end(stage)
        launcher.pass_on(console)
        return summary


def _await_rows(coordinator: Any, patience_s: float) -> None:
    """Waits until the coordinator has written all events and rows, in an outage of the storage so long."""
    import ray

    deadline = time.monotonic() + patience_s
    while not ray.get(coordinator.flush.remote()) and time.monotonic() < deadline:
        time.sleep(_FLUSH_INTERVAL_S)


def _combine_in_task(folder: RunFolder, seconds: dict[str, float]) -> StageResult:
    """The ensemble stage on a cluster that others use, too: where Ray has room, and again if its process dies."""
    import ray

    began = time.monotonic()
    task = ray.remote(num_cpus=0)(run_ensemble_stage).options(name="ensemble")
    stage: StageResult = ray.get(task.remote(str(folder.root)))
    seconds["ensemble"] = time.monotonic() - began
    return stage


def _count(placement: Placement) -> str:
    most = f" to {placement.most_workers}" if placement.most_workers > placement.num_workers else ""
    return f"{placement.folds_at_once} fold(s) at once, {placement.num_workers}{most} worker(s) each"


def _show_plan(console: Console, plan: Plan) -> None:
    console.print(show(plan.config))
    console.print(f"\nwould run in {plan.folder.root}: {len(plan.folds.ids)} rows, {plan.inventory.num_test} test rows")
    for fold, train_size, val_size in plan.folds.sizes():
        console.print(f"  fold {fold}: {train_size} rows train, {val_size} validate")
    for name, member in list(plan.members.items())[1:]:
        console.print(f"  member {name}: {_describe_member(plan.config, member.config) or 'as main'}")
    for note in (*plan.inventory.notes, *filter(None, [note_memory(plan.config, plan.folds.count)])):
        console.print(note, style="yellow")
    print_leaks(console, plan.leaks, plan.config.folds, plan.inventory, plan.folder)
    say_dry_run_ends(console, plan)


def _describe_member(config: RunConfig, member: RunConfig) -> str:
    """What a member differs in from the run; of another family, with which it shares no fields, what was typed."""
    if member.family == config.family:
        return ", ".join(f"{name}={now}" for name, (_, now) in find_differences(config, member)[0].items())
    name, _, seed = (member.run.name or "").partition(".")
    typed = next(([*text.split()[1:], *filter(None, [seed])] for text in config.members if text.split()[0] == name), [])
    return f"{' '.join(typed)} ({member.family})"
