"""What a trainer is: the types through which `ray_jobs` and a model family meet. `docs/new-family.md` is the guide to
it.

A family is a package `trainers/<family>/` with these modules. The last five may be absent; without `new_rows.py` and
`predict.py` a finished run cannot predict new rows. Only `train.py` and `predict.py` may load torch.

config.py
    `Config`: a frozen dataclass of sections; `data`, with a field `root`, and `model` are among them. `PREDICTS` names
    the kind of predictions; `PACKAGES` the packages whose versions decide what a fold computes; `NOT_TRAINED_BY` the
    fields (`section.field`) that change no bit of what is learned, and `CHANGES` (may be absent) the words by which a
    continued run tells the change of one of these; `ADVICE` (`trainers.families.Advice`) which options
    help when something runs out. `DECIDES_TASK` (may be absent) names the fields that decide what task scores are of:
    members and trials may not differ in them. `SEED` (may be absent) names the field that is the seed: only such a
    family can be trained with several seeds (`ensemble.seeds`). `BEGINS_ALIKE` (may be absent) says whether all folds
    begin with the same weights, so that the mean of what they come to is a model: then there is a `Soup` in
    `predict.py`. `USES_SEVERAL_GPUS` (may be absent) is true where a worker can train on more than one GPU; of other
    families more are refused. `DataConfig.ROWS_FROM` names the fields that decide which rows there are, which members
    of the family share.

recipes.py
    `RECIPES`: functions without arguments that return a `trainers.families.Recipe`. A function's name is the recipe's,
    unique among all families; the first line of its docstring is shown by `--help`. `ALIASES` (may be absent): by
    recipe {flag: field}, or {flag: field=value} of a flag that stands alone. `prepare(config, words)` (may be absent)
    returns the `Config` with the sections that depend on the words of a command line. `SMALLEST`: a recipe and fields,
    `name field=value ...`, that train in seconds on any CPU.

inventory.py
    `take_inventory(config, folder, cache, spread) -> (Config, Inventory)` reads and checks the whole input before
    anything is launched, and resolves all paths of the config. What takes long over much data it may hand out to other
    machines (`Spread`) and keep in `cache`.
    `write_inputs(config, inventory, folder)` writes what the folds find at `FoldContext.inputs`.
    `prepare_node(config)` runs once on each machine before the folds start: it fetches weights, for instance.
    `describe_inputs(config)` (may be absent) returns something hashable. Configs for which it is equal have the same
    inventory, inputs and needs of a node, and are resolved alike; the members of a run and the trials of a tuning then
    share them.
    `open_backgrounds(config, inputs, table)` (of maps; of rows with pictures, so that a report can show them) returns a
    function of a row's id that gives its picture, (H, W, 3) uint8: of maps what the map lies over. None: it has none.

train.py
    `train_fold(config, split, context)` learns one fold. `learning/learner.py` does most of it for a family that learns
    by steps over shuffled rows.

metrics.py
    `METRICS` (`trainers.families.Metrics`) describe for the documentation what only this family records.

new_rows.py
    `find_new_rows(configs, place) -> rows` finds the table at a path for models with these configs; of maps a third
    argument says where the truth is, or None. `PLACES` says in words what such a path may be.
    `rows.check()` reads all of it before anything is launched and returns the number of rows. `rows.read(n)` gives it
    in blocks of n rows, each a `pyarrow.Table`; n is a multiple of `rows.batch_rows`. `rows.PROBLEMS` says what is
    wrong with rows that are listed as a problem, and what was done ("... rows have PROBLEMS"). Picklable. Where a run
    has members of several families each finds the rows at the same path, of the same ids in the same order.

    `find_train_rows(config) -> rows` (may be absent) gives the run's own training table as new rows, for explain.py and
    `evaluate.py --blend`: their `id_column` names the column of their blocks with the ids, and `inputs` by name the
    columns of what models look at, which only families have whose predictors return `BlockPredictions`.
    `rows.with_pictures(folder)` (may be absent) gives rows whose pictures are those of a folder, by their ids.
    `find_test_rows(config) -> rows`: likewise its test table, for evaluate.py; DataError where there is none.

predict.py
    `Predictor(models, rows, device, num_threads)` is built once on a worker from what was saved (`TrainedModel`).
    `predict(block)` returns what the family's kind of predictions combines: `BlockPredictions` of numbers, an iterable
    of `NewMap` of maps, `NewLosses` of samples. Statistics are the checkpoint's, never the new rows'. A row has the
    same bits as among the run's own test rows, on the same kind of device with the same threads. `Soup` (may be
    absent): as `Predictor`, with one model, whose weights are the mean of those of all.

generate.py (may be absent)
    `Options`: a frozen dataclass; its fields are flags of `ray_jobs/generate.py`, the strings below them their help. It
    has defaults for all. `generate(models, options, folder, device, num_threads)` makes something new with what was
    saved (`TrainedModel`) of one fold or of a whole ensemble: yields lines to show, and writes files, if any, to the
    folder, which is empty. Values that are not allowed raise ValueError. Only `generate` may load torch.

evaluate.py (may be absent)
    `Options`: as in generate.py, of `ray_jobs/evaluate.py`; its `model` says what the evaluated models are called,
    empty: as their checkpoint. `evaluate(read_models, rows, options, cache, device, num_threads, is_ablation=False)`
    yields whose predictions they are, with a list of what `FoldContext.save_predictions` takes: `TrainedModel.name`,
    and names of its own of several together. `read_models(checkpoint)` gives the models. Its kind has
    `write_evaluation`. A family with this module has `find_train_rows` and `find_test_rows`. Only `evaluate` may load
    torch.

This module knows nothing of Ray: a fold can be trained in a plain test with any object that satisfies `FoldContext`.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from trainers.families import name_package

if TYPE_CHECKING:
    from torch import Tensor

CheckpointName = str  # `best` and `final`, which every fold saves, and others of a family's own: lower-case words
RowsName = Literal["validation", "blend", "test", "samples"]  # the last: what a generative model has made
EndReason = Literal["patience", "budget"]  # why a training ends early: nothing got better, or the time is up


# What a spreadsheet that opens a CSV file would run: an equals sign, or +, -, @ with more behind it than a name or a
# number has, where a cell begins or, for a spreadsheet that cuts cells elsewhere, behind a separator.
FORMULA = re.compile(r"(?:^|[,;\t\r\n\"])\s*(?:[=＝]|[+@＋＠－-](?![A-Za-z0-9_.-]*(?:e\+\d+)?$))")


NO_KEY = 0  # of a row that has nothing to compare

# Calls a function with portions of a list, wherever there is room, and returns what it says of each item, in the list's
# order. The function and its results are picklable; it runs anywhere, more than once if need be.
Spread = Callable[[Callable[[Sequence[Any]], list[Any]], Sequence[Any]], list[Any]]


def call_here(function: Callable[[Sequence[Any]], list[Any]], items: Sequence[Any]) -> list[Any]:
    """The `Spread` of one process."""
    return function(items)


class DataError(ValueError):
    """The user's data cannot be trained on. The message says what was found, what was expected and what to do."""


@dataclass(frozen=True)
class RowKeys:
    """Which rows are the same in one respect, such as their picture: those with equal keys. NO_KEY equals nothing.

    Attributes:
        train: (N,) uint64, in the order of `Inventory.ids`.
        test: (T,) uint64, in the order of `Inventory.test_ids`.
        shown: in a few words what a key of several rows stands for; keys may be absent.
    """

    train: np.ndarray
    test: np.ndarray
    shown: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Inventory:
    """What the driver must know of the data to plan folds and to recognise the same data later.

    Attributes:
        ids: (N,) str, one for each training row, in table order, unique; none holds a FORMULA, for ids go into CSV
            files.
        target: (N,) of any type: float64 where the family predicts numbers, of classes their numbers in `classes` from
            0, int64; None: rows have no target.
        target_name: column name of the target; the submission's second column; empty: there is none.
        num_test: rows to predict without a target; 0 where there is no test table.
        fingerprint: SHA-256 over everything that was read; another value means other data.
        groups: (N,) or None, rows of one group stay on one side of a fold.
        time: (N,) float64 unix seconds or None, for time-ordered folds.
        predefined_fold: (N,) int or None, the user's own fold column; -1 marks rows that always train, -2 the blend
            set.
        bad_rows: one mapping for each row that was dropped or mended: table, id, problem, done.
        test_ids: (T,) str, the ids of the rows to predict, or None.
        row_keys: by kind (picture, text, group, ...) which rows have the same; what is not named here is not looked for
            when leaks are.
        tables: the rows themselves, as the family's own `write_inputs` takes them.
        notes: sentences for the user: what is no mistake, but worth knowing.
        strata: (N,) of any type: what stratified folds have alike; None: the target, numbers by their size.
        classes: (C,) names of the classes, where these are predicted.
        take_earlier_fingerprint: as earlier versions took it, by which runs that they began are recognised; it may read
            all data once more.
    """

    ids: np.ndarray
    target: np.ndarray | None
    target_name: str
    num_test: int
    fingerprint: str
    groups: np.ndarray | None = None
    time: np.ndarray | None = None
    predefined_fold: np.ndarray | None = None
    bad_rows: tuple[Mapping[str, str], ...] = field(default=())
    test_ids: np.ndarray | None = None
    row_keys: Mapping[str, RowKeys] = field(default_factory=dict)
    tables: Any = None
    notes: tuple[str, ...] = ()
    strata: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    take_earlier_fingerprint: Callable[[], str] | None = None

    def has_fingerprint(self, known: str) -> bool:
        """Whether these are the data that were once known by a fingerprint."""
        take = self.take_earlier_fingerprint
        return known == self.fingerprint or (take is not None and known == take())

    def require_target(self) -> np.ndarray:
        """The target.

        Raises:
            DataError: rows have none.
        """
        if self.target is None:
            raise DataError("no target of the rows: expected one of each row")
        return self.target


@dataclass(frozen=True)
class Split:
    """One fold: the ids that train, the ids that validate, and those of the blend set, which every fold's model
    predicts without having been trained or chosen on them; each (n,) str, in plan order."""

    fold: int
    train_ids: np.ndarray
    validation_ids: np.ndarray
    blend_ids: np.ndarray = field(default_factory=lambda: np.array([], str))
    num_folds: int = 1


@dataclass(frozen=True)
class TrainedModel:
    """What was saved of one model: all that is needed to predict with it.

    Attributes:
        description: what the trainer gave `FoldContext.save_checkpoint`.
        tensors: likewise, on the CPU.
        shared: what it gave `FoldContext.share_tensors`, on the CPU; empty where nothing is shared.
        files: the content of the files that it gave, by name.
        name: whose it is: `fold_<i>`, of a further member `<member>_fold_<i>`.
    """

    description: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    shared: Mapping[str, Tensor]
    files: Mapping[str, bytes] = field(default_factory=dict)
    name: str = ""

    @property
    def is_own(self) -> bool:
        """Whether it is of the run's own recipe, and not of a further member."""
        return re.fullmatch(r"fold_\d+", self.name) is not None


@dataclass(frozen=True)
class ResumePoint:
    """All that a trainer needs to go on bit for bit as if it had never stopped. The context adds the states of the
    random generators and the position of the record.

    Attributes:
        tensors: the same on every rank (weights, optimiser); rank 0's are kept.
        own: of this rank alone: its parts of sums (of the epoch's loss). Where a fold goes on with another number of
            ranks, the first gets the sum of all and the others zeros.
        facts: JSON: where in which epoch, the best so far, counters; in steps and batches of all ranks together.
        shard: of this rank alone, and however large, such as its part of a sharded optimiser: written by the rank
            itself. None: no rank has such tensors. Where the number of ranks has changed a fold that goes on finds it
            empty.
        shards: only where the number of ranks has changed: the shards of all that saved, in rank order.
    """

    tensors: Mapping[str, Tensor]
    own: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    shard: Mapping[str, Tensor] | None = None
    shards: Sequence[Mapping[str, Tensor]] = ()


@dataclass(frozen=True)
class Progress:
    """Where the training of a fold is. What there is none of, or what nobody knows beforehand, is None.

    Attributes:
        step, num_steps: optimiser steps that are done, and all of them.
        epoch, num_epochs: the epoch under way, from 0, and all of them; of all stages together.
        batch, num_batches: batches of this epoch that are done, and all of them.
        tokens, num_tokens: that were trained on, and all of them: then these say how much is left.
    """

    step: int
    num_steps: int | None = None
    epoch: int | None = None
    num_epochs: int | None = None
    batch: int | None = None
    num_batches: int | None = None
    tokens: int | None = None
    num_tokens: int | None = None

    @property
    def ends_epoch(self) -> bool:
        """Whether an epoch's last batch is done."""
        return self.batch is not None and self.batch == self.num_batches

    @property
    def amounts(self) -> tuple[int, int | None]:
        """What is done and all of it, in tokens where they are counted, else in steps."""
        return (self.step, self.num_steps) if self.tokens is None else (self.tokens, self.num_tokens)


class FoldContext(Protocol):
    """What a trainer may ask of what it runs in. Every rank calls every method; rank 0 writes.

    Attributes:
        inputs: folder of what the family's `write_inputs` has written for this run.
        cache: folder that all runs of a storage share, for what need not be computed twice. Whoever writes there writes
            whole files; the user may remove it while no run works.
        cache_uri: where in object storage the blocks of `cache` are shared by machines that have no folder in common;
            None: nowhere.
    """

    rank: int
    world_size: int
    device: str
    num_threads: int
    inputs: Path
    cache: Path
    cache_uri: str | None = None

    def log_step(self, global_step: int, metrics: Mapping[str, Tensor | float]) -> None:
        """Records one optimiser step. Tensors stay on their device until a batch of steps is fetched together;
        each is this rank's share of a sum, so adding the ranks gives the value of the whole batch. A `train/loss_step`
        that turns out not to be finite ends the fold, here or later in the epoch."""

    def log(self, global_step: int, metrics: Mapping[str, float]) -> None:
        """Records values that are already reduced over all ranks."""

    def log_picture(self, global_step: int, name: str, content: bytes) -> None:
        """Keeps a picture, a PNG file, with the fold and records it as a metric of this name; rank 0's. W&B shows how
        it changes over the steps."""

    def report_epoch(self, epoch: int, num_epochs: int, global_step: int, metrics: Mapping[str, float]) -> None:
        """Records an epoch's metrics and tells the coordinator and, of short epochs not each, Ray Train that it is over
        (a barrier of the ranks). `metrics` must hold `score`, the value of which the lowest is best, and
        `train/loss_epoch` and `val/loss_epoch` where there are such losses."""

    def report_evaluation(self, global_step: int, metrics: Mapping[str, float]) -> None:
        """As `report_epoch`, of an evaluation that ends no epoch. Losses are those since the evaluation before."""

    def begin_stage(self, name: str) -> None:
        """From here on the fold is in this stage: its metrics are recorded as `<name>/<metric>`, all but `epoch` and
        `score`, and its best score counts anew. An empty name ends the stages, and keeps the last one's best. A fold
        that goes on is in the stage of its resume point already."""

    def preparing(self) -> AbstractContextManager[Any]:
        """Around what each rank does by itself before the training: at its end the ranks wait for each other, so that
        all end where one was asked to."""

    def report_preparation(self, what: str, done: int, total: int) -> None:
        """Says how many rows have gone through what comes before the training, within `preparing`. If the run was asked
        to stop, the fold may end here."""

    def touch(self) -> None:
        """Says that this rank is at work, where it reports nothing else for long: of a validation each batch. A fold
        that stands still for `run.stall_timeout_s` is ended."""

    def report_progress(self, progress: Progress) -> None:
        """Says where the fold is, after each step."""

    def save_checkpoint(
        self,
        name: CheckpointName,
        tensors: Mapping[str, Tensor],
        description: Mapping[str, Any],
        *,
        shard: Mapping[str, Tensor] | None = None,
        files: Path | None = None,
    ) -> None:
        """Replaces the checkpoint `name` as a whole: `tensors` as safetensors, `description` as JSON, both rank 0's.
        `shard` are further tensors under names that no other rank uses; each rank writes its own, and either all give
        one or none does. `files` is a folder to copy, rank 0's: a tokenizer, an adapter."""

    def load_checkpoint(self, name: CheckpointName) -> dict[str, Tensor]:
        """The tensors of a checkpoint that this fold saved, those of all shards together, on the CPU."""

    def find_files(self, name: CheckpointName) -> Path:
        """The folder of files of a checkpoint that this fold saved, under the names that they had."""

    def load_resume_point(self) -> ResumePoint | None:
        """Where an earlier attempt of this fold was, tensors on the CPU; None: begin. To be called when everything is
        built: it sets the random generators, too."""

    def is_resume_point_due(self, global_step: int) -> bool:
        """Whether a resume point is to be saved after this step, in the middle of an epoch. The same on every rank."""

    def save_resume_point(self, point: ResumePoint, global_step: int) -> None:
        """Replaces the point from which a later attempt goes on: after `report_epoch`, or `report_evaluation` of a
        training without epochs (where it may be left out if the last one is only seconds old), before a validation that
        takes long, and whenever one is due. If the run was asked to stop, the fold ends here."""

    def is_time_up(self, global_step: int, next_s: float) -> bool:
        """Whether what comes next and takes so many seconds, such as another epoch, does not fit into the time that the
        run gives the fold (`run.time_budget`). The same on every rank, and again for an attempt that comes to the step
        once more. A trainer that hears it says so (`report_early_end`), saves `final`, and ends."""

    def report_early_end(self, global_step: int, reason: EndReason) -> None:
        """Says that the training ends at this step, before all its steps are done: when that is decided, and again
        where a fold goes on from there. It belongs to what the trainer keeps in its resume point."""

    def share_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        """Stores tensors that are the same in all folds (frozen weights) once for the run; returns, on rank 0, where
        and their checksum, to be put into a checkpoint's description as `shared_tensors`."""

    def share_file(self, name: str, path: Path, sha256: str) -> dict[str, str]:
        """As `share_tensors`, for tensors that are a file in `cache` already."""

    def retry_while_unavailable(self, what: str, do: Callable[[], Any]) -> Any:
        """Reads or writes below `inputs` or `cache`, again and again while the storage is the cause that it fails;
        `what` is for the message."""

    def save_predictions(
        self, checkpoint: CheckpointName, rows: RowsName, ids: np.ndarray, predictions: Iterable[Any]
    ) -> None:
        """Writes a prediction file of the fold. Each rank gives those of its rows, in any order, as the family's kind
        has them: numbers in blocks (`Predictions`), maps one by one (`PredictedMap`). `ids`, (n,) str, are all rows in
        the file's order."""

    def note_bad_row(self, table: str, row_id: str, problem: str, done: str) -> None:
        """Lists a row whose content turned out bad while it was read."""


def load_inventory_module(family: str) -> Any:
    """The `inventory` module of a family (no torch)."""
    return importlib.import_module(f"{name_package(family)}.inventory")


def load_train_module(family: str) -> Any:
    """The `train` module of a family (loads torch)."""
    return importlib.import_module(f"{name_package(family)}.train")


def load_new_rows_module(family: str) -> Any:
    """The `new_rows` module of a family (no torch)."""
    return importlib.import_module(f"{name_package(family)}.new_rows")


def load_predict_module(family: str) -> Any:
    """The `predict` module of a family (loads torch)."""
    return importlib.import_module(f"{name_package(family)}.predict")


def load_generate_module(family: str) -> Any | None:
    """The `generate` module of a family (no torch); None: it has none."""
    name = f"{name_package(family)}.generate"
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def load_evaluate_module(family: str) -> Any | None:
    """The `evaluate` module of a family (no torch); None: it has none."""
    name = f"{name_package(family)}.evaluate"
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def load_config_class(family: str) -> type[Any]:
    """The `Config` dataclass of a family.

    Raises:
        ValueError: this is no family's name; it may come from a file, and names what is imported.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", family):
        raise ValueError(f"family={family!r}: expected the name of a folder in trainers/")
    config_class: type[Any] = importlib.import_module(f"{name_package(family)}.config").Config
    return config_class
