"""The paths of a run and of its folds, and the lock of its driver.

A run is a folder `<run.storage>/<run.name>/`; disk is the truth that continuing reads. A fold counts once its manifest,
which holds checksums, is there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from ray_jobs.config.run import MAIN, RunConfig, from_dict, to_dict
from ray_jobs.errors import LostFileError, RunBusyError, RunError, RunFolderError, StorageError
from ray_jobs.runs.checkpoints import RESUME_POINTS, list_old_parts, name_parts, remove_old_tensors
from ray_jobs.runs.file_table import MEMBERS, TRIALS, RunFiles
from ray_jobs.runs.files import read_json, write_json
from trainers.storage.whole_files import remove_unfinished, sha256_file

_LOCK_PAUSES_S = (0.02, 0.05, 0.1, 0.2)  # between tries to take the lock
_ABANDONED_AFTER_S = 86_400.0  # a file of the cache that nobody has put in place; other runs may be at work


class RunFolder(RunFiles):
    """Paths of one run, or of one of its further members: a folder of the same kind at `members/<name>` of the run's. A
    trial of a tuning is a run at `trials/<name>` of the tuning's folder, which is itself shaped like one. The files:
    `file_table.py`.

    Attributes:
        member: the member's name; `main` for the run's own folder.
        run_root: the run's own folder.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        is_member = self.root.parent.name == MEMBERS
        self.member, self.run_root = (self.root.name, self.root.parents[1]) if is_member else (MAIN, self.root)
        self._has_known_folds: bool | None = None

    @property
    def metrics(self) -> Path:
        """Folder of the metric record."""
        return self.root / "metrics"

    @property
    def evaluation_records(self) -> Path:
        """Folder of the metric records of evaluations."""
        return self.metrics / "evaluation"

    @property
    def log(self) -> Path:
        """Folder of the logs."""
        return self.root / "log"

    @property
    def trials(self) -> Path:
        """Folder of a tuning's trials."""
        return self.root / TRIALS

    @property
    def inputs(self) -> Path:
        """What the folds read; of all trials of a tuning. Members of another family than the run have a folder in it
        for each way in which they read the data: no family knows the names that others give their files."""
        inputs = self._shared_root / "inputs"
        if self.member == MAIN:
            return inputs
        own, of_run = (read_json(one.config, default={}) for one in (self, RunFolder(self.run_root)))
        if own.get("family") == of_run.get("family"):
            return inputs
        read = hashlib.sha256(json.dumps(own.get("data"), sort_keys=True).encode()).hexdigest()
        return inputs / f"{own.get('family')}-{read[:12]}"

    @property
    def cache(self) -> Path:
        """What all runs of this storage share."""
        return self._shared_root.parent / ".kfold_cache"

    @property
    def _shared_root(self) -> Path:
        """The run's own folder, or that of the tuning of which it is a trial."""
        above = RunFolder(self.run_root.parents[1]) if self.run_root.parent.name == TRIALS else None
        return above.root if above is not None and above.is_tuning() else self.run_root

    @property
    def fold_plan(self) -> Path:
        """The fold plan that counts here: the run's, or that of a member that has one of its own."""
        return self.own_fold_plan if self.own_fold_plan.exists() else RunFolder(self.run_root).own_fold_plan

    def read_config(self) -> RunConfig:
        """The run's config.

        Raises:
            RunFolderError: the file is missing or damaged, or was written by another version of this project.
        """
        values = read_json(self.config)
        try:
            return from_dict(values)
        except (ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
            raise RunFolderError(
                f"{self.config} is damaged, or of another version of this project: {error!s:.500}"
            ) from None

    def write_config(self, config: RunConfig) -> None:
        """Replaces the run's config."""
        write_json(self.config, to_dict(config), checksum=True)

    def of_trial(self, name: str) -> RunFolder:
        """The folder of a trial of this tuning."""
        return RunFolder(self.trials / name)

    def list_trials(self) -> list[RunFolder]:
        """The folders of this tuning's trials that have a metric record."""
        return [self.of_trial(path.parents[1].name) for path in sorted(self.trials.glob("*/metrics/trial.jsonl"))]

    def is_tuning(self) -> bool:
        """Whether this is a tuning's folder, and no run's."""
        return self.tune.exists()

    def of_member(self, name: str) -> RunFolder:
        """The folder of a member of this run."""
        return self if name == MAIN else RunFolder(self.root / MEMBERS / name)

    def describe_fold(self, number: int) -> str:
        """`fold 0`; of a further member `wide fold 0`."""
        return f"fold {number}" if self.member == MAIN else f"{self.member} fold {number}"

    def fold(self, number: int) -> FoldFolder:
        """Paths of one fold."""
        return FoldFolder(self.root / "folds" / str(number), number)

    def fold_record(self, number: int) -> Path:
        """A fold's metric record."""
        return self.metrics / f"fold_{number}.jsonl"

    def fold_csv(self, number: int) -> Path:
        """Folder of a fold's CSV files; of a run without folds that of all its metrics."""
        return self.metrics / f"fold_{number}" if self._has_folds() else self.metrics

    def fold_logs(self, number: int) -> Path:
        """Folder of a fold's logs, `training_<start>.log`; of further ranks `rank<r>_<start>.log`; of a run without
        folds that of all its logs."""
        return self.log / f"fold_{number}" if self._has_folds() else self.log

    def _has_folds(self) -> bool:
        if self._has_known_folds is None:
            config = read_json(self.config, default=None)
            if config is None:
                return True
            self._has_known_folds = config.get("folds", {}).get("kind") not in ("holdout", "all")
        return self._has_known_folds

    def newest_fold_log(self, number: int) -> Path:
        """Rank 0's log of the latest attempt of a fold; the folder where there is none."""
        return max(self.fold_logs(number).glob("training_*.log"), default=self.fold_logs(number))

    def submission(self, method: str) -> Path:
        """The submission of an ensemble method; its info stands beside it as .json."""
        return self.root / f"submission_{method}.csv"

    def shared_tensors(self, name: str, sha256: str) -> Path:
        """Tensors that all folds share, by the checksum of the file."""
        return self.root / f"{name}-{sha256[:12]}.safetensors"

    def completed_folds(self, count: int) -> list[int]:
        """Folds whose manifest is there and whose files have the size it says."""
        return [number for number in range(count) if self.fold(number).is_complete()]

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the run for one driver. A dead driver's lock does not block: the system drops it with the process.

        Raises:
            RunBusyError: another driver lives.
            StorageError: the run may only be read.
        """
        try:
            self.run_root.mkdir(parents=True, exist_ok=True)
            file = self.driver_lock.open("a+")
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            raise StorageError(
                f"{self.run_root} may only be read ({error.strerror}), and this changes files there; copy the run into "
                "a folder of your own, and name the copy"
            ) from None
        with file:
            if not _is_taken(file):
                file.seek(0)
                raise RunBusyError(
                    f"another driver ({file.read().strip() or 'unknown process'}) works on {self.root}; wait for it, "
                    "watch it with status.py, or choose another run.name"
                )
            with contextlib.suppress(OSError):  # of a full disk: whoever comes second is not told who was first
                os.ftruncate(file.fileno(), 0)
                os.write(file.fileno(), f"process {os.getpid()} on {os.uname().nodename}".encode())
            yield

    def is_locked(self) -> bool:
        """Whether a driver works on the run."""
        try:
            with self.driver_lock.open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def find_in_folds(self, pattern: str) -> Iterator[Path]:
        """Files in the folders of the run's folds, those of further members included."""
        for folds in ("folds", f"{MEMBERS}/*/folds"):
            yield from self.root.glob(f"{folds}/*/{pattern}")

    def remove_leftovers(self) -> None:
        """Removes files that a killed process was about to put in place, and resume points of finished folds."""
        for path in self.root.rglob(".*.tmp"):
            path.unlink(missing_ok=True)
        for path in self.cache.glob("features/*/.*.tmp"):  # gigabytes, where weights were being written
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S:
                    path.unlink()
        for path in self.find_in_folds("manifest.json"):
            FoldFolder(path.parent, int(path.parent.name)).remove_resume_points()

    def measure_bytes(self) -> int:
        """Size of the run on disk."""
        total = 0
        for folder, _, names in os.walk(self.root):
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # W&B's client may just have removed it
                    total += os.lstat(os.path.join(folder, name)).st_size
        return total


def find_members(folder: RunFolder, config: RunConfig) -> dict[str, RunFolder]:
    """The folder of every member by its name, `main` (the run's own) first."""
    return {name: folder.of_member(name) for name in config.member_names}


def refuse_member(folder: RunFolder) -> None:
    """Raises RunError where a folder is a further member's, and no run's."""
    if folder.member != MAIN:
        raise RunError(f"{folder.root} is a member; this is done for its run as a whole: {folder.run_root}")


class FoldFolder:
    """Paths of one fold: status, checkpoints, predictions, manifest."""

    def __init__(self, root: Path, number: int) -> None:
        self.root, self.number = root, number
        self.status = root / "status.json"
        self.leave_request = root / "leave_request.json"
        self.manifest = root / "manifest.json"

    def checkpoint(self, name: str) -> Path:
        """Folder of a checkpoint."""
        return self.root / "checkpoints" / name

    def predictions(self, rows: str, checkpoint: str) -> Path:
        """A prediction file: rows is validation or test."""
        return self.root / "predictions" / f"{rows}_{checkpoint}.parquet"

    def picture(self, name: str, global_step: int) -> Path:
        """A picture that the trainer has recorded; its name may have slashes."""
        return self.root / "pictures" / f"{name.replace('/', '_')}_{global_step:08d}.png"

    def bad_rows(self, rank: int) -> Path:
        """Rows that turned out bad only when a rank read them."""
        return self.root / ("bad_rows.jsonl" if rank == 0 else f"bad_rows_rank{rank}.jsonl")

    def list_checkpoints(self) -> dict[str, dict[str, Any]]:
        """Of each checkpoint, resume points apart, what its `checkpoint.json` says.

        Raises:
            RunFolderError: one is damaged.
        """
        paths = sorted(self.checkpoint("").glob("*/checkpoint.json"))
        return {path.parent.name: read_json(path) for path in paths if path.parent.name not in RESUME_POINTS}

    def put_back_checkpoints(self, known: Mapping[str, Any]) -> None:
        """Makes the checkpoints those that a resume point knew: a killed attempt may have written others since.

        Args:
            known: what `list_checkpoints` said then.
        """
        for path in self.checkpoint("").iterdir():
            if path.name not in (*known, *RESUME_POINTS):
                _remove_folder(path)
        for name, manifest in known.items():
            path = self.checkpoint(name) / "checkpoint.json"
            if read_json(path, default=None) != manifest:
                write_json(path, manifest, checksum=True)

    def is_complete(self) -> bool:
        """Whether the fold was trained to its end and its files are as long as its manifest says."""
        manifest = read_json(self.manifest, default=None)
        if not isinstance(manifest, dict):
            return False
        return all(
            (self.root / name).is_file() and (self.root / name).stat().st_size == entry["bytes"]
            for name, entry in manifest["files"].items()
        )

    def write_manifest(
        self, fence: int = 0, needed: Iterable[Path] = (), confirm: Callable[[], object] | None = None
    ) -> None:
        """Declares the fold finished, with size and SHA-256 of each of its files.

        Args:
            fence: the number of the driver on object storage that has launched the fold; 0: there is none.
            needed: files that it has saved, and must have.
            confirm: as in `appearing_whole`.

        Raises:
            LostFileError: one of these is not there any more. Nothing was written.
        """
        passing = [self.status, self.leave_request, self.manifest, *(self.checkpoint(name) for name in RESUME_POINTS)]
        for name, manifest in self.list_checkpoints().items():
            remove_old_tensors(self.checkpoint(name), name_parts(manifest))
            passing += list_old_parts(self.checkpoint(name), name_parts(manifest))  # those that could not be removed
        lasting = [p for p in sorted(self.root.rglob("[!.]*")) if p not in passing and p.parent not in passing]
        # Not what begins with a dot: the coordinator may just be writing the fold's status beside.
        described = {str(p.relative_to(self.root)): _describe_file(p) for p in lasting if p.is_file()}
        for path in needed:
            if str(path.relative_to(self.root)) not in described:
                raise LostFileError(f"somebody has removed {path}, which the fold had saved")
        listed = {"files": described} | ({"fence": fence} if fence else {})
        write_json(self.manifest, listed, checksum=True, confirm=confirm)

    def find_damage(self, *parts: str) -> list[Path]:
        """Files of a finished fold that are not what its manifest says, by their SHA-256; or the manifest itself.

        Args:
            parts: only files whose path in the fold's folder begins with one of these; none: all.
        """
        manifest = read_json(self.manifest, default=None)
        if manifest is None:
            return [self.manifest]
        files = {self.root / name: entry for name, entry in manifest["files"].items() if name.startswith(parts or "")}
        return [path for path, entry in files.items() if not path.is_file() or _describe_file(path) != entry]

    def remove_resume_points(self) -> None:
        """Removes the points from which an unfinished fold would go on, and what asked it to."""
        self.leave_request.unlink(missing_ok=True)
        for name in RESUME_POINTS:
            _remove_folder(self.checkpoint(name))

    def clear(self, *, keep_checkpoints: bool) -> None:
        """Removes what an unfinished attempt left; with `keep_checkpoints` only what the next one makes anew."""
        _remove_folder(self.root / "predictions")
        if not keep_checkpoints:
            _remove_folder(self.root / "checkpoints")
            for path in self.root.glob("bad_rows*.jsonl"):
                path.unlink()
        remove_unfinished(self.manifest)
        self.manifest.unlink(missing_ok=True)


def _remove_folder(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def _describe_file(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_file(path)}


def _is_taken(file: IO[str]) -> bool:
    """Takes a lock; whether that was possible. A reader holds it for a moment when it looks whether a driver does."""
    for pause_s in (*_LOCK_PAUSES_S, None):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if pause_s is not None:
                time.sleep(pause_s)
    return False
