"""What a trainer works with on a Ray Train worker: the run's folder, the coordination actor, Ray Train, and the point
from which it goes on after a kill."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
from safetensors.torch import load
from torch import Tensor

from ensemble.kinds import Kind
from ray_jobs.cluster.versions import COMMON_PACKAGES
from ray_jobs.config.run import CheckpointConfig, TrackingConfig
from ray_jobs.errors import FoldStoppedError, RunFolderError, SupersededError
from ray_jobs.runs.checkpoints import (
    KNOWN,
    RESUME_POINTS,
    Checkpoint,
    Part,
    describe_checkpoint,
    open_checkpoint,
    write_checkpoint,
)
from ray_jobs.runs.files import share_whole
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.events import (
    EndedEarly,
    EpochReported,
    EvaluationReported,
    Event,
    FoldStarted,
    StageBegun,
)
from ray_jobs.runs.json_files.status import read_status
from ray_jobs.runs.location import open_cache, split_run
from ray_jobs.runs.outages import Result, Storage
from ray_jobs.runs.record import read_lines
from ray_jobs.runs.remote.fold_mirror import FoldMirror
from ray_jobs.runs.remote.no_mirror import NO_MIRROR, NoMirror
from ray_jobs.worker.budget import TimeBudget
from ray_jobs.worker.nodes import bring_for_node
from ray_jobs.worker.predictions import arrange, gather_predictions, save_in_parts
from ray_jobs.worker.ranks import Ranks
from ray_jobs.worker.recording import Recording
from ray_jobs.worker.requests import Requests
from ray_jobs.worker.resume import (
    ResumePoints,
    StoredPoint,
    describe_circumstances,
    get_random_state,
    is_as_it_was,
    to_bytes,
)
from ray_jobs.worker.shards import Shards
from ray_jobs.worker.watchdog import Watchdog
from trainers.interface import (
    CheckpointName,
    EndReason,
    Progress,
    ResumePoint,
    RowsName,
)
from trainers.learning.arithmetic import find_precision, settle_precision
from trainers.storage.whole_files import sha256_file, write_whole

logger = logging.getLogger(__name__)


class RayFoldContext:
    """`trainers.interface.FoldContext` on a Ray Train worker. Rank 0 writes; see the interface for the methods.

    While the storage takes or gives nothing, the rank that needs it waits, and the others wait for it.
    """

    def __init__(
        self,
        folder: RunFolder,
        fold: int,
        attempt: int,
        *,
        rank: int,
        world_size: int,
        device: str,
        num_threads: int,
        kind: Kind,
        progress_interval_s: float = 1.0,
        tracking: TrackingConfig,
        checkpoint: CheckpointConfig,
        watchdog: Watchdog,
        mirror: FoldMirror | NoMirror = NO_MIRROR,
        budget: TimeBudget | None = None,
        packages: Sequence[str] = COMMON_PACKAGES,
        loss_advice: str = "use other values",
    ) -> None:
        self.rank, self.world_size, self.device, self.num_threads = rank, world_size, device, num_threads
        self.folder, self.fold, self.attempt, self.packages, self.kind = folder, fold, attempt, packages, kind
        self.checkpoint, self.watchdog, self.mirror = checkpoint, watchdog, mirror
        self.budget = budget or TimeBudget()
        self.saved_at, self.put_s = -math.inf, 0.0  # the last resume point: when it was saved, how long it was put
        self.files = folder.fold(fold)
        self.inputs = folder.inputs
        self.cache_uri = mirror.uri and f"{split_run(mirror.uri)[0]}/{folder.cache.name}"
        self.storage = Storage(folder, checkpoint.storage_patience_s, while_waiting=watchdog.touch)
        self.ranks = Ranks(rank, world_size, device)
        self.requests = Requests(folder, self.files, attempt, self.ranks, tracking.log_interval)
        self.recording = Recording(
            folder,
            fold,
            attempt,
            self.ranks,
            self.storage,
            watchdog,
            tracking,
            progress_interval_s=progress_interval_s,
            loss_advice=loss_advice,
        )
        self.shards = Shards(self.ranks)
        self.points = ResumePoints(self.files, self.storage.check, self._put)
        self.point: StoredPoint | None = None
        self.best: tuple[float, int | None, int | None] | None = None  # of the stage: score, epoch, step
        self.rows: list[dict[str, Any]] | None = None  # of the record, until it is open
        self.checkpoints: dict[str, dict[str, Any]] = {}  # on rank 0, of each saved one what its checkpoint.json says
        self.predicted: list[Path] = []  # on rank 0, the files of predictions
        # Whether an epoch, or an evaluation of a training without epochs, was the last that happened.
        self.epochs_done, self.is_epoch_over, self.is_last_epoch = 0, False, False
        self.is_asked_for_point = False
        self.ended_at: int | None = None  # the step at which the training has ended early, as the record says

    @cached_property
    def cache(self) -> Path:
        """See the interface. Raises RunError where others may write there."""
        return self.storage.retry_while_unavailable("opening the cache", lambda: open_cache(self.folder.cache))

    def start(self) -> None:
        """Finds where an earlier attempt was, opens the record there, and tells the coordinator that the fold runs.

        Raises:
            FoldStoppedError: the fold is complete: an earlier attempt that was taken for dead has finished it.
        """
        is_complete = self.rank == 0 and self.retry_while_unavailable("looking for a manifest", self.files.is_complete)
        if any(self.ranks.hear_first(int(is_complete))):
            raise FoldStoppedError(f"fold {self.fold} is complete: an earlier attempt has finished it")
        self.point = self._find_point()
        known = {} if self.point is None else self.point.description
        if known.get("best"):
            score, epoch, *step_of_best = known["best"]
            self.best = (score, epoch, *(step_of_best or [None]))
        self.epochs_done, self.recording.stage = known.get("epoch", 0), known.get("stage", "")
        self.budget.used_s, self.ended_at = known.get("used_s", 0.0), known.get("ended_at")
        nodes, precisions = zip(
            *self.ranks.gather((ray.get_runtime_context().get_node_id(), find_precision(self.device))), strict=True
        )
        if nodes[self.rank] != nodes[0]:
            self.shards.mirror = self.requests.mirror = self.mirror
        if self.rank == 0:
            self._begin(known, nodes)
        self._settle_precision(precisions)

    def _settle_precision(self, precisions: Sequence[str]) -> None:
        """Makes `precision=auto` the same for all ranks, folds and attempts of the run."""
        found = precisions[0] if len(set(precisions)) == 1 else "fp16"  # which cards without bf16 have, too
        chosen = self.ranks.hear_object(self.recording.choose_precision(found) if self.rank == 0 else None)
        if chosen != precisions[self.rank]:
            logger.info(
                "where the precision is left to auto it is %s, with which the run began; alone, this device would "
                "compute in %s",
                chosen,
                precisions[self.rank],
            )
        settle_precision(chosen)

    def _begin(self, known: Mapping[str, Any], nodes: Sequence[str]) -> None:
        """Opens the record and tells the coordinator; on rank 0.

        Args:
            known: what the resume point says.
            nodes: of each rank.
        """
        self.retry_while_unavailable(
            "clearing the fold", lambda: self.files.clear(keep_checkpoints=self.point is not None)
        )
        keep, rows = known.get("record_lines", 0), self.rows
        self.rows = None
        self.retry_while_unavailable(
            "opening the metric record",
            lambda: self.recording.open(keep, None if rows is None else rows[:keep], self._refuse_if_superseded),
        )
        self.retry_while_unavailable("putting the metric record", self.mirror.begin_record)
        step = known.get("global_step", 0)
        if self.point is not None:
            logger.info("fold %d goes on at epoch %d, step %d", self.fold, self.epochs_done + 1, step)
        best_score, best_epoch, best_step = self.best or (None, None, None)
        self.recording.tell(
            FoldStarted(
                self.fold,
                self.attempt,
                self.epochs_done,
                step,
                best_score,
                best_epoch,
                nodes=tuple(dict.fromkeys(nodes)),  # rank 0's node first
                pid=os.getpid(),
                stage=self.recording.stage,
                best_step=best_step,
            )
        )

    def finish(self) -> None:
        """Writes the fold's manifest: from here on it counts as completed."""
        if self.rank == 0:
            self.recording.close()
            self.points.wait()
            self.retry_while_unavailable("putting the fold's files", self.mirror.push_end)
            self.retry_while_unavailable("the fold's manifest", self._write_manifest)
            self.retry_while_unavailable("putting the fold's manifest", self._put)
            self.points.remove()  # last: until the manifest is there the fold may have to go on from one
            self.mirror.clean_up()

    def _write_manifest(self) -> None:
        self.mirror.bring_back()
        needed = list(self.predicted)
        for name, manifest in self.checkpoints.items():
            known = describe_checkpoint(self.files.checkpoint(name), manifest)
            needed += [known.folder / name for name in ("checkpoint.json", *(part.name for part in known.parts))]
        self.files.write_manifest(self.mirror.fence, needed, confirm=self._refuse_if_superseded)

    def log_step(self, global_step: int, metrics: Mapping[str, Tensor | float]) -> None:
        self.is_epoch_over = False
        self.recording.log_step(global_step, metrics)

    def log(self, global_step: int, metrics: Mapping[str, float]) -> None:
        self.recording.log(global_step, metrics)

    def log_picture(self, global_step: int, name: str, content: bytes) -> None:
        path = self.files.picture(name, global_step)
        if self.rank == 0:
            self.retry_while_unavailable(f"the picture {path.name}", lambda: write_whole(path, content))
        place = str(path.relative_to(self.folder.root))
        # A picture is no number; it is recorded as those of a report are.
        shown: dict[str, Any] = {name: {"image": place, "sha256": hashlib.sha256(content).hexdigest()}}
        self.recording.log(global_step, shown)

    def report_epoch(self, epoch: int, num_epochs: int, global_step: int, metrics: Mapping[str, float]) -> None:
        event = EpochReported(self.fold, self.attempt, epoch, num_epochs, global_step, dict(metrics))
        self._report_scores(global_step, {**metrics, "epoch": epoch}, epoch, event)
        self.epochs_done, self.is_epoch_over, self.is_last_epoch = epoch + 1, True, epoch + 1 == num_epochs

    def report_evaluation(self, global_step: int, metrics: Mapping[str, float]) -> None:
        event = EvaluationReported(self.fold, self.attempt, global_step, dict(metrics))
        self._report_scores(global_step, metrics, None, event)
        progress = self.recording.progress
        self.is_epoch_over = progress is None or progress.num_epochs is None

    def _report_scores(self, global_step: int, metrics: Mapping[str, float], epoch: int | None, event: Event) -> None:
        self.recording.log(global_step, metrics)
        self.recording.sync()
        self.recording.tell(event)
        self._report_to_train(metrics)
        if math.isfinite(metrics["score"]) and (self.best is None or metrics["score"] < self.best[0]):
            self.best = (metrics["score"], epoch, global_step)

    def begin_stage(self, name: str) -> None:
        self.recording.fetch_pending()
        self.recording.stage = name
        self.recording.tell(StageBegun(self.fold, self.attempt, name))
        if name:
            self.best = None

    def touch(self) -> None:
        self.watchdog.touch()

    def report_progress(self, progress: Progress) -> None:
        self.recording.report_progress(progress)

    @contextmanager
    def preparing(self) -> Iterator[None]:
        stopped = None
        try:
            yield
        except FoldStoppedError as error:
            stopped = error
        if any(self.ranks.gather(stopped is not None)):
            raise stopped or FoldStoppedError(f"fold {self.fold} was asked to end before it trains")

    def report_preparation(self, what: str, done: int, total: int) -> None:
        self.recording.report_preparation(what, done, total)
        self.requests.end_preparation(what)

    def note_bad_row(self, table: str, row_id: str, problem: str, done: str) -> None:
        self.recording.note_bad_row(table, row_id, problem, done)

    def save_checkpoint(
        self,
        name: CheckpointName,
        tensors: Mapping[str, Tensor],
        description: Mapping[str, Any],
        *,
        shard: Mapping[str, Tensor] | None = None,
        files: Path | None = None,
    ) -> None:
        if name in RESUME_POINTS or not re.fullmatch("[a-z][a-z0-9_]*", name):
            raise ValueError(f"checkpoint {name!r}: expected a lower-case word, and none of {', '.join(RESUME_POINTS)}")
        folder, what, parts = self.files.checkpoint(name), f"checkpoint {name}", []
        if shard is not None:
            parts = self.shards.write(
                folder, shard, partial(self.retry_while_unavailable, f"rank {self.rank}'s part of {what}")
            )
        if self.rank == 0:
            if parts:
                self.retry_while_unavailable(
                    what, partial(self.mirror.bring_parts, [folder / part.name for part in parts])
                )
            content = to_bytes(tensors)
            # In object storage it is put with the next resume point, or with all that the fold has come to.
            keep = self.points.list_needed(name)
            self.checkpoints[name] = self.retry_while_unavailable(
                what, lambda: write_checkpoint(folder, content, description, shards=parts, files=files, keep=keep)
            )

    def load_checkpoint(self, name: CheckpointName) -> dict[str, Tensor]:
        checkpoint = self._bring_checkpoint(name)
        read = self.storage.retry_while_unavailable(f"reading checkpoint {name}", checkpoint.read_tensors)
        return {name: tensor for content in read for name, tensor in load(content).items()}

    def find_files(self, name: CheckpointName) -> Path:
        checkpoint = self._bring_checkpoint(name)
        found = self.storage.retry_while_unavailable(f"reading checkpoint {name}", checkpoint.find_files)
        if found is None:
            raise ValueError(f"checkpoint {name} was saved without files")
        return found

    def _bring_checkpoint(self, name: CheckpointName) -> Checkpoint:
        """A checkpoint that rank 0 has written, on every rank."""
        if self.rank == 0:
            self.retry_while_unavailable(f"bringing back checkpoint {name}", self.mirror.bring_back)
        if self.world_size > 1:
            if self.rank == 0:
                self.points.wait()
                # Other machines' ranks are to read the same.
                self.retry_while_unavailable("putting the checkpoints", self._put)
            self.ranks.wait()  # rank 0 may still be writing
            bring_for_node(self.mirror, self.storage, name)
        return self.storage.retry_while_unavailable(
            f"reading checkpoint {name}", lambda: open_checkpoint(self.files.checkpoint(name))
        )

    def load_resume_point(self) -> ResumePoint | None:
        if self.point is None:
            return None
        stored, self.point = self.point, None  # not held in memory while the fold trains
        if stored.world_size != self.world_size:
            self.log(stored.description["global_step"], {"setup/world_size": self.world_size})
        stored.restore_random_state(self.rank)
        return stored.for_rank(self.rank, self.world_size)

    def is_resume_point_due(self, global_step: int) -> bool:
        is_regular = self.checkpoint.every_steps is not None and global_step % self.checkpoint.every_steps == 0
        self.requests.look(global_step)
        self.is_asked_for_point = self.requests.stops_now or is_regular
        return self.is_asked_for_point

    def is_time_up(self, global_step: int, next_s: float) -> bool:
        is_over = self.budget.is_over(global_step, next_s)
        return bool(self.ranks.hear_first(int(is_over))[0])

    def report_early_end(self, global_step: int, reason: EndReason) -> None:
        if self.ended_at != global_step:
            self.ended_at = global_step
            self.log(global_step, {f"ended_by_{reason}": global_step})
        self.recording.tell(EndedEarly(self.fold, self.attempt, global_step, reason))

    def save_resume_point(self, point: ResumePoint, global_step: int) -> None:
        self.recording.fetch_pending()
        own = {f"own/{name}": tensor.cpu() for name, tensor in point.own.items()}
        own |= {f"random/{name}": tensor for name, tensor in get_random_state().items()}
        of_ranks = self.ranks.gather(own)
        at_epoch = self.is_epoch_over and not self.is_last_epoch
        stops = self.requests.stops_now or (at_epoch and self.requests.hear() is not None)
        is_wanted, shards = stops or (self.rank == 0 and self._is_worth_saving()), list[Part]()
        if point.shard is not None:
            is_wanted, shards = self._write_shards(point.shard, is_wanted)
        if self.rank == 0 and is_wanted:
            self.retry_while_unavailable("the metric record", self.recording.sync)
            self.saved_at, self.is_asked_for_point = time.monotonic(), False
            tensors = {f"shared/{name}": tensor for name, tensor in point.tensors.items()}
            tensors |= {
                f"rank{rank}/{name}": tensor for rank, part in enumerate(of_ranks) for name, tensor in part.items()
            }
            self.points.write(tensors, self._describe_point(point, global_step), shards)
        if stops:
            self.points.wait()
            if self.rank == 0 and self.mirror.uri:
                # The first try may have met a storage that was away.
                self.retry_while_unavailable("putting the resume point", self._put)
            self.ranks.wait()  # Ray ends all ranks when one has raised, and rank 0 may still be writing
            raise FoldStoppedError(f"fold {self.fold} was asked to end: it has saved where it is, step {global_step}")

    def _write_shards(self, shard: Mapping[str, Tensor], is_wanted: bool) -> tuple[bool, list[Part]]:
        """Whether a point is wanted and each rank's part of it was written, and these parts; rank 0 decides, and says
        where."""
        if self.rank == 0:
            self.points.wait()
        is_wanted_there, number = self.ranks.hear_first(is_wanted, RESUME_POINTS.index(self.points.next_place))
        if not is_wanted_there:
            return False, []
        parts = self.shards.try_write(self.files.checkpoint(RESUME_POINTS[number]), shard)
        return parts is not None, parts or []

    def _is_worth_saving(self) -> bool:
        """Whether a point is wanted now: in the middle of an epoch it was asked for, at the end it must be time. Points
        for object storage take a tenth of the time at most, unless all are asked for."""
        interval_s = self.checkpoint.min_interval_s and max(self.checkpoint.min_interval_s, 10 * self.put_s)
        is_time = time.monotonic() - self.saved_at >= interval_s
        return is_time or self.is_asked_for_point or not self.is_epoch_over or self.is_last_epoch

    def share_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        if self.rank != 0:
            return {}
        content = to_bytes(tensors)
        checksum = hashlib.sha256(content).hexdigest()
        path = self.folder.shared_tensors(name, checksum)

        def write() -> None:  # several folds may do it at once: the same bytes, and a rename is whole
            if path.exists():
                if sha256_file(path) == checksum:
                    return
                logger.warning("%s is damaged: it is written again", path)
            write_whole(path, content)

        self.retry_while_unavailable(f"the shared {name}", write)
        self.retry_while_unavailable(f"putting {path.name}", partial(self.mirror.push_shared, path))
        return {"path": str(path.relative_to(self.folder.root)), "sha256": checksum}

    def share_file(self, name: str, path: Path, sha256: str) -> dict[str, str]:
        if self.rank != 0:
            return {}
        shared = self.folder.shared_tensors(name, sha256)
        self.retry_while_unavailable(f"the shared {name}", partial(share_whole, path, shared, sha256))
        self.retry_while_unavailable(f"putting {shared.name}", partial(self.mirror.push_shared, shared))
        return {"path": str(shared.relative_to(self.folder.root)), "sha256": sha256}

    def _put(self) -> None:
        """Puts what the fold has come to into the object storage, if there is one."""
        began = time.monotonic()
        self.mirror.push()
        self.put_s = time.monotonic() - began

    def save_predictions(
        self, checkpoint: CheckpointName, rows: RowsName, ids: np.ndarray, predictions: Iterable[Any]
    ) -> None:
        tables = gather_predictions(
            self.ranks,
            self.kind,
            predictions,
            self.watchdog.touch,
            fold=self.fold,
            checkpoint=checkpoint,
            member=self.folder.member,
        )
        if self.rank == 0:
            path = self.files.predictions(rows, checkpoint)
            write = partial(self.retry_while_unavailable, f"the {rows} predictions of {checkpoint}")
            save_in_parts(path, arrange(tables, ids), write)
            self.predicted.append(path)
        else:
            list(tables)  # it gets none, and takes part

    def _find_point(self) -> StoredPoint | None:
        """The newest resume point, the same on every rank; None if the fold has to begin."""
        point = (
            self.retry_while_unavailable("reading the resume point", self._find_usable_point)
            if self.rank == 0
            else None
        )
        known = self.ranks.hear_object(None if point is None else point.place)
        if self.rank == 0 or known is None:
            return point
        return self.storage.retry_while_unavailable("reading the resume point", lambda: self.points.read(known))

    def _find_usable_point(self) -> StoredPoint | None:
        point = self.points.find_newest()
        if point is None or not self._can_go_on(point):
            return None
        self.files.put_back_checkpoints(self.checkpoints)
        return point

    def _can_go_on(self, point: StoredPoint) -> bool:
        """Whether what the point stands on is there, too: the rows of the record and the checkpoints of that moment."""
        try:
            self.rows = read_lines(self.folder.fold_record(self.fold))
            lines = len(self.rows)
            if lines < point.description["record_lines"]:
                raise RunFolderError(f"its metric record has {lines} lines of {point.description['record_lines']}")
            known = point.description.get(KNOWN)  # those of that moment: a trainer may save its best at its end only
            if known is None:  # of an earlier version: then they are what the attempt before has left
                known = self.files.list_checkpoints()
                if point.description["best"] and "best" not in known:
                    raise RunFolderError("its best checkpoint is missing")
            for name, manifest in known.items():
                describe_checkpoint(self.files.checkpoint(name), manifest).check()
            self.checkpoints = dict(known)
        except RunFolderError as error:
            logger.warning("fold %d starts over: %s", self.fold, error)
            return False
        before, now = point.description["circumstances"], self._circumstances()
        if not is_as_it_was(before, now):
            logger.warning(
                "fold %d goes on under other circumstances (%s) than it began (%s): not bit for bit the same",
                self.fold, now, before,
            )  # fmt: skip
        return True

    def _describe_point(self, point: ResumePoint, global_step: int) -> dict[str, Any]:
        return {
            "facts": point.facts,
            "global_step": global_step,
            "epoch": self.epochs_done,
            "best": self.best,
            "used_s": self.budget.measure_used(),
            "ended_at": self.ended_at,
            "stage": self.recording.stage,
            "record_lines": self.recording.num_lines,
            KNOWN: dict(self.checkpoints),
            "circumstances": self._circumstances(),
        }

    def _circumstances(self) -> dict[str, Any]:
        return describe_circumstances(self.world_size, self.num_threads, self.device, self.packages)

    def _report_to_train(self, metrics: Mapping[str, float]) -> None:
        """A barrier of the ranks, at which Ray Train hears the metrics; it keeps none without a checkpoint of its
        own."""
        ray.train.report({f"fold_{self.fold}/{name}": value for name, value in metrics.items()})

    def retry_while_unavailable(self, what: str, do: Callable[[], Result]) -> Result:
        """Reads or writes as long as no later attempt has begun, and tries again while the storage is the cause."""

        def do_unless_superseded() -> Result:
            self._refuse_if_superseded()
            return do()

        return self.storage.retry_while_unavailable(what, do_unless_superseded)

    def _refuse_if_superseded(self) -> None:
        current = read_status(self.folder, self.fold).attempt
        if current > self.attempt:
            raise SupersededError(f"attempt {current} of fold {self.fold} has begun; attempt {self.attempt} stops")
