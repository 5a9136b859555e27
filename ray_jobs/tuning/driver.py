"""Drives a tuning: check, choose values, train trials, compare. Runs in the process that the user started.

Each trial has a thread here (`trainer.py`); so many at once that all their folds fit on the cluster (`admission.py`).
"""

from __future__ import annotations

import dataclasses
import tempfile
import threading
import time
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console

from ray_jobs.cli.command_line import Command, show
from ray_jobs.cli.console import RunConsole, open_console
from ray_jobs.cluster.signals import find_save_time_s
from ray_jobs.cluster.spread import ClusterSpread
from ray_jobs.cluster.start import RayStart
from ray_jobs.config.run import RunSection
from ray_jobs.config.tune import TuneConfig
from ray_jobs.driver.session import (
    Session,
    no_empty_run,
    note_memory,
    print_leaks,
    say_dry_run_ends,
    write_inputs,
)
from ray_jobs.errors import EXIT_INCOMPLETE, EXIT_OK
from ray_jobs.planning.inventories import describe_inputs
from ray_jobs.planning.plan import Plan
from ray_jobs.runs.files import read_json, write_json
from ray_jobs.runs.json_files.summary import read_summary
from ray_jobs.tracking.wandb_sink import WandbSink
from ray_jobs.tuning.admission import admit_trials
from ray_jobs.tuning.display import TrialWatcher, describe_result
from ray_jobs.tuning.outcome import compare_trials, describe_ensemble, print_tuning, read_all, write_trials
from ray_jobs.tuning.planning import Tuning, check_tuning, write_or_compare_tuning
from ray_jobs.tuning.progress import Progress, rebuild_halving
from ray_jobs.tuning.space import Dimension
from ray_jobs.tuning.trainer import TrialTrainer
from ray_jobs.tuning.trials import Result, Trial

_LOOK_INTERVAL_S = 0.5


def run_tuning(
    command: Command,
    tune: TuneConfig,
    space: list[Dimension],
    argv: Sequence[str],
) -> int:
    """The tuning job.

    Args:
        command: the recipe with the user's fields, and flags.
        tune: how it is tuned.
        space: what, checked.
        argv: what was typed.

    Returns:
        0: done; 1: no trial has a score, or the storage failed; 130: interrupted.

    Raises:
        RunError, DataError: nothing was launched; the message says why.
    """
    console = open_console()
    if command.dry_run:
        with tempfile.TemporaryDirectory() as scratch:
            show_tuning(console, check_tuning(command.config, tune, space, command.words, Path(scratch)))
        return EXIT_OK
    named = dataclasses.replace(command.config.run, name=tune.name or f"{command.config.recipe}_tune")
    assert named.name is not None
    with no_empty_run(named.storage, named.name):
        return _tune(command, named, tune, space, argv, console)


def _tune(
    command: Command,
    named: RunSection,
    tune: TuneConfig,
    space: list[Dimension],
    argv: Sequence[str],
    console: RunConsole,
) -> int:
    """A tuning that has its name; returns the exit code."""
    start = RayStart.for_run(dataclasses.replace(command.config, run=named))
    tuning = check_tuning(command.config, tune, space, command.words, spread=ClusterSpread(start, console.print))
    folder = tuning.folder
    with folder.lock():
        write_or_compare_tuning(tuning, argv)
        folder.remove_leftovers()
        tell = partial(describe_result, console, tuning.config.error_name)
        progress = Progress(tuning, retries_failed=command.retry_failed, tell=tell)
        is_known = read_json(folder.tune, default={}).get("ensemble") == describe_ensemble(tuning)
        if progress.is_over() and is_known:
            console.print(f"tuning {folder.root.name} is finished: nothing to do")
            print_tuning(console, tuning)
            return EXIT_OK
        session = Session(f"tuning {folder.root.name}", folder, tuning.config, start, console)
        return session.run(partial(_work, session, progress))


@dataclass
class StopReporter:
    """Says once of each W&B run that somebody pressed "Stop" on its page."""

    console: Console
    heard: set[str] = field(default_factory=set)

    def hear(self, wandb_run: str) -> None:
        """W&B goes on saying so."""
        if wandb_run not in self.heard:
            self.heard.add(wandb_run)
            self.console.print(f'"Stop" was pressed in W&B on {wandb_run}: the tuning goes on; Ctrl-C ends it')


def _work(session: Session, progress: Progress) -> int:
    """Trains the trials that are left and compares all; returns the exit code."""
    tuning, console = progress.tuning, session.console
    with WandbSink(tuning.folder, tuning.config, console.print, on_stop=StopReporter(console).hear) as sink:
        if progress.is_over():
            sink.start()
            return conclude_tuning(tuning, sink, console)
        folds = tuning.config.folds
        console.print(
            f"tuning {tuning.folder.root.name}: {len(tuning.plan.folds.ids)} rows, {folds.count} folds ({folds.kind}), "
            f"{tuning.tune.num_trials} trials beside the recipe; {len(progress.list_ended())} have ended"
        )
        for note in tuning.plan.inventory.notes:
            console.print(note, style="yellow")
        print_leaks(console, tuning.plan.leaks, folds, tuning.plan.inventory, tuning.folder)
        with session.on_cluster():
            sink.start()
            _train_trials(session, progress)
            return conclude_tuning(tuning, sink, console)


def _train_trials(session: Session, progress: Progress) -> None:
    """Trains trials until none is left.

    Raises:
        KeyboardInterrupt, ClusterLostError: the trials under way have saved where they are.
        OSError, RunError: of a trial; the others under way were let end.
    """
    tuning, tune, config = progress.tuning, progress.tuning.tune, progress.tuning.config
    folds_each = _count_folds_of_trial(tuning)
    placement, at_once = admit_trials(
        config.resources, session.cluster.resources, folds_each, tune.num_trials + 1, tune.max_trials_at_once
    )
    counts = f"{at_once} trial(s) at once, {placement.folds_at_once} fold(s) each at once"
    session.announce(f"{counts}, {placement.num_workers} worker(s) a fold", placement)
    halving = rebuild_halving(progress) if tune.scheduler == "asha" else None
    prepare = PreparedInputs(tuning, session).prepare
    trainer = TrialTrainer(tuning, session, placement, halving, prepare, threading.Lock())
    running: list[TrialThread] = []
    try:
        with TrialWatcher(tuning.folder, config, session.console) as watcher:
            while True:
                failures = [thread.failure for thread in running if thread.failure is not None]
                while not failures and len(running) < at_once and (upcoming := progress.take_next()):
                    running.append(TrialThread(trainer, *upcoming))
                    running[-1].start()
                watcher.update(progress.trials, progress.results, {thread.trial.number for thread in running})
                if not running:
                    break
                running[0].ended.wait(_LOOK_INTERVAL_S)
                session.check()
                running = _collect(running, progress, session.console)
    except KeyboardInterrupt:
        session.say_interrupted()
        deadline = time.monotonic() + find_save_time_s() + _LOOK_INTERVAL_S
        for thread in running:
            thread.ended.wait(max(0.0, deadline - time.monotonic()))
        raise


def _collect(running: list[TrialThread], progress: Progress, console: Console) -> list[TrialThread]:
    """Takes in the trials that have ended; returns the others.

    Raises:
        OSError, RunError: what ended a trial's thread, once no other is under way.
    """
    ended = [thread for thread in running if thread.ended.is_set()]
    for thread in ended:
        if thread.result is not None:
            progress.results[thread.trial.number] = thread.result
            describe_result(console, progress.tuning.config.error_name, thread.trial, thread.result)
    if any(thread.result is not None for thread in ended):
        write_trials(progress.tuning, progress.list_ended())
    failed = [thread for thread in ended if thread.failure is not None]
    living = [thread for thread in running if thread not in ended]
    if failed and not living:
        assert failed[0].failure is not None
        raise failed[0].failure
    return living + failed


class TrialThread(threading.Thread):
    """Trains a trial. A daemon: what waits for Ray may wait for ever once Ray is shut down, and must not keep the
    driver."""

    def __init__(self, trainer: TrialTrainer, trial: Trial, plan: Plan) -> None:
        super().__init__(name=trial.name, daemon=True)
        self.trainer, self.trial, self.plan = trainer, trial, plan
        self.result: Result | None = None
        self.failure: BaseException | None = None
        # Not `join`: an interrupt that strikes in it makes a thread that goes on look ended (until Python 3.13).
        self.ended = threading.Event()

    def run(self) -> None:
        """Keeps the result, or what was raised instead."""
        try:
            self.result = self.trainer.run(self.trial, self.plan)
        except BaseException as failure:
            self.failure = failure
        finally:
            self.ended.set()


@dataclass
class PreparedInputs:
    """What trials read, left in the tuning's folder and on the nodes once for all that read the same."""

    tuning: Tuning
    session: Session
    done: set[Hashable] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def prepare(self, plan: Plan) -> None:
        """Leaves what a plan reads, unless it is there."""
        with self.lock:
            key = describe_inputs(plan.config)
            if key not in self.done:
                write_inputs(plan)
                self.session.prepare_nodes(plan)
                self.done.add(key)


def _count_folds_of_trial(tuning: Tuning) -> int:
    """Folds that a trial trains at the same time."""
    return 1 if tuning.tune.scheduler == "asha" else tuning.config.folds.count


def show_tuning(console: Console, tuning: Tuning) -> None:
    """What a dry run shows: the recipe, its folds, what memory allows, the trials."""
    console.print(show(tuning.config))
    for fold, train_size, val_size in tuning.plan.folds.sizes():
        console.print(f"  fold {fold}: {train_size} rows train, {val_size} validate")
    memory = note_memory(tuning.config, _count_folds_of_trial(tuning))
    for note in (*tuning.plan.inventory.notes, *filter(None, [memory])):
        console.print(note, style="yellow")
    console.print(f"\nwould tune in {tuning.folder.root}:")
    for dimension in tuning.space:
        console.print(f"  {dimension}")
    shown = dataclasses.replace(tuning, tune=dataclasses.replace(tuning.tune, search="random"))
    for trial in Progress(shown).trials.values():
        console.print(f"  {trial.name}: {trial}{' (the recipe as it is)' if trial.number == 0 else ''}")
        if tuning.tune.search == "tpe":
            console.print("  the others are chosen when results are there")
            break
    say_dry_run_ends(console, tuning.plan)


def conclude_tuning(tuning: Tuning, sink: WandbSink, console: Console) -> int:
    """Compares the trials, writes all files, waits for W&B as long as is allowed, says how it went; returns the exit
    code."""
    from ray_jobs.reporting.html_report import write_report_or_warn  # matplotlib is not loaded before the folds train
    from ray_jobs.tuning.report import write_tuning_report_or_warn

    folder, config = tuning.folder, tuning.config
    trials, results = read_all(tuning)
    write_trials(tuning, [(trials[number], results[number]) for number in trials])
    outcome = compare_trials(tuning, trials, results)
    if outcome["best"] is not None:
        best = folder.of_trial(outcome["best"])
        write_report_or_warn(best, best.read_config(), read_summary(best))
    said = {"tune": asdict(tuning.tune), "outcome": outcome}
    write_tuning_report_or_warn(tuning, trials, results, outcome)
    write_json(folder.tune, said | {"ensemble": describe_ensemble(tuning)})  # last: from here on it is finished
    sink.finish(config.tracking.finish_timeout_s)
    print_tuning(console, tuning)
    return EXIT_INCOMPLETE if outcome["best"] is None else EXIT_OK
