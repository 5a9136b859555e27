"""K folds of a script's own function or estimator."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ray_jobs.api.run import Run
from ray_jobs.api.settings import DEFAULT_COUNT, Wanted, build_config
from ray_jobs.cli.command_line import Command
from ray_jobs.cli.console import open_console
from ray_jobs.config.run import RunConfig
from ray_jobs.errors import EXIT_INTERRUPTED, EXIT_OK, ConfigChangedError, FoldsFailedError, RunError
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.summary import Summary, find_summary
from ray_jobs.runs.location import find_place


def cross_validate(
    trainer: Any,
    data: Any = None,
    target: str = "",
    *,
    dataset: Any = None,
    splitter: Any = None,
    train_loop_config: Mapping[str, Any] | None = None,
    scaling_config: Any = None,
    test: Any = None,
    features: Sequence[str] | None = None,
    id: str | None = None,
    groups: Any = None,
    time: Any = None,
    fold_column: str | None = None,
    folds: Any = DEFAULT_COUNT,
    task: Literal["auto", "regression", "classification"] = "auto",
    name: str | None = None,
    storage: str | os.PathLike[str] | None = None,
    seed: int = 0,
    my: Any = None,
    num_gpus: float | None = None,
    config: Mapping[str, Any] | None = None,
) -> Run:
    """Trains K folds side by side, scores and combines them, and writes submission and report.

    It runs on this machine, on a Ray cluster that RAY_ADDRESS or `ray start` names, or on the Ray that this process has
    initialised. The same call again continues the run: folds that are finished are kept.

    Args:
        trainer: a function of a fold (and of its own options), or an estimator with fit and predict; or, with
            `dataset`, `train_loop_config` or `scaling_config`, a training loop of Ray Train.
        data: the rows to learn from: a DataFrame, a Ray dataset, or the path of a CSV or Parquet file or of a folder
            that holds one.
        target: the column to predict.
        dataset, splitter, train_loop_config: `data`, `folds` and `my` of a loop of Ray Train, under Ray's names.
        scaling_config: of a loop of Ray Train, a `ray.train.ScalingConfig`: workers and resources of one fold.
        test: the rows to predict, likewise; None: those of a `test` table in the folder, if there is one.
        features: columns for an estimator; None: all but id, target, groups, time and fold.
        id: the column that names a row; None: the row's number.
        groups: a column, or (N,) values, of which none is on both sides of a fold.
        time: a column, or (N,) dates or numbers: each fold validates on rows later than all it trains on.
        fold_column: the user's own folds, from 0.
        folds: how many, a kind (`stratified`, ...: see `folds.kind`; then `folds.count` of `config` says how many), or
            a scikit-learn splitter.
        task: auto: a target of numbers is regression.
        name: the run's, and its folder's; None: of the script and the trainer.
        storage: folder that holds the runs, or s3://bucket/prefix; None: ~/ray_results.
        seed: of the folds and of the trainer.
        my: own options of the function: a dict or a dataclass.
        num_gpus: of a fold; None: as many as there are.
        config: any other field of the run's config by its name on the command line, such as
            `{"resources.max_folds_at_once": 2}`.

    Raises:
        RunError, DataError: nothing was launched; the message says why.
        FoldsFailedError: a fold has failed; the others are kept.
        KeyboardInterrupt: it was interrupted; the folds have saved where they are.
    """
    is_loop = not (dataset is None and train_loop_config is None and scaling_config is None)
    data = _take_one("data", data, "dataset", dataset)
    my = _take_one("my", my, "train_loop_config", train_loop_config)
    folds = _take_one("folds", None if folds is DEFAULT_COUNT else folds, "splitter", splitter)
    if isinstance(target, (list, tuple)):
        raise RunError(
            f"target={list(target)}: expected one column; of several yes/no labels, or several numbers, make a run for "
            "each, with a name of its own"
        )
    if data is None or not isinstance(target, str) or not target:
        raise RunError(f"data={type(data).__name__}, target={target!r}: expected rows, and the name of their column")
    wanted = Wanted(
        trainer, data, target, test=test, features=features, id=id, groups=groups, time=time, fold_column=fold_column,
        folds=DEFAULT_COUNT if folds is None else folds, task=task, name=name, storage=storage, seed=seed, my=my,
        num_gpus=num_gpus, config=config or {}, is_loop=is_loop, scaling=scaling_config,
    )  # fmt: skip
    source = wanted.make_source()
    made = build_config(wanted, source)
    assert made.run.name is not None
    folder = RunFolder(find_place(made.run.storage, made.run.name))
    open_console().print(f"run {made.run.name} of {source.name}, in {made.run.storage}")
    _drive(made)
    return Run(folder.root)


def _take_one(name: str, value: Any, other_name: str, other: Any) -> Any:
    if value is not None and other is not None:
        raise RunError(f"{name}= and {other_name}= are the same: give one of them")
    return other if value is None else value


def _drive(config: RunConfig) -> None:
    """The K-fold job in this process."""
    from ray_jobs.driver.kfold import run_kfold

    assert config.run.name is not None
    try:
        code = run_kfold(Command(config, dry_run=False, job=os.path.abspath(sys.argv[0] or "notebook")), sys.argv[1:])
    except ConfigChangedError as error:
        text = str(error).replace("another run.name (run.name=auto) for a new run", "another name=... for a new run")
        raise ConfigChangedError(text) from None
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if code != EXIT_OK:
        raise FoldsFailedError(_list_failures(RunFolder(find_place(config.run.storage, config.run.name))))


def _list_failures(folder: RunFolder) -> str:
    failed = [fold for fold in (find_summary(folder) or Summary()).folds if fold.error]
    lines = [f"fold {fold.fold}: {fold.error}" for fold in failed]
    return "\n".join([f"{len(failed)} folds of {folder.root} have failed; the same call tries them again", *lines])
