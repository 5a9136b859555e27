"""The one schema of every prediction file: validation and test predictions of each model, and `oof.parquet`.

| column        | meaning |
|---|---|
| id            | the row's id |
| member        | recipe within the run (`main` where there is one) |
| repeat        | repetition of the K-fold plan, from 0 |
| fold          | fold model that made the prediction |
| checkpoint    | `best` or `final` |
| in_sample     | whether that model was trained on the row |
| target        | the true value; null for test rows |
| prediction    | in the target's unit |
| prediction_z  | on the model's own scale |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("member", pa.string(), nullable=False),
        pa.field("repeat", pa.int32(), nullable=False),
        pa.field("fold", pa.int32(), nullable=False),
        pa.field("checkpoint", pa.string(), nullable=False),
        pa.field("in_sample", pa.bool_(), nullable=False),
        pa.field("target", pa.float64()),
        pa.field("prediction", pa.float64(), nullable=False),
        pa.field("prediction_z", pa.float64(), nullable=False),
    ]
)


class PredictionError(ValueError):
    """Prediction files that do not belong together, or are no predictions."""


def read_table(path: Path) -> pa.Table:
    """A prediction file, or another Parquet table.

    Raises:
        PredictionError: it is missing or damaged.
    """
    try:
        # Not by pq.read_table, which imports pyarrow.dataset when it is first called, perhaps in a thread.
        with pq.ParquetFile(path) as file:
            return file.read()
    except (OSError, pa.ArrowInvalid) as error:
        raise PredictionError(f"{path} is missing or damaged: {error}") from None


def build_table(
    ids: np.ndarray,
    prediction: np.ndarray,
    prediction_z: np.ndarray,
    target: np.ndarray,
    *,
    fold: int,
    checkpoint: str,
    in_sample: bool = False,
    member: str = "main",
    repeat: int = 0,
) -> pa.Table:
    """A table of one model's predictions.

    Args:
        ids: (n,) str.
        prediction, prediction_z: (n,) float.
        target: (n,) float, NaN where unknown.

    Raises:
        PredictionError: a prediction is NaN or infinite.
    """
    n = len(ids)
    for name, values in (("prediction", prediction), ("prediction_z", prediction_z)):
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise PredictionError(
                f"fold {fold} ({checkpoint}): {len(bad)} of {n} values of {name} are not finite; first id "
                f"{str(ids[bad[0]])!r}"
            )
    target = np.asarray(target, np.float64)
    columns = [
        *build_row_columns(
            ids, fold=fold, checkpoint=checkpoint, in_sample=in_sample, member=member, repeat=repeat
        ).values(),
        pa.array(target, mask=np.isnan(target)),
        pa.array(np.asarray(prediction, np.float64)),
        pa.array(np.asarray(prediction_z, np.float64)),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def build_row_columns(
    ids: Sequence[Any] | np.ndarray, *, fold: int, checkpoint: str, in_sample: bool, member: str, repeat: int
) -> dict[str, pa.Array]:
    """What says whose predictions a table of one model holds: the columns that those of all kinds begin with, in their
    order."""
    n = len(ids)
    return {
        "id": pa.array([str(row_id) for row_id in ids], pa.string()),
        "member": pa.array([member] * n, pa.string()),
        "repeat": pa.array(np.full(n, repeat, np.int32)),
        "fold": pa.array(np.full(n, fold, np.int32)),
        "checkpoint": pa.array([checkpoint] * n, pa.string()),
        "in_sample": pa.array(np.full(n, in_sample)),
    }


def match_rows(tables: Sequence[pa.Table]) -> Iterator[list[int]]:
    """Of each table, one after the other, the place that each of its rows has in the first one, matched by id.

    Raises:
        PredictionError: a table does not hold the same ids, each once.
    """
    place = {row_id: index for index, row_id in enumerate(tables[0]["id"].to_pylist())}
    for number, table in enumerate(tables):
        own = table["id"].to_pylist()
        if len(own) != len(place) or set(own) != set(place):
            raise PredictionError(
                f"model {number} predicts {len(own)} rows and model 0 {len(tables[0])}, "
                f"{len(set(own) ^ set(place))} of them not shared"
            )
        yield [place[row_id] for row_id in own]


def stack_models(tables: list[pa.Table]) -> tuple[np.ndarray, np.ndarray]:
    """Lays the predictions of several models for the same rows over one another, matched by id.

    Returns:
        ids (N,) in the order of the first table, and predictions (M, N) in the target's unit.

    Raises:
        PredictionError: the tables do not hold the same ids.
    """
    ids = tables[0]["id"].to_numpy(zero_copy_only=False)
    stacked = np.empty((len(tables), len(ids)))
    for row, table, places in zip(stacked, tables, match_rows(tables), strict=True):
        row[places] = table["prediction"].to_numpy()
    return ids, stacked
