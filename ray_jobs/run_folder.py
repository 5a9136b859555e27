"""Every path of a run, and how files get there: whole or not at all.

A run is a folder `<run.storage>/<run.name>/`; disk is the truth that continuing reads. A file is written under another
name, synced and renamed. A checkpoint or a fold counts once its manifest, which holds checksums, is there. JSON that decides
how a run goes on holds a checksum of itself: a flipped bit must not become another config or position.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.config import MAIN, RunConfig, from_dict, to_dict
from ray_jobs.errors import RunBusyError, RunFolderError
from trainers.interface import FORMULA
from trainers.whole_files import appearing_whole, sum_up_file, write_whole

CHECKPOINTS = ("best", "final")
RESUME_POINTS = ("resume_0", "resume_1")
MEMBERS = "members"
TRIALS = "trials"
_ABANDONED_AFTER_S = 86_400.0  # a file of the cache that nobody has put in place; other runs may be at work
_CHECKSUM = "checksum"  # of a JSON file, in itself
_TENSORS_NAME = re.compile(r"model-[0-9a-f]{12}\.safetensors")


class StopWhen(StrEnum):
    """When a run that is asked to stop ends."""

    NOW = "now"  # at the next step
    EPOCH = "epoch"  # after the epochs that are under way


class RunFolder:
    """Paths of one run, or of one of its further members: a folder of the same kind at `members/<name>` of the run's. A trial of a
    tuning is a run at `trials/<name>` of the tuning's folder, which is itself shaped like one.

    Attributes:
        member: the member's name; `main` for the run's own folder.
        run_root: the run's own folder.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        is_member = self.root.parent.name == MEMBERS
        self.member, self.run_root = (self.root.name, self.root.parents[1]) if is_member else (MAIN, self.root)
        self.config = self.root / "config.json"
        self.provenance = self.root / "provenance.json"
        self.fold_info = self.root / "fold_info.csv"
        self.bad_rows = self.root / "bad_rows.csv"
        self.leaks = self.root / "leaks.csv"
        self.events = self.root / "events.jsonl"
        self.metrics = self.root / "metrics"
        self.ensemble_record = self.metrics / "ensemble.jsonl"
        self.submission_record = self.metrics / "submission.jsonl"
        self.trial_record = self.metrics / "trial.jsonl"  # of a tuning's trial
        self.log = self.root / "log"
        self.oof = self.root / "oof.parquet"
        self.test_predictions = self.root / "ensemble" / "test_predictions.parquet"
        self.honest_predictions = self.root / "ensemble" / "honest_predictions.parquet"
        self.summary = self.root / "summary.json"
        self.readme = self.root / "README.md"
        self.report = self.root / "report.html"
        self.figures = self.root / "figures"
        self.analysis = self.root / "analysis"
        self.predictions = self.root / "predictions"
        self.masks, self.overlays, self.disagreement = (self.root / n for n in ("masks", "overlays", "disagreement"))
        self.wandb = self.root / "wandb"
        self.tune = self.root / "tune.json"
        self.trials = self.root / TRIALS
        tuning = self.run_root.parents[1] if self.run_root.parent.name == TRIALS else self.run_root
        shared = tuning if (tuning / "tune.json").exists() else self.run_root
        self.inputs = shared / "inputs"  # of all trials of a tuning
        self.cache = shared.parent / ".kfold_cache"  # of all runs of this storage
        self.stop_request = self.run_root / "stop_request.json"
        self.train_scratch = self.run_root / ".ray_train"

    @property
    def own_fold_plan(self) -> Path:
        """The fold plan of the run, or of a member that has one of its own."""
        return self.root / "fold_plan.parquet"

    @property
    def fold_plan(self) -> Path:
        """The fold plan that counts here."""
        return self.own_fold_plan if self.own_fold_plan.exists() else self.run_root / "fold_plan.parquet"

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
                f"{self.config} cannot be read by this version of the project: {error!s:.500}"
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
        """Folder of a fold's logs, `training_<start>.log`; of further ranks `rank<r>_<start>.log`; of a run without folds that of all
        its logs."""
        return self.log / f"fold_{number}" if self._has_folds() else self.log

    def _has_folds(self) -> bool:
        return read_json(self.config, default={}).get("folds", {}).get("kind") != "holdout"

    def newest_fold_log(self, number: int) -> Path:
        """Rank 0's log of the latest attempt of a fold; the folder where there is none."""
        return max(self.fold_logs(number).glob("training_*.log"), default=self.fold_logs(number))

    def submission(self, method: str) -> Path:
        """The submission of an ensemble method; its info stands beside it as .json."""
        return self.root / f"submission_{method}.csv"

    def completed_folds(self, count: int) -> list[int]:
        """Folds whose manifest is there and whose files have the size it says."""
        return [number for number in range(count) if self.fold(number).is_complete()]

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the run for one driver. A dead driver's lock does not block: the system drops it with the process.

        Raises:
            RunBusyError: another driver lives.
        """
        self.run_root.mkdir(parents=True, exist_ok=True)
        with (self.run_root / "driver.lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise RunBusyError(
                    f"another driver ({file.read().strip() or 'unknown process'}) works on {self.root}; wait for it, watch "
                    f"it with status.py, or choose another run.name"
                ) from None
            with contextlib.suppress(OSError):  # of a full disk: whoever comes second is not told who was first
                os.ftruncate(file.fileno(), 0)
                os.write(file.fileno(), f"process {os.getpid()} on {os.uname().nodename}".encode())
            yield

    def is_locked(self) -> bool:
        """Whether a driver works on the run."""
        try:
            with (self.run_root / "driver.lock").open("r") as file:
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


def request_stop(folder: RunFolder, when: StopWhen, by: str) -> None:
    """Asks the folds of a run to save where they are and end."""
    write_json(folder.stop_request, {"when": when.value, "by": by, "time": time.time()})


def read_stop_request(folder: RunFolder) -> StopWhen | None:
    """The request to stop, if there is one; storage that is away asks for nothing."""
    try:
        if not folder.stop_request.exists():
            return None
        return StopWhen(read_json(folder.stop_request, default={"when": StopWhen.EPOCH})["when"])
    except OSError:
        return None


def ask_to_leave(fold: FoldFolder, attempt: int) -> None:
    """Asks an attempt of a fold to save where it is and end: it goes on in another one, with another number of workers."""
    write_json(fold.leave_request, {"attempt": attempt})


def is_asked_to_leave(fold: FoldFolder, attempt: int) -> bool:
    """Whether this attempt of a fold is to end; storage that is away asks for nothing."""
    try:
        return fold.leave_request.exists() and read_json(fold.leave_request, default={}).get("attempt") == attempt
    except OSError:
        return False


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

    def bad_rows(self, rank: int) -> Path:
        """Rows that turned out bad only when a rank read them."""
        return self.root / ("bad_rows.jsonl" if rank == 0 else f"bad_rows_rank{rank}.jsonl")

    def is_complete(self) -> bool:
        """Whether the fold was trained to its end and its files are as long as its manifest says."""
        manifest = read_json(self.manifest, default=None)
        if not isinstance(manifest, dict):
            return False
        return all(
            (self.root / name).is_file() and (self.root / name).stat().st_size == entry["bytes"]
            for name, entry in manifest["files"].items()
        )

    def write_manifest(self) -> None:
        """Declares the fold finished, with size and SHA-256 of each of its files."""
        for name in CHECKPOINTS:
            _remove_old_tensors(self.checkpoint(name))
        passing = [self.status, self.leave_request, self.manifest, *(self.checkpoint(name) for name in RESUME_POINTS)]
        lasting = [p for p in sorted(self.root.rglob("[!.]*")) if p not in passing and p.parent not in passing]
        # Not what begins with a dot: the coordinator may just be writing the fold's status beside.
        described = {str(p.relative_to(self.root)): _describe_file(p) for p in lasting if p.is_file()}
        write_json(self.manifest, {"files": described}, checksum=True)

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
        self.manifest.unlink(missing_ok=True)


def write_checkpoint(folder: Path, tensors: bytes, description: Mapping[str, Any]) -> None:
    """Replaces a checkpoint: the new tensors first, then `checkpoint.json`, which makes them count, then the old go.

    Raises:
        OSError: the storage does not take it; the old one stays.
    """
    checksum = hashlib.sha256(tensors).hexdigest()
    file = folder / f"model-{checksum[:12]}.safetensors"
    manifest = {"tensors": file.name, "sha256": checksum, "bytes": len(tensors), "description": description}
    try:
        write_whole(file, tensors)
        write_json(folder / "checkpoint.json", manifest, checksum=True)
    finally:
        _remove_old_tensors(folder)  # of the new ones, too, if they do not count


def _remove_old_tensors(folder: Path) -> None:
    """Removes tensors that `checkpoint.json` does not name; what cannot be removed now is removed the next time."""
    with contextlib.suppress(OSError):
        counts = (read_json(folder / "checkpoint.json", default=None) or {}).get("tensors")
        for path in folder.glob("model-*.safetensors"):
            if path.name != counts:
                path.unlink()


def read_checkpoint(folder: Path) -> tuple[bytes, dict[str, Any]]:
    """The tensors (safetensors bytes) and the description of a checkpoint.

    Raises:
        RunFolderError: it is not there or its checksum does not match.
    """
    manifest = _read_checkpoint_json(folder)
    file = folder / manifest["tensors"]
    tensors = file.read_bytes() if file.is_file() else b""
    if hashlib.sha256(tensors).hexdigest() != manifest["sha256"]:
        raise RunFolderError(f"{file} is missing or damaged: its checksum is not the one in checkpoint.json")
    return tensors, manifest["description"]


def read_description(folder: Path) -> dict[str, Any]:
    """The description of a checkpoint, without its tensors."""
    return _read_checkpoint_json(folder)["description"]


def _read_checkpoint_json(folder: Path) -> dict[str, Any]:
    """What `write_checkpoint` wrote. Another file than one beside it is never read, whatever it names."""
    manifest = read_json(folder / "checkpoint.json")
    known = manifest if isinstance(manifest, dict) else {}
    if not _TENSORS_NAME.fullmatch(str(known.get("tensors"))) or not {"sha256", "description"} <= known.keys():
        raise RunFolderError(
            f"{folder / 'checkpoint.json'} is damaged: expected tensors (model-<checksum>.safetensors beside it), sha256 "
            f"and description, found {manifest!r:.200}"
        )
    return manifest


def append_whole(file: int, content: bytes, path: Path) -> None:
    """Adds to an `O_APPEND` file in one write; a part that a full disk took is cut off again.

    Raises:
        OSError: the disk does not take it.
    """
    written = os.write(file, content)
    if written != len(content):
        os.ftruncate(file, os.fstat(file).st_size - written)
        raise OSError(errno.ENOSPC, f"only {written} of {len(content)} bytes could be written", str(path))


def write_json(path: Path, value: Any, *, checksum: bool = False) -> None:
    """Writes JSON, whole; a mapping may hold a checksum of itself, which `read_json` compares."""
    if checksum:
        value = {**value, _CHECKSUM: _sum_up(value)}
    write_whole(path, (json.dumps(value, indent=2) + "\n").encode())


def read_json(path: Path, **default: Any) -> Any:
    """Reads JSON; with `default=...` a missing or damaged file gives that value.

    Raises:
        RunFolderError: the file is missing or no JSON or its checksum does not match, and no default was given.
    """
    try:
        value = json.loads(path.read_bytes())
        if isinstance(value, dict) and _CHECKSUM in value and value.pop(_CHECKSUM) != _sum_up(value):
            raise ValueError("its checksum does not match")
        return value
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError) as error:
        if default:
            return default["default"]
        raise RunFolderError(f"{path} is missing or damaged: {error}") from None


def _sum_up(value: Mapping[str, Any]) -> str:
    """A checksum of what JSON makes of a mapping, whatever the order of its keys."""
    text = json.dumps(json.loads(json.dumps(value)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_parquet(path: Path, table: pa.Table) -> None:
    """Writes a Parquet table, whole."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_whole(path, sink.getvalue().to_pybytes())


def read_parquet(path: Path) -> pa.Table:
    """Reads a Parquet table.

    Raises:
        RunFolderError: it is missing or damaged.
    """
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise RunFolderError(f"{path} is missing or damaged: {error}") from None


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Writes a CSV table, whole; floats with all their digits. What a spreadsheet would run gets an apostrophe before it;
    ids, which hold no formula, stay as they are."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in (header, *rows):
        writer.writerow(disarm(cell) if isinstance(cell, str) else cell for cell in row)
    write_whole(path, text.getvalue().encode())


def disarm(cell: str) -> str:
    """A cell of a CSV file that no spreadsheet runs."""
    text = cell.replace("\r", " ")  # which Python before 3.13 does not quote
    return FORMULA.sub(lambda formula: f"{formula.group()[:-1]}'{formula.group()[-1]}", text)


def share_whole(source: Path, path: Path, sha256: str) -> None:
    """Makes a file of another folder appear here, too, without a copy where the file system can do that.

    Raises:
        RunFolderError: the file is not what its checksum says; it is removed, so that it will be made again.
        OSError: the storage does not take it.
    """
    if path.exists() and (path.samefile(source) or sum_up_file(path) == sha256):
        return
    if sum_up_file(source) != sha256:
        source.unlink()
        raise RunFolderError(f"{source} was damaged and is removed; the same command makes it again")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        os.link(source, temporary)
    except OSError:  # another file system, or one without links
        with appearing_whole(path) as file, source.open("rb") as whole:
            shutil.copyfileobj(whole, file)
        return
    os.replace(temporary, path)
    temporary.unlink(missing_ok=True)  # where both names were the same file already, nothing was renamed


def _remove_folder(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def _describe_file(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sum_up_file(path)}
