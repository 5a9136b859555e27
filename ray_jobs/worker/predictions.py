"""The predictions of a fold's ranks, as one file in the order of the rows. What a prediction is, its kind knows.

Large ones are never in memory as a whole: parts of them wait in hidden files, of which the file is made at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.kinds import Kind
from ensemble.predictions import PredictionError
from ray_jobs.runs.files import join_parquet, write_parquet
from ray_jobs.worker.ranks import Ranks

AT_ONCE = 16  # that a rank sends
PART_BYTES = 2**26
_TABLE_BYTES = 2**14  # of a table beside its rows: of maps each is one of its own


def gather_predictions(
    ranks: Ranks, kind: Kind, predictions: Iterable[Any], touch: Callable[[], None], **whose: Any
) -> Iterator[pa.Table]:
    """On rank 0 what all ranks predict, a table for each prediction, encoded as soon as it is there. Every rank has to
    take all that comes.

    Args:
        ranks: of the fold.
        kind: of the predictions.
        predictions: this rank's, as the kind has them.
        touch: called with each.
        whose: fold, checkpoint and member.
    """

    def tabulate() -> Iterator[pa.Table]:
        for one in predictions:
            touch()
            yield kind.tabulate(one, **whose)

    return ranks.stream_to_first(tabulate(), AT_ONCE)


def arrange(tables: Iterable[pa.Table], ids: np.ndarray) -> Iterator[pa.Table]:
    """The rows of tables in the order of ids, (n,) str: each row as soon as all before it are there.

    Raises:
        PredictionError: a row is missing, or was predicted twice.
    """
    position = {row_id: number for number, row_id in enumerate(ids.tolist())}
    is_there_N, num_found, num_given, is_wrong = np.zeros(len(ids), bool), 0, 0, False
    waiting: list[tuple[pa.Table, np.ndarray]] = []
    for table in tables:
        places = np.array([position.get(row_id, -1) for row_id in table["id"].to_pylist()], int)
        num_found += len(places)
        is_odd = (places < 0).any() or is_there_N[places].any() or len(np.unique(places)) < len(places)
        is_wrong = is_wrong or bool(is_odd)
        is_there_N[places[places >= 0]] = True
        if is_wrong:
            waiting.clear()  # the others are only counted, for the message
            continue
        waiting.append((table, places))
        end = num_given
        while end < len(ids) and is_there_N[end]:
            end += 1
        if end > num_given or not len(ids):
            ready, *waiting = _split(waiting, end)
            num_given = end
            yield ready[0]
    if num_found != len(ids) or not is_there_N.all():
        missing = next((repr(row_id) for row_id, place in position.items() if not is_there_N[place]), "no id")
        raise PredictionError(f"{num_found} predictions for {len(ids)} rows: expected one each; missing is {missing}")


def _split(waiting: list[tuple[pa.Table, np.ndarray]], end: int) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """The rows before an end, in order, and those that still wait, if there are any."""
    table = pa.concat_tables([table for table, _ in waiting])
    places = np.concatenate([places for _, places in waiting])
    is_ready = places < end
    if not is_ready.all() or (np.diff(places) < 0).any():
        rows = np.flatnonzero(is_ready)
        yield table.take(rows[np.argsort(places[rows])]), places[is_ready]
    else:
        yield table, places  # without a copy
    if not is_ready.all():
        yield table.filter(pa.array(~is_ready)), places[~is_ready]


def save_in_parts(
    path: Path, tables: Iterable[pa.Table], write: Callable[[Callable[[], None]], None], most_bytes: int = PART_BYTES
) -> None:
    """Writes a Parquet file of tables, of which about so many bytes are in memory at a time.

    Args:
        path: of the file.
        tables: in order; at least one.
        write: calls what it is given until the storage has taken it.
        most_bytes: of a part. What is smaller has no parts: it is written at once.
    """
    parts: list[Path] = []
    held: list[pa.Table] = []
    num_bytes = 0

    def put_aside() -> None:
        parts.append(path.with_name(f".{path.name}.{len(parts)}.tmp"))
        write(partial(write_parquet, parts[-1], _join(held)))
        held.clear()

    for table in tables:
        if num_bytes >= most_bytes:
            put_aside()
            num_bytes = 0
        held.append(table)
        num_bytes += table.nbytes + _TABLE_BYTES
    if not parts:
        write(partial(write_parquet, path, _join(held)))
        return
    put_aside()
    write(partial(join_parquet, path, parts))
    for part in parts:
        with contextlib.suppress(OSError):  # what stays is removed with other leftovers
            part.unlink()


def _join(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables).combine_chunks()
