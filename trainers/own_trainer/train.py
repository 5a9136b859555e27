"""Learns one fold by the user's function: gives it its rows, checks what it returns, and saves that."""

from __future__ import annotations

import io
import logging
import random
import traceback
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, chdir, contextmanager, nullcontext, redirect_stdout
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from trainers.interface import (
    CheckpointName,
    FoldContext,
    RowsName,
    Split,
)
from trainers.own_trainer.config import Config
from trainers.own_trainer.fold import Fold
from trainers.own_trainer.inventory import ROW_ID, name_packed
from trainers.own_trainer.kept import refuse_other_predictions
from trainers.own_trainer.table import number_classes
from trainers.own_trainer.users_code.options import count_arguments
from trainers.own_trainer.users_code.packed_objects import to_tensor
from trainers.own_trainer.users_code.returned import ReturnedError, check_numbers, check_probabilities, take_apart
from trainers.own_trainer.users_code.source import Source, is_user_file, load_source, unpack
from trainers.predictions import ClassPredictions, Predictions

logger = logging.getLogger(__name__)
_SETS: tuple[RowsName, ...] = ("validation", "test", "blend")
_CHECKPOINTS: tuple[CheckpointName, ...] = ("best", "final")


def train_fold(config: Config, split: Split, context: FoldContext) -> None:
    """Trains, saves and predicts one fold; called on every rank.

    Raises:
        ReturnedError: the function has returned something else than predictions of the rows.
        Exception: of the function.
    """
    torch.set_num_threads(context.num_threads)
    seed = int(np.random.SeedSequence([config.model.seed, split.fold]).generate_state(1)[0] >> 1)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    source = context.retry_while_unavailable("reading the function", partial(_load, config, context.inputs))
    tables = context.retry_while_unavailable("reading the rows", partial(_read_tables, context.inputs))
    rows, ids = _divide(tables, split, config)
    options, is_of_classes = source.build_options(config.my), config.model.task == "classification"
    fold = Fold(
        context,
        rows,
        number=split.fold,
        num_folds=split.num_folds,
        target=config.data.target,
        classes=number_classes(tables["train"][config.data.target])[0] if is_of_classes else (),
        features=_list_features(tables, config),
        seed=seed,
        config=options,
        data_folder=_find_folder(config.data.root or ""),
    )
    arguments = (fold, options)[: count_arguments(source.function)]
    with (
        threadpool_limits(context.num_threads),
        redirect_stdout(_Printed()),
        _within(config.trainer.folder),
        _told_where(source),
    ):
        returned = take_apart(source.function(*arguments))
        if "model" in returned:
            fold.keep_model(returned.pop("model"))
        predicted: dict[str, np.ndarray | None] = dict.fromkeys(_SETS)
        if context.rank == 0:
            predicted |= {name: _predict(fold, returned, name, ids[name]) for name in _SETS}
    _save(config, split, context, fold, predicted, ids)


def _within(folder: str | None) -> AbstractContextManager[None]:
    return chdir(folder) if folder is not None and Path(folder).is_dir() else nullcontext()


class _Printed(io.TextIOBase):
    """What a function prints goes into the fold's log, line by line."""

    def __init__(self) -> None:
        self.rest = ""

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            logger.info("%s", line.rpartition("\r")[2])  # of a progress bar its last state
        return len(text)


def _load(config: Config, inputs: Path) -> Source:
    return load_source(None) if config.trainer.path is None else unpack(inputs / name_packed(config))


def _read_tables(inputs: Path) -> dict[str, pd.DataFrame]:
    return {name: pd.read_parquet(path) for name in ("train", "test") if (path := inputs / f"{name}.parquet").exists()}


def _list_features(tables: Mapping[str, pd.DataFrame], config: Config) -> list[str]:
    """The columns to predict from: those with no other role that the test table, if there is one, has too."""
    known = tables.get("test", tables["train"]).columns
    return [name for name in tables["train"].columns if name in known and name not in (*config.data.roles, ROW_ID)]


def _divide(
    tables: Mapping[str, pd.DataFrame], split: Split, config: Config
) -> tuple[dict[str, pd.DataFrame | None], dict[str, np.ndarray]]:
    """The rows of each set, and their ids."""
    train = tables["train"]
    position = {row_id: number for number, row_id in enumerate(train[ROW_ID].tolist())}
    sets = {"train": split.train_ids, "validation": split.validation_ids, "blend": split.blend_ids}
    rows: dict[str, pd.DataFrame | None] = {}
    ids = {name: np.asarray(own, str) for name, own in sets.items()}
    for name, own in sets.items():
        chosen = train.iloc[[position[row_id] for row_id in own.tolist()]]
        is_there = len(own) or name != "blend"
        rows[name] = chosen.drop(columns=ROW_ID).reset_index(drop=True) if is_there else None
    rows["test"], ids["test"] = None, np.array([], str)
    if "test" in tables:
        ids["test"] = tables["test"][ROW_ID].to_numpy(str)
        rows["test"] = tables["test"].drop(columns=[ROW_ID, config.data.target], errors="ignore")
    return rows, ids


def _find_folder(root: str) -> Path:
    path = Path(root)
    return path.parent if path.suffix else path


@contextmanager
def _told_where(source: Source) -> Iterator[None]:
    """Errors say in which line of the user's they came up."""
    try:
        yield
    except SystemExit as error:
        raise RuntimeError(
            f"{source.name} has ended its process (exit code {error.code}): expected predictions"
        ) from None
    except Exception as error:
        own = [one for one in traceback.extract_tb(error.__traceback__) if is_user_file(one.filename)]
        if own:
            error.add_note(f"({Path(own[-1].filename).name}, line {own[-1].lineno}, in {own[-1].name})")
        raise


def _predict(fold: Fold, returned: Mapping[str, Any], name: str, ids_N: np.ndarray) -> np.ndarray | None:
    """The predictions of a set of rows, (N,): those that were returned, else those of the model that is kept; None of a
    set without rows.

    Raises:
        ReturnedError: there are none, or they are not of these rows.
    """
    rows = getattr(fold, name)
    if rows is None:
        if name in returned and len(_length_of(returned[name])):
            raise ReturnedError(f"the function returned {name} predictions, and there are no {name} rows")
        return None
    from_kept = None
    if fold.kept is not None and (name not in returned or name == "validation"):
        without = rows.drop(columns=fold.target, errors="ignore")
        from_kept = _check(fold, fold.kept.predict(without), name, len(ids_N))
    if name not in returned:
        if from_kept is None:
            raise ReturnedError(_explain_missing(name, len(ids_N)))
        return from_kept
    predicted = _check(fold, returned[name], name, len(ids_N))
    if from_kept is not None:
        refuse_other_predictions(from_kept, predicted, ids_N)
    return predicted


def _check(fold: Fold, predicted: Any, name: str, num_rows: int) -> np.ndarray:
    if fold.classes:
        return check_probabilities(predicted, name, num_rows, fold.classes)
    return check_numbers(predicted, name, num_rows)


def _length_of(value: Any) -> Any:
    return value if hasattr(value, "__len__") else [value]


def _explain_missing(name: str, num_rows: int) -> str:
    returns = {
        "validation": "return them, one for each row of fold.validation",
        "test": "return (validation, test), or leave the test table out",
        "blend": "return a dict with 'validation', 'test' and 'blend'",
    }
    return (
        f"there are {num_rows} {name} rows, and the function returned no predictions of them: {returns[name]}; or keep "
        "the model (fold.keep_model), which then predicts them"
    )


def _save(
    config: Config,
    split: Split,
    context: FoldContext,
    fold: Fold,
    predicted: Mapping[str, np.ndarray | None],
    ids: Mapping[str, np.ndarray],
) -> None:
    """Writes checkpoints and predictions; best and final are the same, for the function has chosen itself."""
    tensors = {} if fold.kept is None else {"model": to_tensor(fold.kept, "the model that is kept")}
    truth = {name: None if (rows := getattr(fold, name)) is None else _find_truth(fold, rows) for name in _SETS}
    if not fold.has_reported:
        score = _score(fold, predicted["validation"], truth["validation"])
        context.report_evaluation(max(fold.last_step, 1), {"score": score})
    description = {
        "family": "own_trainer",
        "fold": split.fold,
        "epoch": fold.last_epoch,
        "metrics": {},
        "model_summary": {},
        "holds_code": fold.kept is not None,
        "classes": list(fold.classes),
        "config": asdict(config),
    }
    for checkpoint in _CHECKPOINTS:
        context.save_checkpoint(checkpoint, tensors, description)
        for name in _SETS:
            if (target_N := truth[name]) is not None:
                blocks = _as_blocks(ids[name], predicted[name], target_N, fold.classes)
                context.save_predictions(checkpoint, name, ids[name], blocks)
                context.touch()


def _find_truth(fold: Fold, rows: pd.DataFrame) -> np.ndarray:
    """The target of rows, (N,): the number or that of the class; NaN or -1 of test rows."""
    if fold.target not in rows:
        return np.full(len(rows), -1 if fold.classes else np.nan)
    return fold.number_classes(rows) if fold.classes else rows[fold.target].to_numpy(np.float64)


def _score(fold: Fold, predicted_N: np.ndarray | None, truth_N: np.ndarray | None) -> float:
    """What the validation predictions miss: root of the mean squared error, or of classes the log loss in nats. Of
    another rank than the first 0, which nobody reads."""
    if predicted_N is None or truth_N is None:
        return 0.0
    if not fold.classes:
        return float(np.sqrt(np.mean((predicted_N - truth_N) ** 2)))
    of_truth_N = predicted_N[np.arange(len(truth_N)), truth_N]
    return float(-np.log(np.maximum(of_truth_N, np.finfo(np.float64).eps)).mean())


def _as_blocks(
    ids_N: np.ndarray, predicted_N: np.ndarray | None, target_N: np.ndarray, classes: tuple[str, ...]
) -> list[Predictions | ClassPredictions]:
    """Rank 0 has predicted all rows, the others none."""
    if predicted_N is None:
        return []
    if classes:
        return [ClassPredictions(ids_N, predicted_N, target_N.astype(np.int64), classes)]
    return [Predictions(ids_N, predicted_N, predicted_N, target_N)]
