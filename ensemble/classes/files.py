"""Prediction files of class probabilities: validation and test predictions of each model, and `oof.parquet`.

| column       | meaning |
|---|---|
| id, member, repeat, fold, checkpoint, in_sample | as in `ensemble.predictions` |
| target       | the true class by its name; null for test rows |
| prediction   | the likeliest class by its name |
| target_class | the true class by its number from 0; null for test rows |
| probability  | of each class, in the order of the names that stand in the schema's metadata as `classes` (JSON) |

Shape suffixes: N rows, C classes, M models.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.predictions import PredictionError, build_row_columns, match_rows, read_table

UNKNOWN = -1  # the class of a row whose truth is not known
_CLASSES = b"classes"
_KEPT = ("target_class", "probability")
_TOLERANCE = 1e-3  # by which probabilities may differ from 1 together, as those of half precision do


def build_class_table(
    ids: np.ndarray,
    probability_NC: np.ndarray,
    target_N: np.ndarray,
    classes: Sequence[str],
    *,
    fold: int,
    checkpoint: str,
    in_sample: bool = False,
    member: str = "main",
    repeat: int = 0,
) -> pa.Table:
    """A table of one model's predictions.

    Args:
        ids: (N,) str.
        probability_NC: from 0, of a row adding up to 1.
        target_N: the number of the true class, -1 where unknown.
        classes: (C,) names, in the order of the probabilities.

    Raises:
        PredictionError: a row's values are no probabilities, or a class is not one of these.
    """
    probability_NC, target_N = np.asarray(probability_NC, np.float64), np.asarray(target_N)
    who = f"fold {fold} ({checkpoint})"
    if probability_NC.shape != (len(ids), len(classes)) or target_N.shape != (len(ids),):
        raise PredictionError(
            f"{who}: probabilities {probability_NC.shape} and classes {target_N.shape} of {len(ids)} rows: expected "
            f"({len(ids)}, {len(classes)}) for the {len(classes)} classes, and ({len(ids)},)"
        )
    probability_NC = normalise(probability_NC, ids, who)
    is_known_N = target_N >= 0
    if len(ids) and (target_N.max() >= len(classes) or target_N.min() < UNKNOWN):
        raise PredictionError(
            f"{who}: class numbers from {target_N.min()} to {target_N.max()}: expected -1 (unknown) to "
            f"{len(classes) - 1}"
        )
    names = np.array(classes, dtype=object)
    columns = {
        **build_row_columns(ids, fold=fold, checkpoint=checkpoint, in_sample=in_sample, member=member, repeat=repeat),
        "target": pa.array(names[target_N].tolist(), pa.string(), mask=~is_known_N),
        "prediction": pa.array(names[probability_NC.argmax(axis=1)].tolist(), pa.string()),
        **join_kept(target_N, probability_NC),
    }
    return pa.table(columns, metadata={_CLASSES: json.dumps(list(classes)).encode()})


def normalise(probability_NC: np.ndarray, ids: Sequence[str] | np.ndarray, who: str) -> np.ndarray:
    """Scaled so that each row adds up to 1 as well as float64 can say, (N, C).

    Raises:
        PredictionError: a row's values are no probabilities; it begins with `who` predicts.
    """
    sums_N = probability_NC.sum(axis=1)
    is_bad_N = ~(np.isfinite(probability_NC).all(axis=1) & (probability_NC >= 0).all(axis=1))
    is_bad_N |= ~(np.abs(sums_N - 1) <= _TOLERANCE)
    if is_bad_N.any():
        row = int(is_bad_N.argmax())
        shown = ", ".join(f"{value:.4g}" for value in probability_NC[row, :5]) + ", …" * (probability_NC.shape[1] > 5)
        raise PredictionError(
            f"{who}: {is_bad_N.sum()} of {len(ids)} rows have no probabilities, such as id {str(ids[row])!r}: [{shown}]"
            f" add up to {sums_N[row]:.4g}; expected finite numbers from 0 that add up to 1 (of logits the softmax)"
        )
    normalised_NC: np.ndarray = probability_NC / sums_N[:, None]
    return normalised_NC


def read_class_table(path: Path) -> pa.Table:
    """A prediction file.

    Raises:
        PredictionError: it is missing or damaged, or holds no class probabilities.
    """
    table = read_table(path)
    split_kept(table)
    read_classes(table, str(path))
    return table


def read_classes(table: pa.Table, where: str = "the table") -> tuple[str, ...]:
    """The names of the classes of such a table, in the order of its probabilities.

    Raises:
        PredictionError: it does not say them.
    """
    said = (table.schema.metadata or {}).get(_CLASSES)
    if said is None:
        raise PredictionError(f"{where} does not name its classes: expected them in the schema's metadata, as JSON")
    return tuple(map(str, json.loads(said)))


def join_kept(target_N: np.ndarray, probability_NC: np.ndarray) -> dict[str, Any]:
    """The number of each row's true class and its probabilities, as columns."""
    target_N = np.asarray(target_N)
    probability_NC = np.ascontiguousarray(probability_NC, np.float64)
    starts = pa.array(np.arange(0, probability_NC.size + 1, probability_NC.shape[1], dtype=np.int64))
    return {
        "target_class": pa.array(target_N.astype(np.int32), mask=target_N < 0),
        "probability": pa.LargeListArray.from_arrays(starts, pa.array(probability_NC.ravel())),
    }


def split_kept(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """The number of each row's true class, (N,) int64, -1 where unknown, and its probabilities, (N, C).

    Raises:
        PredictionError: the columns are not there, or rows have other numbers of classes.
    """
    if missing := [name for name in _KEPT if name not in table.column_names]:
        raise PredictionError(f"predictions without {', '.join(missing)}: these are no class probabilities")
    target_N = table["target_class"].fill_null(UNKNOWN).to_numpy().astype(np.int64)
    values = table["probability"].combine_chunks().flatten().to_numpy()
    if len(target_N) == 0 or len(values) % len(target_N):
        raise PredictionError(f"{len(values)} probabilities of {len(target_N)} rows: expected as many for each row")
    return target_N, values.reshape(len(target_N), -1)


def stack_models(tables: Sequence[pa.Table]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lays the predictions of several models for the same rows over one another, matched by id.

    Returns:
        ids (N,) and true classes (N,) in the order of the first table, and probabilities (M, N, C).

    Raises:
        PredictionError: the tables do not hold the same ids, or other classes.
    """
    ids_N = np.array(tables[0]["id"].to_pylist())
    target_N, first_NC = split_kept(tables[0])
    classes, stacked_MNC = read_classes(tables[0]), np.empty((len(tables), *first_NC.shape))
    for number, (table, places) in enumerate(zip(tables, match_rows(tables), strict=True)):
        probability_NC = split_kept(table)[1]
        if read_classes(table) != classes:
            raise PredictionError(f"model {number} predicts other classes than model 0")
        stacked_MNC[number, places] = probability_NC
    return ids_N, target_N, stacked_MNC
