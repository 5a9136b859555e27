"""What a run's models look at: by how much the error of out-of-fold rows grows when an input is shuffled among them
(permutation importance: Breiman 2001; Fisher, Rudin and Dominici 2019, https://arxiv.org/abs/1801.01489).

Each row is predicted by the model of its fold, which has not seen it. An input is shuffled among the rows of a fold.
Inputs that say the same as others look less important than they are: the others stand in for them.

Shape suffixes: N rows, R repeats, D draws, I inputs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ray_jobs.config.run import RunConfig
from ray_jobs.errors import RunError
from ray_jobs.prediction.models import read_models, refuse_unusable
from ray_jobs.results.importance_file import NUM_REPEATS, Importance
from ray_jobs.results.run_files import measure_folds
from ray_jobs.runs.folder import RunFolder
from trainers.interface import load_new_rows_module, load_predict_module
from trainers.predictions import BlockPredictions

_NUM_DRAWS = 1000


@dataclass(frozen=True)
class FoldRows:
    """Some validated rows of a fold, and the model that predicts them.

    Attributes:
        fold: its number.
        ids_n: of the rows.
        block: as the family's new rows have it.
        target_n: of each, as the kind keeps it.
        predict: what the model says of such a block, as the kind keeps it.
    """

    fold: int
    ids_n: np.ndarray
    block: pa.Table
    target_n: np.ndarray
    predict: Callable[[pa.Table], np.ndarray]


def find_rows(folder: RunFolder, config: RunConfig) -> Any:
    """The training rows of a run as its family's new rows.

    Args:
        folder, config: of a member, or of a run with one.

    Raises:
        RunError, DataError: the family does not say what its models look at, or the rows are not there any more.
    """
    refuse_unusable(folder, config)
    module = load_new_rows_module(config.family)
    rows = module.find_train_rows(config.trainer) if hasattr(module, "find_train_rows") else None
    if rows is None or not rows.inputs:
        raise RunError(
            f"{folder.root} predicts {config.kind.title}, and its family, {config.family}, names no inputs that can be "
            "shuffled (`inputs` of find_train_rows in its new_rows.py): expected a run of a family that does"
        )
    return rows


def find_importance(
    config: RunConfig, rows: Any, folds: Sequence[FoldRows], say: Callable[[str], None], num_repeats: int = NUM_REPEATS
) -> list[Importance]:
    """The importance of each input, the most important first.

    Args:
        config: of the run.
        rows: of `find_rows`.
        folds: of `read_folds`.
        say: hears how far it is.
        num_repeats: how often each input is shuffled.
    """
    target_N = np.concatenate([one.target_n for one in folds])
    base_N = np.concatenate([one.predict(one.block) for one in folds])
    found = []
    for number, (name, columns) in enumerate(rows.inputs.items(), start=1):
        say(f"{name} ({number} of {len(rows.inputs)})")
        shuffled_RN = [_predict_shuffled(folds, columns, repeat) for repeat in range(num_repeats)]
        found.append(_measure(config, name, target_N, np.stack([base_N, *shuffled_RN])))
    return sorted(found, key=lambda one: -one.importance)


def read_folds(folder: RunFolder, config: RunConfig, rows: Any, most_rows: int) -> list[FoldRows]:
    """Rows that each fold has validated, with the model that predicts them.

    Args:
        folder, config: as in `find_rows`, whose rows they are of.
        rows: of it.
        most_rows: of all folds together, drawn at random.

    Raises:
        RunError: a row is not there any more.
    """
    numbers, kind = folder.completed_folds(config.folds.count), config.kind
    lines = measure_folds(folder, config, numbers, config.ensemble.checkpoint)
    table = pa.concat_tables(list(rows.read(rows.batch_rows)))
    position = {row_id: n for n, row_id in enumerate(table[rows.id_column].to_pylist())}
    folds = []
    for fold, of_fold in zip(numbers, lines, strict=True):
        wanted = max(2, round(most_rows * len(of_fold) / sum(map(len, lines))))
        chosen = np.sort(np.random.default_rng(fold).permutation(len(of_fold))[:wanted])
        ids: list[str] = of_fold["id"].take(chosen).to_pylist()
        if missing := [row_id for row_id in ids if row_id not in position]:
            raise RunError(f"{rows.path} has no row {missing[0]!r}, which the run was trained on: put its data back")
        model = open_model(folder, config, rows, fold)
        target_N, _ = kind.split(of_fold)
        block = table.take([position[row_id] for row_id in ids])
        folds.append(FoldRows(fold, np.array(ids), block, target_N[chosen], bind_model(model)))
    return folds


def open_model(folder: RunFolder, config: RunConfig, rows: Any, fold: int) -> Any:
    """The predictor of a fold's model."""
    models = read_models(folder, config, [fold])
    return load_predict_module(config.family).Predictor(models, rows, "cpu", max(1, os.cpu_count() or 1))


def bind_model(model: Any) -> Callable[[pa.Table], np.ndarray]:
    """What a predictor of one model says of a block, as the kind keeps it."""

    def predict(block: pa.Table) -> np.ndarray:
        found = model.predict(block)
        if not isinstance(found, BlockPredictions):
            raise RunError(f"{type(found).__name__} is what the family predicts: expected numbers or classes of rows")
        first_N: np.ndarray = found.prediction[0]
        return first_N

    return predict


def _predict_shuffled(folds: Sequence[FoldRows], columns: Sequence[str], repeat: int) -> np.ndarray:
    """What the folds' models say of their rows with some columns, together, of other rows."""
    parts = []
    for number, one in enumerate(folds):
        order = np.random.default_rng([repeat, number]).permutation(len(one.block))
        block = one.block
        for name in columns:
            place = block.column_names.index(name)
            block = block.set_column(place, block.field(place), block[name].take(order))
        parts.append(one.predict(block))
    return np.concatenate(parts)


def _measure(config: RunConfig, name: str, target_N: np.ndarray, predictions_CN: np.ndarray) -> Importance:
    """Of the rows as they are, and of those of each repeat."""
    errors_C, drawn_DC = config.kind.draw_errors(config.ensemble.metric, target_N, predictions_CN, None, _NUM_DRAWS)
    growth_R, growth_DR = errors_C[1:] - errors_C[0], drawn_DC[:, 1:] - drawn_DC[:, :1]
    repeats = np.random.default_rng(0).integers(0, len(growth_R), growth_DR.shape)
    means_D = np.take_along_axis(growth_DR, repeats, axis=1).mean(axis=1)  # rows and repeats are drawn
    low, high = np.quantile(means_D, [0.025, 0.975])
    return Importance(name, float(growth_R.mean()), float(low), float(high), float(errors_C[0]))
