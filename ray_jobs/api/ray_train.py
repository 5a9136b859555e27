"""A training loop as it is written for Ray Train, `train_loop_per_worker(config)`, as the trainer of a fold: what it
asks Ray Train for is answered from the fold."""

from __future__ import annotations

import dataclasses
import inspect
import shutil
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_jobs.api.folders import read_files, write_files
from ray_jobs.cluster.ray_private import make_dataset, train_functions_replaced
from ray_jobs.errors import RunError
from trainers.own_trainer.users_code.source import Source, collect_source

if TYPE_CHECKING:
    import pandas as pd

    from trainers.own_trainer.fold import Fold

_SETS = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation",
         "eval": "validation", "test": "test", "blend": "blend"}  # fmt: skip
_SCORES = ("score", "val_loss", "validation_loss", "valid_loss", "eval_loss", "loss", "train_loss")
_EPOCHS = ("num_epochs", "epochs", "max_epochs", "num_train_epochs")
_EXAMPLE = "ray_jobs.save_predictions(validation=..., test=...)"
_at_work: list[_FoldOfLoop] = []  # none or one: a process trains one fold


def save_predictions(validation: Any = None, test: Any = None, blend: Any = None, model: Any = None) -> None:
    """Called by a training loop of Ray Train when it has trained, on each of its workers; those of rank 0 count.

    Args:
        validation, test, blend: a prediction for each row of `get_dataset_shard` of that name, in its order: (N,), or
            of classes (N, C).
        model: what predicts later rows, and these where they are not given: a function of rows (a DataFrame), or what
            has predict or predict_proba.

    Raises:
        RuntimeError: no loop of Ray Train is at work in this process.
    """
    _find_current("save_predictions").predicted = {
        "validation": validation, "test": test, "blend": blend, "model": model,
    }  # fmt: skip


def get_fold() -> Fold:
    """The fold that a training loop of Ray Train works at: its number, seed, classes, and rows as DataFrames.

    Raises:
        RuntimeError: no loop of Ray Train is at work in this process.
    """
    return _find_current("get_fold").fold


def _find_current(name: str) -> _FoldOfLoop:
    if not _at_work:
        raise RuntimeError(
            f"ray_jobs.{name} was called outside of a training loop of Ray Train: expected a call within the function "
            "that cross_validate(loop, dataset=...) runs; a function of a fold returns its predictions"
        )
    return _at_work[-1]


@dataclass(frozen=True)
class RayTrainLoop:
    """A loop as a function of a fold.

    Attributes:
        loop: takes its config, a dict, or nothing.
    """

    loop: Callable[..., Any]

    def __call__(self, fold: Fold, options: Any) -> dict[str, Any]:
        config = dataclasses.asdict(options)
        given = (config,) if inspect.signature(self.loop).parameters else ()
        with tempfile.TemporaryDirectory(prefix="checkpoints_") as scratch:
            work = _FoldOfLoop(fold, config, Path(scratch))
            _at_work.append(work)
            try:
                with train_functions_replaced(work) as work.of_ray:
                    self.loop(*given)
            finally:
                _at_work.remove(work)
        if work.predicted is None:
            raise RuntimeError(
                f"the loop has ended without predictions: call {_EXAMPLE} after its last epoch, outside of the loop "
                "over the epochs, so that a fold that goes on after them predicts, too"
            )
        return work.predicted


class _FoldOfLoop:
    """Answers `ray.train.report`, `get_checkpoint` and `get_dataset_shard`."""

    def __init__(self, fold: Fold, config: dict[str, Any], scratch: Path) -> None:
        self.fold, self.scratch = fold, scratch
        self.num_epochs = next((config[name] for name in _EPOCHS if isinstance(config.get(name), int)), 0)
        self.predicted: dict[str, Any] | None = None
        self.of_ray: Any = None
        self._num_reports, self._is_reporting, self._has_loaded = 0, False, False
        self._files: dict[str, bytes] | None = None

    def report(self, metrics: dict[str, Any], checkpoint: Any = None, *args: Any, **more: Any) -> None:
        """An epoch is over; the checkpoint is the point from which the fold goes on."""
        if self._is_reporting:  # the fold itself tells Ray Train
            self.of_ray.report(metrics, checkpoint, *args, **more)
            return
        own: dict[str, bytes] | None = None
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                own = read_files(Path(folder))
        numbers = {name: float(value) for name, value in metrics.items() if _is_number(value)}
        self._is_reporting = True
        try:
            # Every worker comes here; what rank 0 says and saves counts.
            numbers, names = self.of_ray.broadcast_from_rank_zero((numbers, None if own is None else list(own)))
            _refuse_parts(self.fold.rank, own or {}, names or ())
            self._report(numbers)
            if names is not None:
                self._files = own or {}
                self.fold.save({"files": self._files, "num_reports": self._num_reports})
        finally:
            self._is_reporting = False

    def _report(self, numbers: dict[str, float]) -> None:
        epoch, self._num_reports = self._num_reports, self._num_reports + 1
        score = next((numbers[name] for name in _SCORES if name in numbers), None)
        train_loss = numbers.get("train_loss", numbers.get("loss"))
        val_loss = next((numbers[name] for name in _SCORES[1:5] if name in numbers), None)
        self.fold.log({name: value for name, value in numbers.items() if name != "epoch"})
        if score is not None:
            num_epochs = max(self.num_epochs, epoch + 1)
            self.fold.report_epoch(epoch, num_epochs, score=score, train_loss=train_loss, val_loss=val_loss)

    def get_checkpoint(self) -> Any:
        """What was reported last, by this attempt or by one that was killed; None: nothing."""
        from ray.train import Checkpoint

        if not self._has_loaded and not self._num_reports and (state := self.fold.load()):
            self._files, self._num_reports = state["files"], state["num_reports"]
        self._has_loaded = True
        if self._files is None:
            return None
        folder = self.scratch / "checkpoint"
        shutil.rmtree(folder, ignore_errors=True)
        write_files(folder, self._files)
        return Checkpoint.from_directory(folder)

    def get_dataset_shard(self, asked: Any) -> Any:
        """The rows of a set, as Ray Data gives them: of `train` this worker's share, of others all, in the table's
        order; None: there are none."""
        name = asked.dataset_name or "train"
        if name not in _SETS:
            raise KeyError(f"get_dataset_shard({name!r}): expected train, validation, test or blend")
        rows: pd.DataFrame | None = getattr(self.fold, _SETS[name])
        if rows is None:
            return None
        if name == "train":
            share = len(rows) // self.fold.world_size
            rows = rows.iloc[self.fold.rank :: self.fold.world_size][:share].reset_index(drop=True)
        return make_dataset(rows).iterator()


def _refuse_parts(rank: int, own: Collection[str], known: Collection[str]) -> None:
    """Raises ValueError where a worker's checkpoint has files that rank 0's lacks: they would be lost."""
    if parts := sorted(set(own) - set(known)):
        raise ValueError(
            f"the checkpoint of rank {rank} has the files {', '.join(parts)}, which that of rank 0 has not: expected a "
            "checkpoint of rank 0 that is whole (ray.train.get_context().get_world_rank()); the other workers' are not "
            "kept"
        )


def _is_number(value: Any) -> bool:
    """Whether a metric is one number: of Python, of NumPy, or a tensor."""
    return isinstance(value, Real) or (getattr(value, "shape", None) == () and not isinstance(value, str))


def make_loop_source(loop: Any, name: str) -> Source:
    """A loop of Ray Train as a trainer.

    Raises:
        RunError: it is none.
    """
    parameters = list(inspect.signature(loop).parameters.values()) if callable(loop) else None
    if parameters is None or isinstance(loop, type):
        shown = loop.__name__ if isinstance(loop, type) else f"a {type(loop).__name__}"
        raise RunError(
            f"{name} is {shown}: expected the function that a TorchTrainer gets as train_loop_per_worker; functions of "
            "a fold and estimators take data=... in place of dataset=... and no train_loop_config or scaling_config"
        )
    if (parameters and parameters[0].name == "fold") or len([p for p in parameters if p.default is p.empty]) > 1:
        raise RunError(
            f"{name}{inspect.signature(loop)}: dataset=, train_loop_config= and scaling_config= are of a training loop "
            "of Ray Train, a function of its config; for a function of a fold use data=, my= and config="
        )
    return Source(name, RayTrainLoop(loop), collect_source(loop))


def refuse_loop(trainer: Any, name: str) -> None:
    """Raises RunError where a function looks like a loop of Ray Train, and nothing says that it is one."""
    parameters = list(inspect.signature(trainer).parameters) if inspect.isfunction(trainer) else [""]
    if not parameters or parameters[0] in ("config", "train_loop_config"):
        raise RunError(
            f"{name}({', '.join(parameters)}) is written as a training loop of Ray Train: give its rows as dataset=... "
            "in place of data=..., or its options as train_loop_config={...}. If it is a function of a fold, call its "
            "first argument fold"
        )


def read_scaling(scaling: Any) -> dict[str, Any]:
    """The fields of `resources` that a `ray.train.ScalingConfig` stands for; it is that of one fold.

    Raises:
        RunError: it asks for something that a fold cannot have.
    """
    if scaling is None:
        return {}
    workers = scaling.num_workers or 1
    most = workers[1] if isinstance(workers, tuple) else workers
    asked = dict(scaling.resources_per_worker or {})
    fields: dict[str, Any] = {"workers_per_fold": workers}
    fields["gpus_per_fold"] = asked.pop("GPU", 1) * most if scaling.use_gpu else asked.pop("GPU", 0) * 0
    if cpus := asked.pop("CPU", None):
        fields["cpus_per_fold"] = cpus * most
    if memory := asked.pop("memory", None):
        fields["memory_per_fold"] = memory * most
    if asked:
        raise RunError(f"scaling_config: resources_per_worker={asked}: expected CPU, GPU and memory")
    return fields
