"""Prediction files of generative models: losses of validation, blend and test rows, and `oof.parquet`.

| column      | meaning |
|---|---|
| id, member, repeat, fold, checkpoint, in_sample | as in `ensemble.predictions` |
| noise_scale, time_mean, time_spread, clamp | what turned the row into noise: losses are comparable where these agree |
| mean_square | of the row's numbers: what predicting zero comes to, but for the time |
| t           | the times of the row's draws, from 0, noise, to 1 |
| v_loss      | the loss of each draw |
| floor, memoriser | of each draw the loss of the best possible model, where it is known, and of one that has the training rows by heart; null: not known |
| error       | float16, of each draw the errors at the same places of the row; not in oof.parquet |

Shape suffixes: N rows, S draws of a row, P places, M models.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ensemble.predictions import PredictionError, build_row_columns, read_table

PROCESS = ("noise_scale", "time_mean", "time_spread", "clamp")
REFERENCES = ("floor", "memoriser")
NUM_FACTS = len(PROCESS) + 1  # of a row's truth, before its times
_AT_ONCE = 256


def build_loss_table(
    ids: np.ndarray,
    time_NS: np.ndarray,
    loss_NS: np.ndarray,
    square_N: np.ndarray,
    error_NSP: np.ndarray,
    process: Mapping[str, float],
    references: Mapping[str, np.ndarray],
    *,
    fold: int,
    checkpoint: str,
    in_sample: bool = False,
    member: str = "main",
    repeat: int = 0,
) -> pa.Table:
    """A table of one model's losses; arguments as in `trainers.interface.DenoisingLosses`.

    Raises:
        PredictionError: shapes do not fit, or a loss is not finite.
    """
    num_rows, who = len(ids), f"fold {fold} ({checkpoint})"
    if time_NS.shape != loss_NS.shape or error_NSP.shape[:2] != loss_NS.shape or len(loss_NS) != num_rows:
        raise PredictionError(
            f"{who}: times {time_NS.shape}, losses {loss_NS.shape} and errors {error_NSP.shape} of {num_rows} rows: "
            "expected (rows, draws), the same, and (rows, draws, places)"
        )
    bad = np.flatnonzero(~(np.isfinite(loss_NS).all(axis=1) & np.isfinite(error_NSP).all(axis=(1, 2))))
    if len(bad):
        raise PredictionError(
            f"{who}: {len(bad)} of {num_rows} rows have a loss that is not finite, such as id {str(ids[bad[0]])!r}; "
            "lower optimizer.lr, or set optimizer.max_grad_norm"
        )
    facts = np.column_stack([np.full((num_rows, len(PROCESS)), [process[name] for name in PROCESS]), square_N])
    known = {name: _to_lists(references[name]) for name in REFERENCES if name in references}
    nothing = pa.nulls(num_rows, pa.list_(pa.float64()))
    errors = [one.tobytes() for one in np.ascontiguousarray(error_NSP, np.float16)]
    return pa.table(
        {
            **build_row_columns(
                ids, fold=fold, checkpoint=checkpoint, in_sample=in_sample, member=member, repeat=repeat
            ),
            **join_kept(np.column_stack([facts, time_NS]), loss_NS),
            **{name: known.get(name, nothing) for name in REFERENCES},
            "error": pa.array(errors, pa.binary()),
        }
    )


def read_loss_table(path: Path) -> pa.Table:
    """A prediction file, without the errors.

    Raises:
        PredictionError: it is missing or damaged, or holds no such losses.
    """
    table = read_table(path)
    split_kept(table)
    return table.drop_columns(["error"]) if "error" in table.column_names else table


def join_kept(target_N: np.ndarray, loss_NS: np.ndarray) -> dict[str, Any]:
    """What is kept of each row, as columns: (N, NUM_FACTS + S), the process, the mean square and the times; and the
    losses."""
    facts = {name: pa.array(target_N[:, place]) for place, name in enumerate((*PROCESS, "mean_square"))}
    return facts | {"t": _to_lists(target_N[:, NUM_FACTS:]), "v_loss": _to_lists(loss_NS)}


def split_kept(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """What is kept of each row, as `join_kept` has it.

    Raises:
        PredictionError: the columns are not there, or rows have other numbers of draws.
    """
    needed = (*PROCESS, "mean_square", "t", "v_loss")
    if missing := [name for name in needed if name not in table.column_names]:
        raise PredictionError(f"predictions without {', '.join(missing)}: these are no losses of a generative model")
    facts = np.column_stack([table[name].to_numpy() for name in needed[:NUM_FACTS]])
    time_NS, loss_NS = (read_lists(table, name) for name in ("t", "v_loss"))
    if time_NS is None or loss_NS is None or time_NS.shape != loss_NS.shape:
        raise PredictionError(f"{len(table)} rows with other numbers of times than of losses: expected as many")
    return np.column_stack([facts, time_NS]), loss_NS


def read_lists(table: pa.Table, name: str) -> np.ndarray | None:
    """A column of equally long lists, (N, S); None where it is not there or not known of a row."""
    if name not in table.column_names or table[name].null_count or not len(table):
        return None
    values = table[name].combine_chunks().flatten().to_numpy()
    if len(values) % len(table):
        raise PredictionError(f"column {name!r}: {len(values)} values of {len(table)} rows: expected as many of each")
    return np.asarray(values.reshape(len(table), -1))


def read_errors(files: Sequence[Path], ids: Sequence[str], num_draws: int) -> Iterator[np.ndarray]:
    """A model's errors of some rows, block by block in their order: (n, S, P) float32.

    Args:
        files: that hold its rows, one after the other.
        ids: of the rows.
        num_draws: of each.

    Raises:
        PredictionError: a row is not there.
    """
    own = [row_id for path in files for row_id in _read_columns(path, ["id"])["id"].to_pylist()]
    if own == list(ids):
        blocks = (batch for path in files for batch in pq.ParquetFile(path).iter_batches(_AT_ONCE, columns=["error"]))
        contents = (one for block in blocks for one in block["error"].to_pylist())
    else:
        whole = pa.concat_tables(_read_columns(path, ["id", "error"]) for path in files)
        place = {row_id: number for number, row_id in enumerate(own)}
        if lost := [row_id for row_id in ids if row_id not in place]:
            raise PredictionError(f"{files[0]}: no row {lost[0]!r} ({len(lost)} such): expected the other models' rows")
        contents = (whole["error"][place[row_id]].as_py() for row_id in ids)
    waiting: list[bytes] = []
    for number, content in enumerate(contents, start=1):
        waiting.append(content)
        if len(waiting) == _AT_ONCE or number == len(ids):
            yield np.frombuffer(b"".join(waiting), np.float16).reshape(len(waiting), num_draws, -1).astype(np.float32)
            waiting = []


def _read_columns(path: Path, names: list[str]) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            return file.read(names)
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise PredictionError(f"{path} is missing or damaged: {error}") from None


def _to_lists(values_NS: np.ndarray) -> pa.Array:
    values_NS = np.ascontiguousarray(values_NS, np.float64)
    starts = pa.array(np.arange(0, values_NS.size + 1, max(1, values_NS.shape[1]), dtype=np.int32))
    return pa.ListArray.from_arrays(starts, pa.array(values_NS.ravel()))
