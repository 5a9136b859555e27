"""What must hold, looked at after each change of a file and at the end of a run."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet

from ray_jobs.runs.location import find_place
from ray_jobs.runs.remote.lease import LEASE
from simulation.bucket import ADDRESS
from simulation.disk import Disk, Inode
from simulation.simulated import NUM_FOLDS, RUN, STORE, Simulation
from simulation.world import Process, ViolationError

_FOLD = re.compile(rf"{STORE}/{RUN}/folds/(\d+)/(.+)")
_FOLD_OBJECT = re.compile(rf"{ADDRESS}/{RUN}/folds/(\d+)/(.+)")
_RECORD = re.compile(rf"{STORE}/{RUN}/metrics/fold_(\d+)\.jsonl")
_PASSING = ("status.json", "leave_request.json", "checkpoints/resume_", "pictures/")
Point = tuple[int, bool]  # its step, and whether the validation was done there
NO_POINT: Point = (0, False)
TIMINGS = ("time", "epoch_time", "samples_per_second", "elapsed_time", "_timestamp")
_WANDB_END_S = 8.0  # until a publisher's process has ended


@dataclass
class Reference:
    """What the undisturbed run came to: the same for every setting.

    Attributes:
        states: of a fold at a step.
        rows: of a fold's record, without times.
        files: the content of what a run is for, by the path in its folder.
        names: of all files that stay.
    """

    states: dict[tuple[int, int], bytes] = field(default_factory=dict)
    rows: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)


class Checks:
    """Looks at one world.

    Args:
        simulation: which.
        reference: what its run has to come to; None: this is the undisturbed one.
    """

    def __init__(self, simulation: Simulation, reference: Reference | None) -> None:
        self.simulation, self.reference, self.found = simulation, reference, Reference()
        self.finished: dict[int, dict[str, tuple[Inode, bytes]]] = {}
        self.checked_lines: dict[int, tuple[int, int]] = {}  # of a fold's record: the file's number, its whole lines
        self.saved: dict[int, Point] = {}  # of a fold the newest point that counts
        self.began: dict[int, int] = {}  # of a fold the latest attempt that has written something of it
        self.finished_objects: dict[int, dict[str, bytes]] = {}
        self.fences: dict[int, int] = {}  # of drivers, by their process
        self.put_by: dict[str, int] = {}  # by object the fence of the driver that has put it
        self.num_checks = 0
        self.training: set[Process] = set()  # that have begun to
        self.launched_by: dict[tuple[int, int], Process | None] = {}
        self.saved_at_launch: dict[int, tuple[Point, float]] = {}  # by process, and when that was
        simulation.training.see, simulation.training.begin = self.see_state, self.see_start
        simulation.on_launch.append(self.see_launch)
        simulation.store.on_change.append(self.see_object)
        simulation.wandb.on_rows = self.see_wandb_rows
        simulation.count_rows = self.count_rows
        simulation.on_held.append(self.check_held)
        disk = simulation.shared
        disk.on_change.append(lambda what, path, inode: self.see_change(disk, what, path, inode))

    def refuse(self, what: str) -> None:
        """Ends the world: this must not be."""
        error = ViolationError(what)
        self.simulation.world.fail(error)
        raise error

    # While it runs.

    def see_state(self, fold: int, step: int, state: bytes) -> None:
        """The same bits at each step, whatever has happened."""
        self.num_checks += 1
        self.found.states[fold, step] = state
        if self.reference and self.reference.states.get((fold, step)) != state:
            self.refuse(f"(e) fold {fold} is not what it was at step {step}")

    def see_change(self, disk: Disk, what: str, path: str, inode: Inode) -> None:
        """After a name or a file's content has changed."""
        self.num_checks += 1
        if record := _RECORD.fullmatch(path):
            self.see_record(int(record[1]), what, path, inode)
        elif (place := _FOLD.fullmatch(path)) and not place[2].startswith("."):
            self.see_fold(disk, int(place[1]), place[2], what)

    def see_record(self, fold: int, what: str, path: str, inode: Inode) -> None:
        """(b) each line once, without a gap; (c) no line of a superseded attempt."""
        disk = self.simulation.shared
        try:
            named = disk._peek(path)
        except KeyError:
            return
        if what in ("write", "truncate") and named is not inode:
            return  # an old file that has no name any more
        self.note_writer(fold, "the record")
        if not self.reference:
            return
        number, known = self.checked_lines.get(fold, (0, 0))
        known = known if number == named.number and what == "write" else 0
        lines = bytes(named.data).split(b"\n")
        for place in range(known, len(lines) - 1):
            self.check_row(fold, place, lines[place])
        self.checked_lines[fold] = (named.number, len(lines) - 1)

    def check_row(self, fold: int, place: int, line: bytes) -> None:
        """A line of a record is the one that belongs there."""
        assert self.reference is not None
        try:
            row = without_times(json.loads(line))
        except ValueError:
            self.refuse(f"(b) line {place} of the record of fold {fold} is torn: {line[:80]!r}")
        wanted = self.reference.rows[fold]
        if row["step"] != place or place >= len(wanted) or row != wanted[place]:
            self.refuse(f"(b) line {place} of the record of fold {fold} is {row}")

    def see_fold(self, disk: Disk, fold: int, name: str, what: str) -> None:
        """(a) what a finished fold has left never changes."""
        if name == "manifest.json" and what == "rename":
            self.note_writer(fold, "the manifest")
            self.note_finished(disk, fold)
        elif fold in self.finished and not name.startswith(_PASSING) and not self.is_repaired(fold):
            self.look_at_finished(disk, fold, f"{what} {name}")
        if name.startswith("checkpoints/resume_") and name.endswith("checkpoint.json") and what == "rename":
            self.saved[fold] = max(self.find_newest_point(disk, fold), self.saved.get(fold, NO_POINT))

    def is_repaired(self, fold: int) -> bool:
        """Whether the driver has said that a fold's files were damaged."""
        return any(f"fold {fold} has to be trained again" in line for line in self.simulation.reset_folds)

    def note_finished(self, disk: Disk, fold: int) -> None:
        """From here on its bytes stay."""
        root = f"{STORE}/{RUN}/folds/{fold}"
        listed = json.loads(disk.peek(f"{root}/manifest.json") or b"{}")["files"]
        kept: dict[str, tuple[Inode, bytes]] = {}
        for name in ("manifest.json", *listed):
            content = disk.peek(f"{root}/{name}")
            if content is None:
                self.refuse(f"(d) the manifest of fold {fold} lists {name}, which is not there")
                return
            kept[name] = (disk._peek(f"{root}/{name}"), content)
        if fold in self.finished and not self.is_repaired(fold):
            before = {name: content for name, (_, content) in self.finished[fold].items()}
            if before != {name: content for name, (_, content) in kept.items()}:
                self.refuse(f"(a) fold {fold} was finished, and was finished again with other bytes")
        self.finished[fold] = kept

    def look_at_finished(self, disk: Disk, fold: int, what: str) -> None:
        """Compares what a finished fold had."""
        for name, (_, content) in self.finished[fold].items():
            if disk.peek(f"{STORE}/{RUN}/folds/{fold}/{name}") != content:
                self.refuse(f"(a) {name} of finished fold {fold} changes: {what}")

    def see_object(self, what: str, name: str, content: bytes) -> None:
        """(a) and (c) of a run in object storage."""
        self.num_checks += 1
        self.note_driver(what, name, content)
        place = _FOLD_OBJECT.fullmatch(name)
        if place is None:
            return
        fold, kept = int(place[1]), self.finished_objects.get(int(place[1]), {})
        if name in kept and (what == "delete" or kept[name] != content) and not self.is_repaired(fold):
            self.refuse(f"(a) {name} of finished fold {fold} changes: {what}")
        if place[2] != "manifest.json" or what != "put":
            return
        self.note_writer(fold, "the manifest")
        objects, root = self.simulation.store.objects, name.removesuffix("manifest.json")
        listed = json.loads(content)["files"]
        if missing := [one for one in listed if len(objects.get(root + one, b"")) != listed[one]["bytes"]]:
            self.refuse(f"(d) the manifest of fold {fold} lists {missing}, which are not there")
        self.finished_objects[fold] = {root + one: objects[root + one] for one in listed} | {name: content}

    def see_wandb_rows(self, run: str, offset: int, rows: list[dict[str, Any]]) -> None:
        """(h) W&B gets each row in its place, and nobody but the publisher's process sends it."""
        self.num_checks += 1
        task = self.simulation.world.current
        assert task is not None
        if not task.process.name.startswith("wandb-core"):
            self.refuse(f"(h) {task.process.name} waits for W&B")
        steps = [row["_step"] for row in rows]
        if steps != list(range(offset, offset + len(rows))):
            self.refuse(f"(h) W&B run {run} gets the steps {steps} from its row {offset} on")
        if offset > len(self.simulation.wandb.runs[run]):
            self.refuse(
                f"(h) W&B run {run} gets the steps {steps}, and has {len(self.simulation.wandb.runs[run])} rows"
            )

    def note_driver(self, what: str, name: str, content: bytes) -> None:
        """(c) a driver that was taken over replaces nothing that a later one has put."""
        task = self.simulation.world.current
        assert task is not None
        if name == f"{ADDRESS}/{RUN}/{LEASE}":
            self.fences[task.process.pid] = json.loads(content)["fence"]
        fence = self.fences.get(task.process.pid)
        if fence is None:
            return
        if fence < self.put_by.get(name, 0):
            self.refuse(f"(c) driver {fence}: {what} {name}, which driver {self.put_by[name]} has put")
        if what == "put":
            self.put_by[name] = fence

    def note_writer(self, fold: int, what: str) -> None:
        """(c) nothing of a superseded attempt counts after its successor's first write."""
        task = self.simulation.world.current
        attempt = task.process.attempt if task else None
        if attempt is None or attempt[0] != fold:
            return
        if attempt[1] < self.began.get(fold, 0):
            self.refuse(f"(c) attempt {attempt[1]} of fold {fold} writes {what} after attempt {self.began[fold]} has")
        self.began[fold] = attempt[1]

    def find_newest_point(self, disk: Disk, fold: int) -> Point:
        """The newest resume point that is whole, with the checkpoints that it needs."""
        return find_newest(disk.peek, f"{STORE}/{RUN}/folds/{fold}/checkpoints")

    def find_saved(self, fold: int) -> Point:
        """The point from which a fold that is launched now has to go on."""
        if self.simulation.setting.in_bucket:
            return find_newest(self.simulation.store.objects.get, f"{ADDRESS}/{RUN}/folds/{fold}/checkpoints")
        return self.saved.get(fold, NO_POINT)

    def see_launch(self, process: Process, fold: int, attempt: int) -> None:
        """What was saved then, and by whom it is launched."""
        self.launched_by[fold, attempt] = process.parent
        self.saved_at_launch[process.pid] = self.find_saved(fold), self.simulation.world.now

    def see_start(self, fold: int, step: int, is_validated: bool) -> None:
        """(a) a finished fold is never trained again; (d) an attempt goes on from the newest point that was whole when
        it was launched; of a run in object storage unless a list was stale since, or a cleaner came. A superseded
        attempt that wakes up goes on until it is to write something, which (c) looks at."""
        task = self.simulation.world.current
        assert task is not None
        assert task.process.attempt is not None
        if task.process.attempt[1] < self.began.get(fold, 0):
            return
        if (fold in self.finished or fold in self.finished_objects) and not self.is_repaired(fold):
            self.refuse(f"(a) {task.process.name} trains fold {fold}, which is finished")
        self.training.add(task.process)
        at_launch, since = self.saved_at_launch[task.process.pid]
        wanted = min(self.find_saved(fold), at_launch)
        is_excused = self.simulation.setting.in_bucket and self.simulation.misled_at >= since
        if (step, is_validated) < wanted and not self.is_repaired(fold) and not is_excused:
            self.refuse(f"(d) fold {fold} begins at {step, is_validated}, and {wanted} was saved")

    def after_power_cut(self, disk: Disk) -> None:
        """What was not synced may be lost, the number of an attempt too; what was finished may not."""
        self.began.clear()
        for fold in range(NUM_FOLDS):
            self.saved[fold] = min(self.saved.get(fold, NO_POINT), self.find_newest_point(disk, fold))
            self.checked_lines.pop(fold, None)
            if fold in self.finished:
                self.look_at_finished(disk, fold, "the power was cut")

    # At the end.

    def check_interrupted(self, driver: Process) -> None:
        """(f) once an interrupted driver and its folds are gone nothing says that one of its attempts trains."""
        self.num_checks += 1
        place = find_place(self.simulation.setting.storage, RUN)
        for fold in range(NUM_FOLDS):
            disk = self.simulation.find_disk(driver.machine, str(place))
            status = json.loads(disk.peek(f"{place}/folds/{fold}/status.json") or b"{}")
            if status.get("state") == "training" and self.launched_by.get((fold, status["attempt"])) is driver:
                self.refuse(f"(f) fold {fold} is said to train, attempt {status['attempt']}, and {driver.name} is gone")

    def list_files(self) -> dict[str, bytes]:
        """What lies where the run lives, by its path there."""
        if self.simulation.setting.in_bucket:
            root = f"{ADDRESS}/{RUN}/"
            return {name.removeprefix(root): content for name, content in self.simulation.store.objects.items()}
        root = f"{STORE}/{RUN}"
        walk = self.simulation.shared.walk(root)
        return {path.removeprefix(f"{root}/"): bytes(inode.data) for path, inode in walk}

    def gather(self) -> Reference:
        """What the run has come to."""
        files = self.list_files()
        for fold in range(NUM_FOLDS):
            lines = files.get(f"metrics/fold_{fold}.jsonl", b"").splitlines()
            self.found.rows[fold] = [without_times(json.loads(line)) for line in lines]
        for name, content in files.items():
            # The last steps of a fold in object storage, which remove these, are tried once.
            if self.simulation.setting.in_bucket and ("/checkpoints/resume_" in name or name.startswith(_SEGMENTS)):
                continue
            # What a disk did not let a fold remove; no manifest lists it.
            manifest = files.get(f"{name.rpartition('/')[0]}/checkpoint.json")
            if name.endswith(".safetensors") and manifest and name.rpartition("/")[2].encode() not in manifest:
                place, _, own = name.partition("/checkpoints/")
                if f"checkpoints/{own}".encode() in files[f"{place}/manifest.json"]:
                    self.refuse(f"(e) the manifest of {place} lists {own}, which its checkpoint does not have")
                continue
            self.found.names.append(re.sub(r"\d{8}_\d{6}", "<time>", name))
            if name.endswith(".parquet"):
                self.found.files[name] = repr(pyarrow.parquet.read_table(io.BytesIO(content)).to_pydict()).encode()
            elif name.endswith((".safetensors", "checkpoint.json")) or name.startswith("submission"):
                self.found.files[name] = content
        return self.found

    def check_end(self) -> None:
        """(b), (d), (e) and (g) of a run that is done."""
        assert self.reference is not None
        found, wanted = self.gather(), self.reference
        for fold, rows in wanted.rows.items():
            if found.rows[fold] != rows:
                self.refuse(
                    f"(b) the record of fold {fold} has {len(found.rows[fold])} lines of {len(rows)}, or others"
                )
        for name in wanted.files.keys() | found.files.keys():
            if wanted.files.get(name) != found.files.get(name):
                self.refuse(f"(e) {name} is not that of the undisturbed run")
        more = sorted(set(found.names) - set(wanted.names) - _MAY_BE)
        if more := [name for name in more if not _STACKS.fullmatch(name) and not name.startswith(_OF_WANDB)]:
            self.refuse(f"(g) the run leaves {more}")
        less = sorted(set(wanted.names) - set(found.names))
        if less and not self.simulation.setting.in_bucket:
            self.refuse(f"(g) the run lacks {less}")
        self.check_events()

    def check_waits(self, trouble_until: float) -> None:
        """(h) a run waits for W&B no longer than it is to."""
        for began, took_s, timeout_s in self.simulation.waited:
            if began > trouble_until and took_s > timeout_s + _WANDB_END_S:
                self.refuse(f"(h) a driver has waited {took_s:.1f} s for W&B, which is to take {timeout_s} s at most")

    def count_rows(self, machine: str) -> dict[str, int]:
        """Of each record as a machine has it."""
        place = find_place(self.simulation.setting.storage, RUN)
        disk = self.simulation.find_disk(machine, str(place))
        return {key: (disk.peek(f"{place}/metrics/{key}.jsonl") or b"").count(b"\n") for key in _WANDB_RUNS.values()}

    def check_held(self, machine: str, known: dict[str, int]) -> None:
        """(h) whoever says that W&B holds all rows is right, of those that were there when it began to finish: the folds
        of a driver that was interrupted write some more."""
        self.num_checks += 1
        place = find_place(self.simulation.setting.storage, RUN)
        disk = self.simulation.find_disk(machine, str(place))
        mark = json.loads(disk.peek(f"{place}/wandb/ids.json") or b"")["mark"]
        for ending, key in _WANDB_RUNS.items():
            if known[key] > (held := len(self.simulation.wandb.runs.get(f"{mark}-{ending}", {}))):
                self.refuse(f"(h) W&B is said to hold all rows, and has {held} of {known[key]} of {key}")

    def check_wandb(self, *, is_whole: bool) -> None:
        """(h) W&B shows what the records hold."""
        if not is_whole:
            self.refuse("(h) W&B is well, and the upload does not end")
        files = self.list_files()
        mark = json.loads(files["wandb/ids.json"])["mark"]
        if others := [name for name in self.simulation.wandb.runs if not name.startswith(mark)]:
            self.refuse(f"(h) W&B has {others}, of which the run knows nothing")
        for ending, key in _WANDB_RUNS.items():
            rows = [json.loads(line) for line in files.get(f"metrics/{key}.jsonl", b"").splitlines()]
            held = [row for _, row in sorted(self.simulation.wandb.runs.get(f"{mark}-{ending}", {}).items())]
            if [_as_at_wandb(row) for row in rows] != [without_times(row) for row in held]:
                self.refuse(f"(h) W&B has {len(held)} rows of {key}, of {len(rows)} in the record, or others")

    def check_events(self) -> None:
        """(b) each event of an attempt once; each row of the ensemble's record in its place."""
        files = self.list_files()
        events = [json.loads(line) for line in files.get("events.jsonl", b"").splitlines()]
        counts = Counter((one["event"], one["fold"], one["attempt"]) for one in events if "attempt" in one)
        if double := [key for key, number in counts.items() if number > 1]:
            self.refuse(f"(b) events.jsonl has {double} more than once")
        rows = [json.loads(line) for line in files.get("metrics/ensemble.jsonl", b"").splitlines()]
        if [row["step"] for row in rows] != list(range(len(rows))):
            self.refuse(f"(b) ensemble.jsonl has steps {[row['step'] for row in rows]}")
        for fold in range(NUM_FOLDS):
            if not any(f"ensemble/fold_{fold}_completed" in row for row in rows):
                self.refuse(f"(b) ensemble.jsonl does not say that fold {fold} is completed")


def find_newest(read: Callable[[str], bytes | None], checkpoints: str) -> Point:
    """The newest resume point that is whole, with the checkpoints that it needs."""
    points = [NO_POINT]
    for place in ("resume_0", "resume_1"):
        try:
            point = json.loads(read(f"{checkpoints}/{place}/checkpoint.json") or b"")
        except ValueError:
            continue
        description = point["description"]
        needed = {place: point} | description["checkpoints"]
        if all(read(f"{checkpoints}/{name}/{one['tensors']}") is not None for name, one in needed.items()):
            points.append((description["global_step"], description["facts"]["is_validated"]))
    return max(points)


def _as_at_wandb(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a record as W&B shows it, without times."""
    shown = {name: "NaN" if value is None else value for name, value in row.items() if name not in ("step", "time")}
    return without_times({"_step": row["step"]} | shown)


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    """What of a row has to be the same."""
    return {name: value for name, value in row.items() if not name.endswith(TIMINGS)}


_STACKS = re.compile(r"log/fold_\d+/stacks_attempt\d+_rank0\.txt")  # of an attempt in which nothing moved
_SEGMENTS = "metrics/segments/"
# What the name of a W&B run ends with, and its record.
_WANDB_RUNS = {f"fold{fold}": f"fold_{fold}" for fold in range(NUM_FOLDS)}
_WANDB_RUNS |= {"ensemble": "ensemble", "submission": "submission"}
_OF_WANDB = ("wandb/", "log/wandb.log")
_MAY_BE = {"stop_request.json", "driver.lock", "launched.json", "driver.json"}
