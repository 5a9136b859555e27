"""The coordination actor: hears what the folds report, keeps their status on disk, records the `ensemble/` metrics.

It is a messenger, not a store: whatever it knows it has written to the run's folder, and it begins by reading that.
While the run's storage takes nothing it keeps what is to be written, and neither waits nor fails.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from ray_jobs.cluster.access import NAMESPACE, actor_name
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.events import (
    NOT_KEPT,
    Event,
    FoldCompleted,
    FoldEvent,
    FoldStarted,
    PrecisionChosen,
    RunStarted,
    advance,
)
from ray_jobs.runs.json_files.status import FoldState, FoldStatus, read_status, write_status
from ray_jobs.runs.location import find_uri
from ray_jobs.runs.outages import Storage
from ray_jobs.runs.record import MetricRecord, Record, read_lines

logger = logging.getLogger(__name__)
MAX_RESTARTS = 100  # by whatever kills it; where memory is short Ray may do so again and again


class Coordination:
    """The state of all folds of one member; applies one event at a time. No Ray in it."""

    def __init__(self, folder: RunFolder, num_folds: int) -> None:
        self.folder, self.storage = folder, Storage(folder, 0.0)
        self.unwritten: list[tuple[str, Callable[[], Any]]] = []
        self.is_behind = False
        self.folds = {fold: read_status(folder, fold) for fold in range(num_folds)}
        self.events = Record(folder.events)
        known = read_lines(folder.events)
        self.noted = {(row["event"], row["fold"], row["attempt"]) for row in known if "attempt" in row}
        chosen = [row["precision"] for row in known if row["event"] == PrecisionChosen.__name__]
        self.precision: str | None = chosen[0] if chosen else None
        self.record = MetricRecord(folder.ensemble_record)
        self.has_totals, self.all_are_said = False, False
        self.said: dict[int, str] = {}  # the last that the record says of each fold: start, completed
        for row in read_lines(self.record.path):
            self._follow(row)

    def apply(self, event: Event) -> None:
        """Takes in one event: memory, status file, metric record, in this order. A late word of an earlier attempt is
        ignored."""
        if not isinstance(event, RunStarted) and self._is_late(event):
            return
        if not isinstance(event, NOT_KEPT):
            self._note(event)
        if isinstance(event, RunStarted):
            self._start_run(event)
            return
        now = time.time()
        status = replace(advance(self.folds[event.fold], event, now), heard=now)
        self._keep(status)
        # It may have ended before its start is heard.
        if isinstance(event, FoldStarted) and status.state == FoldState.TRAINING:
            self._log_start(status)
        elif isinstance(event, FoldCompleted):
            self._log_completion(event.fold)

    def choose_precision(self, found: str) -> str:
        """What `precision=auto` is in this run: what the first fold that asks has found, whatever later ones find."""
        if self.precision is None:
            self.precision = found
            self._note(PrecisionChosen(found))
        return self.precision

    def fail_unfinished_attempts(self) -> None:
        """Completes folds whose manifest is there although nobody said so: their driver was killed before it could."""
        for fold, status in self.folds.items():
            if self.folder.fold(fold).is_complete():
                if status.state != FoldState.COMPLETED:
                    self._keep(advance(status, FoldCompleted(fold, status.attempt), time.time()))
                self._log_completion(fold)

    def flush(self) -> bool:
        """Writes what waits to be written, in order, as far as the storage takes it; returns whether it has all."""
        while self.unwritten:
            what, write = self.unwritten[0]
            try:
                self.storage.check()
                write()
            except OSError as error:
                if not self.is_behind:
                    logger.warning("%s waits to be written: %s", what, error)
                self.is_behind = True
                return False
            self.unwritten.pop(0)
        self.is_behind = False
        return True

    def _write(self, what: str, write: Callable[[], Any]) -> None:
        self.unwritten.append((what, write))
        self.flush()

    def _keep(self, status: FoldStatus) -> None:
        self.folds[status.fold] = status
        what = f"status.json of fold {status.fold}"
        self.unwritten = [waiting for waiting in self.unwritten if waiting[0] != what]  # only the latest counts
        self._write(what, lambda: write_status(self.folder, status))

    def _note(self, event: Event | PrecisionChosen) -> None:
        """Writes an event down, if it is not there already: Ray repeats a call when the actor had to restart."""
        name, values = type(event).__name__, asdict(event)
        if "attempt" in values:
            key = (name, values["fold"], values["attempt"])
            if key in self.noted:
                return
            self.noted.add(key)
        line = {"time": time.time(), "event": name, **values}
        self._write("a line of events.jsonl", lambda: self.events.append(line))

    def _is_late(self, event: FoldEvent) -> bool:
        """Whether a later attempt is known here, or on disk: then this is the actor of a driver that was killed."""
        known = self.folds[event.fold].attempt
        with contextlib.suppress(OSError):
            known = max(known, read_status(self.folder, event.fold).attempt)
        return event.attempt < known

    def _start_run(self, event: RunStarted) -> None:
        self.fail_unfinished_attempts()
        for fold, train_size, val_size in event.sizes:
            known = self.folds[fold]
            if known.state == FoldState.TRAINING:  # left by an interrupted driver: this one has launched nothing yet
                known = FoldStatus(fold, attempt=known.attempt)
            self._keep(replace(known, train_size=train_size, val_size=val_size))
        if not self.has_totals:
            self._log(
                {
                    "ensemble/total_samples": event.total_samples,
                    "ensemble/n_folds": len(event.sizes),
                    "ensemble/n_gpus": event.num_gpus,
                    "ensemble/world_size": event.world_size,
                }
            )

    def _log_start(self, status: FoldStatus) -> None:
        """Records that a fold has started: once, however often it has to go on in another attempt."""
        name = f"ensemble/fold_{status.fold}"
        if self.said.get(status.fold) != "start":
            self._log(
                {f"{name}_start": 1, f"{name}_train_size": status.train_size, f"{name}_val_size": status.val_size}
            )

    def _log_completion(self, fold: int) -> None:
        """Records that a fold, and perhaps the run, is complete: once for each start."""
        if self.said.get(fold) != "completed":
            self._log({f"ensemble/fold_{fold}_completed": 1})
        if self.all_are_said or any(status.state != FoldState.COMPLETED for status in self.folds.values()):
            return
        table = [[status.fold, status.train_size, status.val_size] for status in self.folds.values()]
        self._log(
            {
                "ensemble/all_folds_completed": 1,
                "ensemble/ready_for_ensemble": 1,
                "ensemble/fold_info": {"columns": ["fold", "train_size", "val_size"], "data": table},
            }
        )

    def _log(self, metrics: dict[str, Any]) -> None:
        at = time.time()
        self._write("a line of ensemble.jsonl", lambda: self.record.log(self.record.num_lines, metrics, at=at))
        self._write("ensemble.jsonl", self.record.sync)
        self._follow(metrics)

    def _follow(self, row: Mapping[str, Any]) -> None:
        """What a row of the record says was recorded."""
        self.has_totals |= "ensemble/total_samples" in row
        for fold in self.folds:
            for what in ("start", "completed"):
                if f"ensemble/fold_{fold}_{what}" in row:
                    self.said[fold] = what
                    self.all_are_said = False
        self.all_are_said |= "ensemble/all_folds_completed" in row


class Coordinator:
    """Ray's form of `Coordination`: one actor for all members of a run. Sets the folds' gauges, too."""

    def __init__(self, root: str, members: list[str], num_folds: int) -> None:
        from ray_jobs.tracking.gauges import FoldGauges

        folder = RunFolder(root)
        self.title = f"coordinator of {folder.run_root.name}"
        self.members = {name: Coordination(folder.of_member(name), num_folds) for name in members}
        self.gauges = FoldGauges(folder.root.name, {name: state.folds for name, state in self.members.items()})
        self.gauges.start()

    def __repr__(self) -> str:
        """As the dashboard's table of actors shows it."""
        return self.title

    def apply(self, member: str, event: Event) -> None:
        """Takes in an event of one member's folds."""
        self.members[member].apply(event)
        self.gauges.export()  # at once: the actor may end before the next refresh

    def choose_precision(self, found: str) -> str:
        """What `precision=auto` is for every member of this run; see `Coordination`."""
        return next(iter(self.members.values())).choose_precision(found)

    def show(self, lines: list[str]) -> None:
        """Prints what the driver's terminal shows into this actor's log, of which Ray's dashboard opens stderr first: a
        driver that was not submitted has no log there."""
        print(*lines, sep="\n", file=sys.stderr, flush=True)

    def flush(self) -> bool:
        """Writes what waits to be written, as far as the storage takes it; returns whether it has all."""
        have_all = [state.flush() for state in self.members.values()]
        return all(have_all)


def start_actor(folder: RunFolder, members: list[str], num_folds: int) -> Any:
    """Starts the actor; it reserves nothing and comes back by itself if it dies. Of a run on object storage it lives on
    the driver's machine, whose files it writes."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    actor = ray.remote(num_cpus=0, max_restarts=MAX_RESTARTS, max_task_retries=-1)(Coordinator)
    options: dict[str, Any] = {"name": actor_name(folder), "namespace": NAMESPACE}
    if find_uri(folder) is not None:
        here = ray.get_runtime_context().get_node_id()
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(here, soft=False)
    return actor.options(**options).remote(str(folder.root), members, num_folds)
