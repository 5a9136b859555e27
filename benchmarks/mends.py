"""Which mends of the past the simulation finds missing: each is taken back in a copy of the code, and seeds are run
until one fails.

    python benchmarks/mends.py [--seeds 200] [--only "torn"]

A mend whose code has changed since is refused: then its replacement below is written anew.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pandas  # noqa: F401
import pyarrow.parquet  # noqa: F401
import torch  # noqa: F401

REPOSITORY = Path(__file__).resolve().parents[1]
NEEDED = ("ray_jobs", "trainers", "ensemble", "tests/simulation")


@dataclass(frozen=True)
class Mend:
    """A mend: what it does, in a file the code with and without it, and whether it concerns runs in object storage, or
    at W&B, only."""

    what: str
    path: str
    code: str
    without: str
    in_bucket: bool = False
    at_wandb: bool = False


MENDS = (
    Mend(
        "storage: what a full disk took of a line is cut off again",
        "ray_jobs/runs/files.py",
        "        os.ftruncate(file, os.fstat(file).st_size - written)\n",
        "",
    ),
    Mend(
        "storage: a file that appears whole is synced before its name is given to it",
        "trainers/storage/whole_files.py",
        "            os.fsync(file.fileno())\n",
        "",
    ),
    Mend(
        "storage: whether a fold has ended well is asked again while the storage is away",
        "ray_jobs/driver/launcher.py",
        'self.storage.retry_while_unavailable(f"looking how {fold} has ended", find)',
        "find()",
    ),
    Mend(
        "storage: a manifest lists no file that is just being written",
        "ray_jobs/runs/folder.py",
        'self.root.rglob("[!.]*")',
        'self.root.rglob("*")',
    ),
    Mend(
        "torn record: a last line that is torn does not count",
        "ray_jobs/runs/record.py",
        'content[: content.rfind(b"\\n") + 1].splitlines(keepends=True)',
        "content.splitlines(keepends=True)",
    ),
    Mend(
        "record: an attempt puts a new file under the name, so that a survivor writes into none",
        "ray_jobs/runs/record.py",
        'write_whole(path, b"".join(lines[: self.num_lines]))',
        'kept = b"".join(lines[: self.num_lines])\n'
        "        write_whole(path, kept) if not path.exists() else None\n"
        "        file = os.open(path, os.O_WRONLY)\n"
        "        os.ftruncate(file, len(kept))\n"
        "        os.close(file)",
    ),
    Mend(
        "fencing: an attempt looks for a later one before each write",
        "ray_jobs/worker/context.py",
        "            self._refuse_if_superseded()\n",
        "",
    ),
    Mend(
        "fencing: a late word of an earlier attempt is not heard",
        "ray_jobs/driver/coordinator.py",
        "return event.attempt < known",
        "return False",
    ),
    Mend(
        "coordinator: an event that Ray repeats is written once",
        "ray_jobs/driver/coordinator.py",
        "            if key in self.noted:\n                return\n",
        "",
    ),
    Mend(
        "coordinator: a fold that was completed while nobody heard it is said to be by the next driver",
        "ray_jobs/driver/coordinator.py",
        "            if self.folder.fold(fold).is_complete():\n",
        "            if False:\n",
    ),
    Mend(
        "launcher: a fold whose process dies after its manifest is completed",
        "ray_jobs/driver/launcher.py",
        "                if fold.folder.fold(fold.fold).is_complete():  # it has died after its last word\n",
        "                if False:\n",
    ),
    Mend(
        "driver: a run whose fold is not trained does not end with exit code 0",
        "ray_jobs/driver/kfold.py",
        'if summary.outcome == "partial" and (untrained := list_untrained(todo)):',
        "if untrained := []:",
    ),
    Mend(
        "driver: a run has no summary while its folds are combined again",
        "ray_jobs/results/stage.py",
        "    folder.summary.unlink(missing_ok=True)",
        "    _ = None",
    ),
    Mend(
        "lease: a driver that was silent does not take its lease back",
        "ray_jobs/runs/remote/lease.py",
        "                self.other = found\n\n    def _put",
        "                self.version = version\n\n    def _put",
        in_bucket=True,
    ),
    Mend(
        "lease: a driver that has lost it puts nothing more",
        "ray_jobs/runs/remote/mirror.py",
        "                self.refuse_if_lost()\n",
        "",
        in_bucket=True,
    ),
    Mend(
        "lease: what makes files count is put on a condition",
        "ray_jobs/runs/remote/mirror.py",
        "        if not counts(name) and self._is_large(content):\n",
        "        if True:\n",
        in_bucket=True,
    ),
    Mend(
        "mirror: files that are brought while the run is put do not end the thread that puts it",
        "ray_jobs/runs/remote/mirror.py",
        "one for one in list(self.pushed) if find_file(one)",
        "one for one in self.pushed if find_file(one)",
        in_bucket=True,
    ),
    Mend(
        "mirror: what a cleaner takes from a fold in training is brought back, and not removed from the storage",
        "ray_jobs/runs/remote/fold_mirror.py",
        "            self.bring_back()\n"
        "            self._push(self._list_files, filter(self._is_replaced, self._list_gone()))\n",
        "            self._push(self._list_files, self._list_gone())\n",
        in_bucket=True,
    ),
    Mend(
        "mirror: a manifest lists all that the fold has saved, also what a cleaner has just taken",
        "ray_jobs/runs/folder.py",
        "        for path in needed:\n            if str",
        "        for path in ():\n            if str",
        in_bucket=True,
    ),
    Mend(
        "resume: of two points of one step the one after the validation counts",
        "ray_jobs/worker/resume.py",
        'order = ("global_step", "epoch", "record_lines")',
        'order = ("global_step",)',
    ),
    Mend(
        "resume: parts of a checkpoint that the last point needs are kept when the checkpoint is replaced",
        "ray_jobs/runs/checkpoints.py",
        "remove_old_tensors(folder, find_needed(folder).union(keep))",
        'remove_old_tensors(folder, name_parts(read_json(folder / "checkpoint.json", default=None)))',
    ),
    Mend(
        "resume: a fold that begins anew keeps nothing of what was there",
        "ray_jobs/runs/folder.py",
        "        if not keep_checkpoints:\n            _remove_folder",
        "        if False:\n            _remove_folder",
    ),
    Mend(
        "watch: a fold's process that is frozen is killed from outside",
        "ray_jobs/driver/launcher.py",
        "            self.frozen.look(ended)\n",
        "",
    ),
    Mend(
        "W&B: the server is asked whether it holds what it was sent",
        "ray_jobs/tracking/publisher.py",
        "held = {stream.spec.key: stream.count_held() for stream in self.streams}\n        note",
        "held = {stream.spec.key: stream.next_step for stream in self.streams}\n        note",
        at_wandb=True,
    ),
    Mend(
        "W&B: a publisher that has failed is followed by another one",
        "ray_jobs/tracking/wandb_sink.py",
        "is_in_vain = self._has_not_arrived() if ended == PublisherExit.INCOMPLETE else self._is_in_vain()",
        "is_in_vain = True",
        at_wandb=True,
    ),
    Mend(
        "W&B: of a run in object storage it gets the rows that have been put",
        "ray_jobs/tracking/wandb_stream.py",
        "end=count_put(self.folder, self.spec.record)",
        "",
        in_bucket=True,
        at_wandb=True,
    ),
    Mend(
        "W&B: the ids of its runs are in object storage before a row is sent",
        "ray_jobs/tracking/wandb_sink.py",
        "        self._put_records()  # and the ids: a driver on another machine would choose others\n",
        "",
        in_bucket=True,
        at_wandb=True,
    ),
    Mend(
        "fencing: an attempt looks for a later one just before a file gets its name",
        "trainers/storage/whole_files.py",
        "            confirm()\n",
        "            pass\n",
    ),
    Mend(
        "fencing: an attempt removes what an earlier one was about to put in place",
        "trainers/storage/whole_files.py",
        "        left.unlink(missing_ok=True)\n",
        "        pass\n",
    ),
)  # fmt: skip


def main() -> None:
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of names have another order otherwise, and seeds other histories
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"PYTHONHASHSEED": "0"})
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seeds", type=int, default=200, help="for each mend, at most")
    arguments.add_argument("--only", default="", metavar="TEXT", help="mends whose name has it")
    given = arguments.parse_args()
    for mend in MENDS:
        if given.only in mend.what:
            with tempfile.TemporaryDirectory() as scratch:
                take_back(mend, Path(scratch))
                # In a process of its own, which need not load again what takes seconds.
                child = multiprocessing.get_context("fork").Process(
                    target=run_until_failed, args=(mend, Path(scratch), given.seeds)
                )
                child.start()
                child.join()


def take_back(mend: Mend, copy: Path) -> None:
    """Copies the code, without a mend."""
    for name in NEEDED:
        shutil.copytree(REPOSITORY / name, copy / name, symlinks=True)
    code = (copy / mend.path).read_text()
    if code.count(mend.code) != 1:
        raise SystemExit(
            f"{mend.path} has {code.count(mend.code)} times: {mend.code!r}; expected it once. Write anew how this mend "
            f"is taken back: {mend.what}"
        )
    (copy / mend.path).write_text(code.replace(mend.code, mend.without))


def run_until_failed(mend: Mend, copy: Path, most: int) -> None:
    """Runs seeds until one fails; says after how many, or how many did not."""
    sys.path[:0] = [str(copy), str(copy / "tests")]
    from simulation.simulate import choose_setting, run_seeds

    settings = ((seed, choose_setting(seed)) for seed in itertools.count())
    fitting = (
        seed
        for seed, setting in settings
        if (setting.in_bucket or not mend.in_bucket) and (setting.wandb != "disabled" or not mend.at_wandb)
    )
    chosen, began = list(itertools.islice(fitting, most)), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        outcomes = run_seeds(chosen, until_failed=True)
    num_steps, last = sum(one.steps for one in outcomes), outcomes[-1]
    found = f"seed {last.seed}: {last.failure}" if last.failure else "NOT FOUND"
    took_s = time.process_time() - began
    print(f"{mend.what}: {len(outcomes)} seeds, {num_steps} steps, {took_s:.0f} s of CPU; {found}", flush=True)


if __name__ == "__main__":
    main()
