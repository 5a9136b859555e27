"""The config of a run from what a script says."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

import numpy as np

from ray_jobs.api.ray_train import make_loop_source, read_scaling, refuse_loop
from ray_jobs.api.tables import FOLD, GROUP, TIME, ScriptTable, number_folds, open_table, write_by_content
from ray_jobs.config.folds import FoldsConfig
from ray_jobs.config.overrides import override
from ray_jobs.config.recipes import RECIPES
from ray_jobs.config.run import RunConfig, RunSection
from ray_jobs.errors import RunError
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.location import find_place
from ray_jobs.tracking.wandb_settings import with_wandb_settings
from trainers.own_trainer.config import DataConfig, ModelConfig, Task, TrainerConfig
from trainers.own_trainer.estimator import EstimatorTrainer, is_classifier, is_estimator
from trainers.own_trainer.table import find_test_table, is_number, read_folds
from trainers.own_trainer.users_code.source import PACKED, Source, make_source
from trainers.storage.object_storage import is_uri
from trainers.storage.whole_files import write_whole
from trainers.values import describe_missing

RECIPES_OF = {"regression": "own_trainer", "classification": "own_classifier"}
DEFAULT_COUNT = 5
FOLD_KINDS = get_args(get_type_hints(FoldsConfig)["kind"])


@dataclass(frozen=True)
class Wanted:
    """What a script says; see `cross_validate`."""

    trainer: Any
    data: Any
    target: str
    test: Any = None
    features: Sequence[str] | None = None
    id: str | None = None
    groups: Any = None
    time: Any = None
    fold_column: str | None = None
    folds: Any = DEFAULT_COUNT
    task: Task = "auto"
    name: str | None = None
    storage: str | os.PathLike[str] | None = None
    seed: int = 0
    my: Any = None
    num_gpus: float | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    is_loop: bool = False
    scaling: Any = None

    def make_source(self) -> Source:
        """The trainer, with a name for people.

        Raises:
            DataError: it is none.
        """
        trainer = self.trainer
        name = getattr(trainer, "__name__", type(trainer).__name__)
        if self.is_loop:
            return make_loop_source(trainer, f"{_find_script()}:{name}")
        refuse_loop(trainer, name)
        if is_estimator(trainer):
            trainer = EstimatorTrainer(trainer, tuple(self.features or ()))
        elif self.features is not None:
            raise RunError("features= is for estimators; a function chooses its columns itself")
        return make_source(trainer, f"{_find_script()}:{name}")


def name_run(wanted: Wanted) -> str:
    """A name that the same call finds again: of the script and the trainer."""
    if wanted.name is not None:
        return wanted.name
    trainer = wanted.trainer
    parts = (Path(_find_script()).stem, getattr(trainer, "__name__", type(trainer).__name__))
    return re.sub(r"[^A-Za-z0-9_.-]+", "", "_".join(parts)).lstrip("_.-")[:100] or "run"


def _find_script() -> str:
    file = getattr(sys.modules["__main__"], "__file__", None)
    return Path(file).name if file else "notebook"


def build_config(wanted: Wanted, source: Source) -> RunConfig:
    """The run's config. Data and trainer that are no files are written below the storage's cache.

    Raises:
        RunError, DataError: something that was given cannot be used.
    """
    storage = os.fspath(wanted.storage or wanted.config.get("run.storage") or RunSection().storage)
    name = name_run(wanted)
    table = open_table(wanted.data)
    task = _find_task(wanted, table)
    base = with_wandb_settings(RECIPES[RECIPES_OF[task]](), os.environ)
    try:
        base = replace(base, run=replace(base.run, name=name, storage=storage))
        cache = RunFolder(find_place(storage, name)).cache
        data, folds = _settle_data(wanted, table, cache, base.folds)
        packed = cache / "functions" / f"{name}{PACKED}"
        write_whole(packed, source.pack())
        model = ModelConfig(task=task, seed=wanted.seed, source_sha256=source.sha256)
        my = source.build_options({**dict(source.options), **_as_dict(wanted.my)})
        trainer = replace(base.trainer, data=data, model=model, trainer=TrainerConfig(str(packed), os.getcwd()), my=my)
        resources = replace(base.resources, **read_scaling(wanted.scaling))
        config = replace(base, trainer=trainer, folds=folds, resources=resources)
        if wanted.num_gpus is not None:
            config = replace(config, resources=replace(config.resources, gpus_per_fold=wanted.num_gpus))
    except ValueError as error:
        raise RunError(str(error)) from None
    return _with_fields(config, wanted.config)


def _as_dict(my: Any) -> dict[str, Any]:
    if my is None:
        return {}
    if dataclasses.is_dataclass(my) and not isinstance(my, type):
        return dataclasses.asdict(my)
    if not isinstance(my, Mapping):
        raise RunError(f"my is a {type(my).__name__}: expected a dict or a dataclass of the function's own options")
    return dict(my)


def _find_task(wanted: Wanted, table: ScriptTable) -> Task:
    """auto: classes for a classifier, and where the target is no number."""
    if wanted.task not in ("auto", *RECIPES_OF):
        raise RunError(f"task={wanted.task!r}: expected auto, {' or '.join(RECIPES_OF)}")
    if wanted.task != "auto":
        return wanted.task
    if is_estimator(wanted.trainer) and is_classifier(wanted.trainer):
        return "classification"
    if table.place is not None and is_uri(table.place):
        return "regression"
    target = _find_column(table, wanted.target, DataConfig(target=wanted.target, id_column=wanted.id))
    return "regression" if is_number(target) else "classification"


def _settle_data(wanted: Wanted, table: ScriptTable, cache: Path, folds: FoldsConfig) -> tuple[DataConfig, FoldsConfig]:
    data = DataConfig(target=wanted.target, id_column=wanted.id, fold_column=wanted.fold_column)
    for field_name, value, column in (("group_column", wanted.groups, GROUP), ("time_column", wanted.time, TIME)):
        if value is not None and not isinstance(value, str):
            value = table.add(column, value, field_name.partition("_")[0], data)
        data = replace(data, **{field_name: value})
    data, folds = _choose_folds(wanted, table, data, folds)
    test_table = ""
    if wanted.test is not None:
        test = open_table(wanted.test, "test")
        test_table = test.place or str(write_by_content(test.read(data), cache, "test"))
    elif table.added and table.place is not None:  # the rows go into a file of their own
        test_table = str(find_test_table(replace(data, root=table.place)) or "")
    return replace(data, root=table.settle(cache, data), test_table=test_table), folds


def _choose_folds(
    wanted: Wanted, table: ScriptTable, data: DataConfig, folds: FoldsConfig
) -> tuple[DataConfig, FoldsConfig]:
    """The folds that a number, one of our names, a splitter or a column stands for."""
    given, count = wanted.folds, int(wanted.config.get("folds.count", DEFAULT_COUNT))
    if hasattr(given, "split") and not isinstance(given, str):
        frame = table.read(data)
        groups = _find_column(table, data.group_column, data)
        names = [name for name in frame.columns if name not in data.roles]
        fold_N, count = number_folds(given, frame, wanted.target, groups, names)
        data = replace(data, fold_column=table.add(FOLD, fold_N, "folds", data))
        return data, replace(folds, kind="predefined", count=count)
    if isinstance(given, str):
        if given not in FOLD_KINDS:
            raise RunError(
                f"folds={given!r}: expected a number, one of {', '.join(FOLD_KINDS)}, or a scikit-learn splitter"
            )
        return data, replace(folds, kind=cast(Any, given), count=1 if given == "holdout" else count, seed=wanted.seed)
    if isinstance(given, bool) or not isinstance(given, (int, np.integer)):
        raise RunError(
            f"folds={given!r}: expected a number, one of {', '.join(FOLD_KINDS)}, or a scikit-learn splitter"
        )
    if data.fold_column is not None:
        fold_N = read_folds(_find_column(table, data.fold_column, data), Path(table.place or "data"))
        return data, replace(folds, kind="predefined", count=max(2, len(set(fold_N[fold_N >= 0].tolist()))))
    is_of_classes = _find_task(wanted, table) == "classification"
    alone, grouped = ("stratified", "stratified_grouped") if is_of_classes else ("random", "grouped")
    kind = "time" if data.time_column else grouped if data.group_column else alone
    return data, replace(folds, kind=cast(Any, kind), count=int(given), seed=wanted.seed)


def _find_column(table: ScriptTable, name: str | None, data: DataConfig) -> Any:
    if name is None:
        return None
    if name in table.added:
        return table.added[name]
    frame = table.read(data)
    if name not in frame:
        raise RunError(describe_missing([(name, "")], frame))
    return frame[name]


def _with_fields(config: RunConfig, fields: Mapping[str, Any]) -> RunConfig:
    """The config with fields by their whole names, as on the command line; `members` is a list of texts.

    Raises:
        RunError: a field is unknown, or a value is not allowed.
    """
    members = fields.get("members", ())
    words = [f"{name}={_write(value)}" for name, value in fields.items() if name not in ("members", "folds.count")]
    if wrong := [name for name in fields if name != "members" and "." not in name]:
        raise RunError(f"config: {wrong[0]!r} is no field; write section.field, such as resources.max_folds_at_once")
    try:
        return replace(override(config, words), members=tuple(members))
    except ValueError as error:
        raise RunError(str(error)) from None


def _write(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(str, value))}]"
    return str(value)
