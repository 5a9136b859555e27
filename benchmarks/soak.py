"""Is anything lost when everything is killed, or taken away?

    python benchmarks/soak.py [--kills 30] [--seed 0] [--bucket] [--pause 15] [--kinds worker,driver,…] [field=value …]
    python benchmarks/soak.py -- --config-name=unet_segmentation_small [field=value ...]

K-fold runs of a small recipe, with W&B online against a local stand-in server, in a folder or in a bucket. The first
run is left alone. The others are hit at random moments, in every way of `KINDS`: a process dies or stands still; W&B
or the bucket is away, or the disk full, for some seconds (a small one of its own, where this user may mount it); a
second driver starts. Who has ended is started again by the same command at once, now on a Ray cluster of its own, now
on one that it joins. Each run that ends is compared with the one that was left alone: bits of the submission, the
out-of-fold predictions and the checkpoints; rows of the metric records here and in W&B (where it was away, or its
publisher was killed, after `wandb_sync.py`); processes and placement groups that stay behind. Ends with 1 if anything
differs."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

import pyarrow.parquet as pq
from soak_surroundings import Surroundings
from support.processes import clean_environment, find_processes, free_port, kill, start_node
from support.run_bits import TIMINGS

from ray_jobs.errors import EXIT_REFUSED
from ray_jobs.runs.files import read_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import read_lines
from ray_jobs.tracking.wandb_runs import list_wandb_runs

LONGEST_LOSS_S = 20.0  # until something is there again, or goes on
HANGS_AFTER_S = 120.0
MOST_RUNS = 3  # a kill: some end before anything of the kind was there
STAYS_AFTER_S = 15.0
# What two runs that train the same have the same: submissions, predictions, checkpoints.
SAME = (
    "submission_*.csv",
    "*.parquet",
    "ensemble/*.parquet",
    "**/folds/*/checkpoints/*/*.safetensors",
    "**/folds/*/predictions/**/*",
)
# Processes by a pattern of their title; these are killed while the driver lives. A run that has ended must not leave
# any of them in a cluster that lives on.
PROCESSES = {
    "worker": r"ray::(.*fold \d+ \(attempt|RayTrainWorker)",
    "coordinator": "ray::Coordinator",
    "ensemble task": "ray::ensemble",
    "publisher": r"\S*python\S* \S*ray_jobs/tracking/publisher\.py ",
}
PASSING = re.compile("|".join(PROCESSES.values()) + "|.*wandb")
SIGNALS = {"driver": signal.SIGKILL, "interrupt": signal.SIGINT, "terminate": signal.SIGTERM}
OF_RAY = {"raylet": r"\S*/raylet/raylet ", "GCS": r"\S*/gcs/gcs_server ", "cluster": ""}  # the last is all of it
STANDS_STILL, SECOND = "worker stands still", "second driver"
KINDS = (*PROCESSES, *SIGNALS, *OF_RAY, "driver and a file", STANDS_STILL, SECOND)


@dataclass
class Tally:
    """What was found wrong."""

    differing_bits: list[str] = field(default_factory=list)
    wrong_rows: list[str] = field(default_factory=list)
    lost_work: list[str] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{len(self.differing_bits)} files with differing bits, {len(self.wrong_rows)} records with lost or "
            f"doubled rows, {len(self.lost_work)} attempts that lost work, {len(self.left_behind)} processes or "
            f"placement groups left behind, {len(self.other)} other failures"
        )

    def list_all(self) -> list[str]:
        return [*self.differing_bits, *self.wrong_rows, *self.lost_work, *self.left_behind, *self.other]


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--kills", type=int, default=30)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--bucket", action="store_true", help="the runs live in object storage")
    arguments.add_argument(
        "--pause", type=float, default=15.0, help="the most seconds from a start or a hit to the next"
    )
    arguments.add_argument("--kinds", help=f"which kinds, in turn (default: {', '.join(KINDS)}, and what may be away)")
    arguments.add_argument("words", nargs="*", help="fields of the runs")
    given = arguments.parse_args()
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background ignores it, and drivers would inherit that
    # Short: the path of a socket of Ray's below it may not be longer than 107 characters.
    root = Path(tempfile.mkdtemp(prefix="soak_", dir="/tmp"))
    surroundings = Surroundings(root, in_bucket=given.bucket)
    soak = Soak(root, surroundings, given.words, random.Random(given.seed), given.pause)
    try:
        kinds = [*KINDS, *surroundings.list_losses()]
        if given.bucket:
            kinds.remove("ensemble task")  # there is none: the driver combines
        soak.run(given.kills, given.kinds.split(",") if given.kinds else kinds)
    finally:
        soak.end()
        surroundings.end()
    for problem in soak.tally.list_all():
        print(problem)
    print(f"{soak.num_kills} of {given.kills} kills, seed {given.seed}: {soak.tally}")
    if soak.tally.list_all():
        print(f"kept: {root}")
        return 1
    shutil.rmtree(root)
    return 0


class Soak:
    """Runs that are killed.

    Args:
        root: everything goes below it, Ray's files, too.
        surroundings: W&B and where the runs live.
        words: fields of the runs.
        chance: decides what is hit and when.
        longest_pause_s: from a start, or a hit, to the next hit.
    """

    def __init__(
        self, root: Path, surroundings: Surroundings, words: list[str], chance: random.Random, longest_pause_s: float
    ) -> None:
        self.longest_pause_s = longest_pause_s
        self.root, self.surroundings, self.words, self.chance = root, surroundings, words, chance
        self.tally, self.began = Tally(), time.monotonic()
        self.cluster = Cluster(root)
        self.joins = False
        self.num_kills, self.lacks_rows = 0, False
        self.damaged: set[bytes] = set()  # what describes points from which no fold can go on
        self.driver: subprocess.Popen[bytes] | None = None
        self.starts_over = False  # a finished fold of this run was damaged, and rightly starts and completes again
        self.saved: list[
            tuple[float, RunFolder, int, int]
        ] = []  # when a kill found a fold with a resume point of which step

    def run(self, num_kills: int, kinds: list[str]) -> None:
        """The run that is left alone, then as many others as it takes for all kills."""
        alone = self.surroundings.find("alone")
        self.start(alone)
        self.await_end(HANGS_AFTER_S * 5)
        self.surroundings.bring(alone)
        kinds = [kinds[number % len(kinds)] for number in range(num_kills)]
        self.chance.shuffle(kinds)
        for number in range(MOST_RUNS * num_kills):
            if not kinds:
                break
            run = self.surroundings.find(f"run_{number}")
            self.hit_until_complete(run, kinds)
            self.surroundings.bring(run)
            if self.compare(run, alone):
                shutil.rmtree(run.root)  # a run takes some hundred megabytes

    def hit_until_complete(self, run: RunFolder, kinds: list[str]) -> None:
        """One run, with the next kills of the list for as long as it takes to complete."""
        deadline = time.monotonic() + 60 * (10 + len(kinds))
        self.start(run)
        while time.monotonic() < deadline:
            pause_s = self.chance.uniform(0, self.longest_pause_s)
            if kinds and self.wait_for_moment(kinds[0], time.monotonic() + pause_s):
                self.hit(kinds.pop(0), run)
                self.num_kills += 1
            elif kinds:
                kinds.append(kinds.pop(0))  # no such process was met; another kind goes first
            elif not kinds:
                self.await_end(HANGS_AFTER_S * 5)
            if self.driver.poll() is None:
                continue
            if self.driver.returncode == 0 and run.summary.exists():
                return
            self.start(run)
        self.tally.other.append(f"{run.root.name} does not come to an end")

    def start(self, run: RunFolder) -> None:
        """Starts the driver, on a cluster of its own or not, as chance wills."""
        self.joins = self.chance.random() < 0.5
        if self.joins:
            self.cluster.start()
        self.driver = self.start_driver(run)
        self.say(f"{run.root.name} started, {'joins a cluster' if self.joins else 'its own cluster'}")

    def start_driver(self, run: RunFolder) -> subprocess.Popen[bytes]:
        """Types the command."""
        fields = [f"run.name={run.root.name}", f"run.storage={self.surroundings.storage}", "run.dashboard=false"]
        return self.start_command("kfold.py", *fields, *self.words)

    def start_command(self, *words: str) -> subprocess.Popen[bytes]:
        """Starts a command in the surroundings of the runs."""
        environment = {"HOME": str(self.root), "RAY_TMPDIR": str(self.root)} | self.surroundings.environment
        environment |= self.cluster.environment if self.joins else {}
        command = [sys.executable, f"ray_jobs/{words[0]}", *words[1:]]
        with (self.root / "driver.log").open("ab") as log:
            environment = clean_environment(**environment)
            return subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)

    def wait_for_moment(self, kind: str, moment: float) -> bool:
        """Whether there was something of that kind to hit from the moment on, before the driver ended."""
        needed = "worker" if kind == STANDS_STILL else kind
        while self.driver.poll() is None:
            if time.monotonic() >= moment and (needed not in PROCESSES | OF_RAY or self.find(needed)):
                return True
            time.sleep(0.05)
        return False

    def hit(self, kind: str, run: RunFolder) -> None:
        """Does one thing to the run."""
        for own in list_folders(run):
            for path in own.root.glob("folds/*/checkpoints/resume_*/checkpoint.json"):
                if path.read_bytes() in self.damaged or self.surroundings.in_bucket:
                    continue  # what is only here may rightly be lost
                step = read_json(path, default={"description": {"global_step": 0}})["description"]["global_step"]
                self.saved.append((time.time(), own, int(path.parts[-4]), step))
        if kind in PROCESSES:
            self.lacks_rows |= kind == "publisher"  # after four deaths of it the run goes on without W&B, and says so
            victim = self.chance.choice(self.find(kind) or [0])
            self.say(f"SIGKILL: {kind} {victim}")
            kill([victim])
            return
        if kind in self.surroundings.list_losses():
            self.lacks_rows |= kind == "W&B away"
            seconds = self.chance.uniform(1.0, LONGEST_LOSS_S)
            self.say(f"{kind} for {seconds:.1f} s")
            with self.surroundings.losing(kind):
                time.sleep(seconds)
            return
        if kind == STANDS_STILL:
            self.stop_worker()
            return
        if kind == SECOND:
            self.start_second(run)
            return
        if kind in OF_RAY:
            self.say(f"SIGKILL: {kind}")
            kill(self.find(kind))
            self.await_end(HANGS_AFTER_S)
            self.cluster.end()
            return
        what = SIGNALS.get(kind, signal.SIGKILL)
        self.say(f"{what.name}: {kind}")
        self.driver.send_signal(what)
        self.await_end(HANGS_AFTER_S)
        if kind == "driver and a file":
            self.damage(run)

    def stop_worker(self) -> None:
        """A process that trains stands still for a while."""
        found, seconds = self.find("worker"), self.chance.uniform(1.0, LONGEST_LOSS_S)
        if not found:  # it has just ended
            return
        victim = self.chance.choice(found)
        self.say(f"SIGSTOP: worker {victim} for {seconds:.1f} s")
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGSTOP)
            time.sleep(seconds)
            os.kill(victim, signal.SIGCONT)

    def start_second(self, run: RunFolder) -> None:
        """Somebody types the command while it runs: refused, with the first driver left as it is; done, where that one
        has just ended."""
        self.say("a second driver")
        second = self.start_driver(run)
        try:
            code = second.wait(HANGS_AFTER_S)
        except subprocess.TimeoutExpired:
            second.kill()
            code = second.wait()
        if code != EXIT_REFUSED and self.driver.poll() is None:
            self.tally.other.append(f"{run.root.name}: a second driver ended with {code}")
        self.say(f"the second driver ended with {code}")

    def await_end(self, timeout_s: float) -> None:
        """Waits for the driver's end; a driver that hangs is a failure."""
        try:
            code = self.driver.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.tally.other.append(f"the driver hung for {timeout_s:.0f} s")
            self.driver.kill()
            code = self.driver.wait()
        self.say(f"driver ended with {code}")

    def damage(self, run: RunFolder) -> None:
        """Flips a byte of a file, or cuts it, as a machine that loses power may leave it."""
        folds = self.chance.choice(list_folders(run)).root / "folds"
        kinds = (
            "*/checkpoints/resume_*/*",
            "*/checkpoints/best/*",
            "*/checkpoints/final/*",
            "*/status.json",
            "*/predictions/*",
        )
        of_kinds = [sorted(folds.glob(kind)) for kind in kinds]
        of_kinds.append(sorted(path for path in run.train_scratch.rglob("*") if path.is_file()))
        of_kinds = [files for files in of_kinds if files]
        if not of_kinds:
            return
        path = self.chance.choice(self.chance.choice(of_kinds))
        if not path.stat().st_size:
            return
        if (point := path.with_name("checkpoint.json")).is_file():
            self.damaged.add(point.read_bytes())
        content = bytearray(path.read_bytes())
        place = self.chance.randrange(len(content))
        if self.chance.random() < 0.5:
            content[place] ^= 0xFF
        else:
            del content[place:]
        path.write_bytes(content)
        self.starts_over |= any((parent / "manifest.json").exists() for parent in path.parents)
        self.saved.clear()  # the fold may have to go back
        self.say(f"damaged: {path.relative_to(run.root)} at {place}")

    def compare(self, run: RunFolder, alone: RunFolder) -> bool:
        """Counts what differs between a run and the one that was left alone, and what stays behind of it; whether that
        is nothing."""
        name, known = run.root.name, len(self.tally.list_all())
        for what, read in (("bits", read_bits), ("rows", read_rows)):
            found, expected = read(run), read(alone)
            if self.starts_over and what == "rows":
                found |= {key: sorted(set(rows)) for key, rows in found.items() if key.endswith("ensemble.jsonl")}
            differing = [f"{name}: {key}" for key in sorted(expected) if found.get(key) != expected[key]]
            (self.tally.differing_bits if what == "bits" else self.tally.wrong_rows).extend(differing)
        self.starts_over = False
        self.tally.lost_work += self.find_lost_work(run)
        if self.lacks_rows:
            self.upload(run)
        config = run.read_config()
        for wandb_run in list_wandb_runs(run, config):
            stored = self.surroundings.server.runs.get(wandb_run.id)
            steps = [row["step"] for row in read_lines(wandb_run.record)]
            if stored is None or stored.steps() != steps:
                self.tally.wrong_rows.append(f"{name}: {wandb_run.name} in W&B")
        self.tally.other += [f"{name}: {path} stayed" for path in run.root.rglob(".*.tmp")]
        self.find_left_behind(name)
        self.say(f"{name} is complete: {self.tally}")
        return len(self.tally.list_all()) == known

    def upload(self, run: RunFolder) -> None:
        """Sends W&B what it has missed."""
        self.lacks_rows = False
        where = f"{self.surroundings.storage}/{run.root.name}"
        if code := self.start_command("wandb_sync.py", where).wait():
            self.tally.other.append(f"{run.root.name}: wandb_sync.py ended with {code}")

    def find_lost_work(self, run: RunFolder) -> list[str]:
        """Attempts that began before a point which an earlier one had saved."""
        lost = []
        for at, own, fold, step in self.saved:
            starts = [row for row in read_lines(own.events) if row["event"] == "FoldStarted"]
            begun = [row["step"] for row in starts if row["fold"] == fold and row["time"] > at]
            if begun and begun[0] < step:
                lost.append(
                    f"{run.root.name}: {own.describe_fold(fold)} began at step {begun[0]}, step {step} was saved"
                )
        self.saved.clear()
        return lost

    def find_left_behind(self, name: str) -> None:
        """Processes of a run that has ended, placement groups of a cluster that lives on."""
        deadline = time.monotonic() + STAYS_AFTER_S
        while (stay := self.find_passing()) and time.monotonic() < deadline:
            time.sleep(0.5)
        self.tally.left_behind += [f"{name}: process {process} {title}" for process, title in stay.items()]
        if self.cluster.is_alive():
            self.tally.left_behind += [f"{name}: placement group {group}" for group in self.cluster.list_groups()]

    def find(self, kind: str) -> list[int]:
        """Processes of a kind; of Ray's own those of the cluster that the run is on, or of all clusters."""
        pattern, found = (PROCESSES | OF_RAY)[kind], find_processes(self.root)
        if kind in OF_RAY:
            found = {process: title for process, title in found.items() if is_ray(title)}
        if kind in ("raylet", "GCS"):
            joined = f"{self.root}/joined"
            found = {process: title for process, title in found.items() if (joined in title) == self.joins}
        return sorted(process for process, title in found.items() if re.match(pattern, title))

    def find_passing(self) -> dict[int, str]:
        """Processes that belong to a run; without a cluster that lives on, to anything."""
        found = find_processes(self.root)
        if not self.cluster.is_alive():
            return found
        return {process: title for process, title in found.items() if PASSING.match(title)}

    def end(self) -> None:
        """Ends everything; nothing may live on."""
        if self.driver.poll() is None:
            self.driver.kill()
            self.driver.wait()
        self.cluster.end()
        self.find_left_behind("at the end")
        kill(list(find_processes(self.root)))

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", flush=True)


class Cluster:
    """A Ray cluster that drivers join.

    Args:
        root: its files go below it.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.head = root, None
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}

    def start(self) -> None:
        """Starts it, if it does not run."""
        if self.is_alive():
            return
        port = free_port()
        self.environment["RAY_ADDRESS"] = f"127.0.0.1:{port}"
        words = ("--head", f"--port={port}", f"--temp-dir={self.root}/joined", "--include-dashboard=false")
        environment = clean_environment(HOME=str(self.root)) | self.environment
        self.head = start_node(self.root / "cluster.log", environment, *words)

    def is_alive(self) -> bool:
        """Whether it runs."""
        return self.head is not None and self.head.poll() is None

    def end(self) -> None:
        """Ends it."""
        if self.head is not None:
            self.head.terminate()
            try:
                self.head.wait(30)
            except subprocess.TimeoutExpired:
                self.head.kill()
                self.head.wait()

    def list_groups(self) -> list[str]:
        """Placement groups that still hold resources."""
        code = (
            "import json, logging, ray; from ray.util import placement_group_table\n"
            "ray.init(address='auto', logging_level=logging.ERROR)\n"
            "print('GROUPS', json.dumps([g['name'] or g['placement_group_id'] for g in "
            "placement_group_table().values()\n"
            "                            if g['state'] != 'REMOVED']))"
        )
        environment = clean_environment(HOME=str(self.root), RAY_TMPDIR=str(self.root)) | self.environment
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        return json.loads(done.stdout.partition("GROUPS ")[2])


def is_ray(title: str) -> bool:
    """Whether a process is Ray's, and not the driver, the publisher or W&B's client."""
    return not any(word in title for word in ("ray_jobs", "wandb"))


def list_folders(run: RunFolder) -> list[RunFolder]:
    """The folders of the run's members that are there."""
    return [run, *(RunFolder(path) for path in sorted(run.root.glob("members/*")))]


def read_bits(run: RunFolder) -> dict[str, Any]:
    """What has to have the same bits: {file: checksum or values}."""
    found: dict[str, Any] = {}
    for path in sorted(path for pattern in SAME for path in run.root.glob(pattern) if path.is_file()):
        is_table = path.suffix == ".parquet"
        content = pq.read_table(path).to_pydict() if is_table else hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(run.root))] = content
    return json.loads(json.dumps(found, default=str))  # NaN, the target of test rows, as something that equals itself


def read_rows(run: RunFolder) -> dict[str, list[str]]:
    """The rows of each record without times. Of what several folds say in turn the order is left to chance, and the
    pictures are drawn from times."""
    found = {}
    for path in sorted(run.root.glob("**/metrics/*.jsonl")):
        rows = [
            {name: value for name, value in row.items() if not name.endswith(TIMINGS)}
            for row in read_lines(path)
            if not any(name.startswith("ensemble/figures/") for name in row)
        ]
        is_of_fold = path.name.startswith("fold_")
        if not is_of_fold:
            rows = [{name: v for name, v in row.items() if name not in ("step", "global_step")} for row in rows]
        lines = [json.dumps(row).replace(str(run.root), "") for row in rows]
        found[str(path.relative_to(run.root))] = lines if is_of_fold else sorted(lines)
    return found


if __name__ == "__main__":
    sys.exit(main())
