"""What a trainer works with on a Ray Train worker: the run's folder, the coordination actor, Ray Train, and the point
from which it goes on after a kill."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import ray
import ray.train
import torch
import torch.distributed as dist
from safetensors.torch import load
from torch import Tensor

from ensemble.maps.files import EncodedMap, build_map_table, encode_map
from ensemble.predictions import build_table
from ray_jobs.cluster.access import NAMESPACE, actor_name
from ray_jobs.cluster.versions import COMMON_PACKAGES, are_same_versions, package_versions
from ray_jobs.config.run import CheckpointConfig, TrackingConfig
from ray_jobs.errors import FoldStoppedError, NonFiniteLossError, RunFolderError, SupersededError
from ray_jobs.runs.checkpoints import CHECKPOINTS, read_checkpoint, write_checkpoint
from ray_jobs.runs.events import AliveReported, EpochReported, Event, FoldStarted, PreparationReported, ProgressReported
from ray_jobs.runs.files import share_whole, write_parquet
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.location import split_run
from ray_jobs.runs.outages import Result, Storage
from ray_jobs.runs.record import Record, read_lines
from ray_jobs.runs.remote.fold_mirror import FoldMirror
from ray_jobs.runs.remote.no_mirror import NO_MIRROR, NoMirror
from ray_jobs.runs.requests import StopWhen, is_asked_to_leave, read_stop_request
from ray_jobs.runs.status import read_status
from ray_jobs.tracking.journal import FoldJournal
from ray_jobs.worker.resume import ResumePoints, StoredPoint, get_random_state, to_bytes
from ray_jobs.worker.watchdog import Watchdog
from trainers.interface import CheckpointName, PredictedMap, Predictions, ResumePoint, RowsName
from trainers.storage.whole_files import sum_up_file, write_whole

logger = logging.getLogger(__name__)
LOOK_INTERVAL_S = 0.1  # between two looks for a request to stop
LOOK_TOGETHER_S = 1.0  # between two of several ranks
MAPS_AT_ONCE = 16  # that a rank sends


def bring_for_node(mirror: FoldMirror | NoMirror, storage: Storage, checkpoint: CheckpointName | None = None) -> None:
    """Lets one rank of each node but rank 0's, which holds the fold's files, bring them, or one checkpoint; returns when all are
    there."""
    if mirror.uri is None:
        return
    nodes: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(
        nodes, ray.get_runtime_context().get_node_id()
    )  # Train's ranks go by addresses, which nodes may share
    own = nodes[dist.get_rank()]
    if own != nodes[0] and nodes.index(own) == dist.get_rank():
        bring = mirror.bring if checkpoint is None else partial(mirror.bring_checkpoint, checkpoint)
        mirror.bring_beside(partial(storage.insist, "bringing the fold's files", bring, by_name=False))
    dist.barrier()


class RayWorkplace:
    """`trainers.interface.Workplace` on a Ray Train worker. Rank 0 writes; see the interface for the methods.

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
        progress_interval_s: float = 1.0,
        tracking: TrackingConfig,
        checkpoint: CheckpointConfig,
        watchdog: Watchdog,
        mirror: FoldMirror | NoMirror = NO_MIRROR,
        packages: Sequence[str] = COMMON_PACKAGES,
        loss_advice: str = "use other values",
    ) -> None:
        self.rank, self.world_size, self.device, self.num_threads = rank, world_size, device, num_threads
        self.folder, self.fold, self.attempt, self.tracking = folder, fold, attempt, tracking
        self.checkpoint, self.watchdog, self.mirror = checkpoint, watchdog, mirror
        self.packages, self.loss_advice = packages, loss_advice
        self.saved_at, self.put_s = -math.inf, 0.0  # the last resume point: when it was saved, how long it was put
        self.files = folder.fold(fold)
        self.inputs, self.cache = folder.inputs, folder.cache
        self.cache_uri = mirror.uri and f"{split_run(mirror.uri)[0]}/{folder.cache.name}"
        self.storage = Storage(folder, checkpoint.storage_patience_s, while_waiting=watchdog.touch)
        self.points = ResumePoints(self.files, self.storage.check, self._put)
        self.point: StoredPoint | None = None
        self.best: tuple[float, int] | None = None  # score, epoch
        self.epochs_done, self.is_epoch_over, self.is_last_epoch = 0, False, False
        self.stops_now = False
        self.last_look, self.last_step, self.stride = 0.0, 0, 1  # in steps: from one look to the next
        self.num_epochs, self.num_steps = 1, 0  # of the whole training, once it is known
        self.journal: FoldJournal | None = None
        self.bad_rows: Record | None = None
        self.noted: set[tuple[str, str]] = set()
        self.coordinator: Any = None
        self.pending: list[tuple[int, float, Mapping[str, Tensor | float]]] = []
        self.last_progress, self.progress_interval_s = 0.0, progress_interval_s

    def start(self) -> None:
        """Finds where an earlier attempt was, opens the record there, and tells the coordinator that the fold runs."""
        self.point = self._find_point()
        known = {} if self.point is None else self.point.description
        self.best = tuple(known["best"]) if known.get("best") else None
        self.epochs_done = known.get("epoch", 0)
        nodes = self._gather(ray.get_runtime_context().get_node_id())
        if self.rank != 0:
            return
        self.insist("clearing the fold", lambda: self.files.clear(keep_checkpoints=self.point is not None))
        open_journal = partial(
            FoldJournal, self.folder, self.fold, keep=known.get("record_lines", 0),
            log_batches=self.tracking.log_batch_metrics, storage=self.storage,
        )  # fmt: skip
        self.journal = self.insist("opening the metric record", open_journal)
        self.insist("putting the metric record", self.mirror.begin_record)
        try:
            self.coordinator = ray.get_actor(actor_name(self.folder), namespace=NAMESPACE)
        except ValueError:
            logger.warning("no coordination actor: the live table will not follow this fold")
        self.watchdog.say_alive = lambda: self._tell(AliveReported(self.fold, self.attempt))
        step = known.get("global_step", 0)
        if self.point is not None:
            logger.info("fold %d goes on at epoch %d, step %d", self.fold, self.epochs_done + 1, step)
        best_score, best_epoch = self.best or (None, None)
        places = tuple(dict.fromkeys(nodes))  # rank 0's node first
        self._tell(
            FoldStarted(
                self.fold, self.attempt, self.epochs_done, step, best_score, best_epoch, nodes=places, pid=os.getpid()
            )
        )

    def finish(self) -> None:
        """Writes the fold's manifest: from here on it counts as completed."""
        if self.rank == 0:
            assert self.journal is not None
            self.journal.close()
            self.points.wait()
            self.insist("putting the fold's files", self.mirror.push_end)
            self.insist("the fold's manifest", self.files.write_manifest)
            self.insist("putting the fold's manifest", self._put)
            self.points.remove()  # last: until the manifest is there the fold may have to go on from one
            self.mirror.clean_up()

    def keep_last_rows(self) -> None:
        """Records the steps that were not fetched yet when the trainer failed. Several ranks cannot: one is gone."""
        if self.world_size == 1:
            with contextlib.suppress(Exception):  # the device may be what failed
                self._fetch_pending()

    def log_step(self, global_step: int, metrics: Mapping[str, Tensor | float]) -> None:
        self.watchdog.touch()
        self.is_epoch_over = False
        self.pending.append((global_step, time.time(), metrics))
        if len(self.pending) >= self.tracking.log_interval:
            self._fetch_pending()

    def log(self, global_step: int, metrics: Mapping[str, float]) -> None:
        self.watchdog.touch()
        self._fetch_pending()
        self._record_row(global_step, time.time(), metrics)

    def report_epoch(self, epoch: int, num_epochs: int, global_step: int, metrics: Mapping[str, float]) -> None:
        self.log(global_step, {**metrics, "epoch": epoch})
        if self.journal is not None:
            self.journal.sync()
        self._tell(EpochReported(self.fold, self.attempt, epoch, num_epochs, global_step, dict(metrics)))
        self._report_to_train(metrics)
        if math.isfinite(metrics["score"]) and (self.best is None or metrics["score"] < self.best[0]):
            self.best = (metrics["score"], epoch)
        self.epochs_done, self.is_epoch_over, self.is_last_epoch = epoch + 1, True, epoch + 1 == num_epochs

    def touch(self) -> None:
        self.watchdog.touch()

    def report_progress(self, epoch: int, num_epochs: int, step: int, num_steps: int) -> None:
        self.num_epochs, self.num_steps = num_epochs, num_steps
        if step * num_epochs % num_steps == 0:
            self._fetch_pending()  # what is wrong with an epoch's loss is found before it is validated
        if self.journal is not None:
            self.journal.follow(epoch, num_epochs, step, num_steps)
        if self.rank == 0 and time.monotonic() - self.last_progress > self.progress_interval_s:
            self.last_progress = time.monotonic()
            self._tell(ProgressReported(self.fold, self.attempt, epoch, num_epochs, step, num_steps))

    def save_checkpoint(
        self, name: CheckpointName, tensors: Mapping[str, Tensor], description: Mapping[str, Any]
    ) -> None:
        if self.rank == 0:
            content = to_bytes(tensors)
            self.insist(  # in object storage it is put with the next resume point, or with all that the fold has come to
                f"checkpoint {name}", lambda: write_checkpoint(self.files.checkpoint(name), content, description)
            )

    def load_checkpoint(self, name: CheckpointName) -> dict[str, Tensor]:
        if self.world_size > 1:
            if self.rank == 0:
                self.points.wait()
                self.insist("putting the checkpoints", self._put)  # other machines' ranks are to read the same
            dist.barrier()  # rank 0 may still be writing
            bring_for_node(self.mirror, self.storage, name)
        read = self.storage.insist(f"reading checkpoint {name}", lambda: read_checkpoint(self.files.checkpoint(name)))
        return load(read[0])

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
        self._look_around(global_step)
        return self.stops_now or is_regular

    def save_resume_point(self, point: ResumePoint, global_step: int) -> None:
        self._fetch_pending()
        own = {f"own/{name}": tensor.cpu() for name, tensor in point.own.items()}
        own |= {f"random/{name}": tensor for name, tensor in get_random_state().items()}
        of_ranks = self._gather(own)
        at_epoch = self.is_epoch_over and not self.is_last_epoch
        stops = self.stops_now or (at_epoch and self._share_request() is not None)
        if self.rank == 0 and (stops or self._is_worth_saving()):
            assert self.journal is not None
            self.insist("the metric record", self.journal.sync)
            self.saved_at = time.monotonic()
            tensors = {f"shared/{name}": tensor for name, tensor in point.tensors.items()}
            tensors |= {
                f"rank{rank}/{name}": tensor for rank, part in enumerate(of_ranks) for name, tensor in part.items()
            }
            self.points.write(tensors, self._describe_point(point, global_step))
        if stops:
            self.points.wait()
            if self.rank == 0 and self.mirror.uri:
                self.insist("putting the resume point", self._put)  # the first try may have met a storage that was away
            if self.world_size > 1:
                dist.barrier()  # Ray ends all ranks when one has raised, and rank 0 may still be writing
            raise FoldStoppedError(f"fold {self.fold} was asked to end: it has saved where it is, step {global_step}")

    def report_preparation(self, what: str, done: int, total: int) -> None:
        self.watchdog.touch()
        now = time.monotonic()
        if self.rank == 0 and (now - self.last_progress >= self.progress_interval_s or done == total):
            self.last_progress = now
            self._tell(PreparationReported(self.fold, self.attempt, what, done, total))
        if read_stop_request(self.folder) == StopWhen.NOW:  # nothing is shared yet: each rank may end by itself
            raise FoldStoppedError(f"the run was asked to stop: fold {self.fold} ends while it prepares ({what})")
        # Of several ranks on object storage not all see the file.
        if self.world_size == 1 and is_asked_to_leave(self.files, self.attempt):
            raise FoldStoppedError(f"fold {self.fold} was asked to end while it prepares ({what})")

    def _is_worth_saving(self) -> bool:
        """Whether a point is wanted now: in the middle of an epoch the user has asked for it, at the end it must be time. Points for
        object storage take a tenth of the time at most, unless all are asked for."""
        interval_s = self.checkpoint.min_interval_s and max(self.checkpoint.min_interval_s, 10 * self.put_s)
        is_time = time.monotonic() - self.saved_at >= interval_s
        return is_time or not self.is_epoch_over or self.is_last_epoch

    def share_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        if self.rank != 0:
            return {}
        content = to_bytes(tensors)
        checksum = hashlib.sha256(content).hexdigest()
        path = self.folder.shared_tensors(name, checksum)

        def write() -> None:  # several folds may do it at once: the same bytes, and a rename is whole
            if path.exists():
                if sum_up_file(path) == checksum:
                    return
                logger.warning("%s is damaged: it is written again", path)
            write_whole(path, content)

        self.insist(f"the shared {name}", write)
        self.insist(f"putting {path.name}", partial(self.mirror.push_shared, path))
        return {"path": str(path.relative_to(self.folder.root)), "sha256": checksum}

    def share_file(self, name: str, path: Path, sha256: str) -> dict[str, str]:
        if self.rank != 0:
            return {}
        shared = self.folder.shared_tensors(name, sha256)
        self.insist(f"the shared {name}", partial(share_whole, path, shared, sha256))
        self.insist(f"putting {shared.name}", partial(self.mirror.push_shared, shared))
        return {"path": str(shared.relative_to(self.folder.root)), "sha256": sha256}

    def _put(self) -> None:
        """Puts what the fold has come to into the object storage, if there is one."""
        began = time.monotonic()
        self.mirror.push()
        self.put_s = time.monotonic() - began

    def save_predictions(self, checkpoint: CheckpointName, rows: RowsName, predictions: Predictions) -> None:
        self.watchdog.touch()
        if self.rank != 0:
            return
        table = build_table(
            predictions.ids,
            predictions.prediction,
            predictions.prediction_z,
            predictions.target,
            fold=self.fold,
            checkpoint=checkpoint,
            member=self.folder.member,
        )
        path = self.files.predictions(rows, checkpoint)
        self.insist(f"the {rows} predictions of {checkpoint}", lambda: write_parquet(path, table))

    def save_maps(
        self, checkpoint: CheckpointName, rows: RowsName, ids: np.ndarray, maps: Iterable[PredictedMap]
    ) -> None:
        own = []
        for one in maps:
            self.watchdog.touch()
            own.append(encode_map(one.row_id, one.probability_CHW, one.target_HW))
        by_id = {one.row_id: one for one in self._gather_maps(own)}
        if self.rank != 0:
            return
        table = build_map_table(
            [by_id[row_id] for row_id in ids.tolist()], fold=self.fold, checkpoint=checkpoint, member=self.folder.member
        )
        path = self.files.predictions(rows, checkpoint)
        self.insist(f"the {rows} maps of {checkpoint}", lambda: write_parquet(path, table))

    def _gather_maps(self, own: list[EncodedMap]) -> list[EncodedMap]:
        """On rank 0 those of all ranks. A few at a time: on GPUs they go through their memory."""
        if self.world_size == 1:
            return own
        counts: list[Any] = [None] * self.world_size
        dist.all_gather_object(counts, len(own))
        gathered = []
        for start in range(0, max(counts), MAPS_AT_ONCE):
            self.watchdog.touch()
            parts: list[Any] | None = [None] * self.world_size if self.rank == 0 else None
            dist.gather_object(own[start : start + MAPS_AT_ONCE], parts)
            gathered += [one for part in parts or () for one in part]
        return gathered

    def note_bad_row(self, table: str, row_id: str, problem: str, done: str) -> None:
        if self.bad_rows is None:
            path = self.files.bad_rows(self.rank)
            self.bad_rows = self.storage.insist(f"opening {path.name}", lambda: Record(path))
            self.noted = {(row["table"], row["id"]) for row in read_lines(self.bad_rows.path)}
        if (table, row_id) in self.noted:  # by the attempt before
            return
        self.noted.add((table, row_id))
        logger.warning("%s: id %s: %s (%s)", table, row_id, problem, done)
        row, record = {"table": table, "id": row_id, "problem": problem, "done": done}, self.bad_rows
        self.storage.insist(f"a line of {record.path.name}", lambda: record.append(row), by_name=False)

    def _fetch_pending(self) -> None:
        """Moves the waiting steps' tensors from the device in one go, adds the ranks, and writes a row for each step."""
        tensors = [value for _, _, metrics in self.pending for value in metrics.values() if isinstance(value, Tensor)]
        fetched: list[float] = []
        if tensors:
            stacked = torch.stack([tensor.detach().float() for tensor in tensors])
            if self.world_size > 1:
                dist.all_reduce(stacked)
            fetched = stacked.cpu().tolist()
        values = iter(fetched)
        bad_step = None
        for global_step, at, metrics in self.pending:
            row = {name: next(values) if isinstance(value, Tensor) else value for name, value in metrics.items()}
            self._record_row(global_step, at, row)
            if bad_step is None and not math.isfinite(row.get("train/loss_step", 0.0)):
                bad_step, loss = global_step, row["train/loss_step"]
        self.pending.clear()
        if bad_step is not None:
            self._refuse_loss(bad_step, loss)

    def _refuse_loss(self, global_step: int, loss: float) -> NoReturn:
        """Ends the fold. What was saved before is kept: no point is written between this step and here."""
        per_epoch = self.num_steps // self.num_epochs
        where = ""
        if per_epoch:
            epoch, batch = divmod(global_step - 1, per_epoch)
            where = f" (epoch {epoch + 1} of {self.num_epochs}, batch {batch + 1} of {per_epoch})"
        raise NonFiniteLossError(
            f"the training loss of step {global_step}{where} is {loss}. {self.loss_advice[0].upper()}{self.loss_advice[1:]} "
            "in a new run (another run.name); the checkpoints from before this step are kept"
        )

    def _record_row(self, global_step: int, at: float, metrics: Mapping[str, float]) -> None:
        if self.journal is not None:
            self.journal.log(global_step, metrics, at)

    def _find_point(self) -> StoredPoint | None:
        """The newest resume point, the same on every rank; None if the fold has to begin."""
        point = self.insist("reading the resume point", self._find_usable_point) if self.rank == 0 else None
        if self.world_size == 1:
            return point
        place = [None if point is None else point.place]
        dist.broadcast_object_list(place)
        known = place[0]
        if self.rank == 0 or known is None:
            return point
        return self.storage.insist("reading the resume point", lambda: self.points.read(known))

    def _find_usable_point(self) -> StoredPoint | None:
        point = self.points.find_newest()
        return point if point is not None and self._can_go_on(point) else None

    def _can_go_on(self, point: StoredPoint) -> bool:
        """Whether what the point stands on is there, too: the rows of the record and the best checkpoint."""
        try:
            lines = len(read_lines(self.folder.fold_record(self.fold)))
            if lines < point.description["record_lines"]:
                raise RunFolderError(f"its metric record has {lines} lines of {point.description['record_lines']}")
            for name in CHECKPOINTS:
                if (name == "best" and point.description["best"]) or self.files.checkpoint(name).exists():
                    read_checkpoint(self.files.checkpoint(name))
        except RunFolderError as error:
            logger.warning("fold %d starts over: %s", self.fold, error)
            return False
        if not self._is_as_it_was(point.description["circumstances"]):
            logger.warning(
                "fold %d goes on under other circumstances (%s) than it began (%s): not bit for bit the same",
                self.fold, self._circumstances(), point.description["circumstances"],
            )  # fmt: skip
        return True

    def _describe_point(self, point: ResumePoint, global_step: int) -> dict[str, Any]:
        assert self.journal is not None
        return {
            "facts": point.facts,
            "global_step": global_step,
            "epoch": self.epochs_done,
            "best": self.best,
            "record_lines": self.journal.record.num_lines,
            "circumstances": self._circumstances(),
        }

    def _circumstances(self) -> dict[str, Any]:
        """What has to be the same for the same bits."""
        return {
            "world_size": self.world_size,
            "num_threads": self.num_threads,
            "device": torch.device(self.device).type,
            "versions": package_versions(self.packages),
        }

    def _is_as_it_was(self, before: Mapping[str, Any]) -> bool:
        """Whether the circumstances are those of a resume point, of the packages whose versions both of them know."""
        now = self._circumstances()
        others = [{name: value for name, value in known.items() if name != "versions"} for known in (before, now)]
        return are_same_versions(before["versions"], now["versions"]) and others[0] == others[1]

    def _gather(self, own: Any) -> list[Any]:
        """Every rank's value, in rank order."""
        gathered: list[Any] = [own]
        if self.world_size > 1:
            gathered = [None] * self.world_size
            dist.all_gather_object(gathered, own)
        return gathered

    def _look_around(self, global_step: int) -> None:
        """Finds out whether the fold is asked to end at this step. Ranks have to agree, so several ask each other only now and then:
        rank 0 says after how many steps."""
        if self.world_size > 1:
            is_time = global_step >= self.last_step + self.stride
        else:
            is_time = time.monotonic() - self.last_look > LOOK_INTERVAL_S
        if is_time:
            steps, now = global_step - self.last_step, time.monotonic()
            wanted = int(steps * LOOK_TOGETHER_S / max(1e-3, now - self.last_look))
            # Steps may become longer, too: not more at once than what is fetched together.
            (self.stride,) = self._hear_rank_0(max(1, min(wanted, 2 * self.stride, self.tracking.log_interval)))
            self.last_look, self.last_step = now, global_step
            self.stops_now = self._share_request() == StopWhen.NOW

    def _share_request(self) -> StopWhen | None:
        """The request to stop that lies in the folder of the run, or of the fold; rank 0 looks, so that all ranks stop at the same
        step."""
        request = read_stop_request(self.folder) if self.rank == 0 else None
        if self.rank == 0 and request is None and is_asked_to_leave(self.files, self.attempt):
            request = StopWhen.NOW
        kinds: list[StopWhen | None] = [None, *StopWhen]
        return kinds[self._hear_rank_0(kinds.index(request))[0]]

    def _hear_rank_0(self, *numbers: int) -> list[int]:
        """Rank 0's numbers, on every rank."""
        if self.world_size == 1:
            return list(numbers)
        own = torch.tensor(numbers, device=self.device)
        dist.broadcast(own, 0)
        return own.tolist()

    def _report_to_train(self, metrics: Mapping[str, float]) -> None:
        """A barrier of the ranks, at which Ray Train hears the metrics; it keeps none without a checkpoint of its own."""
        ray.train.report({f"fold_{self.fold}/{name}": value for name, value in metrics.items()})

    def _tell(self, event: Event) -> None:
        if self.coordinator is not None:
            self.coordinator.apply.remote(self.folder.member, event)

    def insist(self, what: str, do: Callable[[], Result]) -> Result:
        """Reads or writes as long as no later attempt has begun, and tries again while the storage is the cause."""

        def do_unless_superseded() -> Result:
            self._refuse_if_superseded()
            return do()

        return self.storage.insist(what, do_unless_superseded)

    def _refuse_if_superseded(self) -> None:
        current = read_status(self.folder, self.fold).attempt
        if current > self.attempt:
            raise SupersededError(f"attempt {current} of fold {self.fold} has begun; attempt {self.attempt} stops")
