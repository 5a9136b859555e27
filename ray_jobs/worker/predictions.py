"""The predictions of a fold's ranks, as one table in the order of the rows. What a prediction is, its kind knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.kinds import Kind
from ensemble.predictions import PredictionError
from ray_jobs.worker.ranks import Ranks

AT_ONCE = 16  # that a rank sends


def gather_predictions(
    ranks: Ranks, kind: Kind, predictions: Iterable[Any], touch: Callable[[], None], **whose: Any
) -> list[pa.Table]:
    """On rank 0 what all ranks predict, a table for each prediction, encoded as soon as it is there.

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

    return list(ranks.stream_to_first(tabulate(), AT_ONCE))


def join_in_order(tables: list[pa.Table], ids: np.ndarray) -> pa.Table:
    """One table with a row for each id, (n,) str, in this order.

    Raises:
        PredictionError: a row is missing, or was predicted twice.
    """
    position = {row_id: number for number, row_id in enumerate(ids.tolist())}
    places = [[position.get(row_id, -1) for row_id in table["id"].to_pylist()] for table in tables]
    found = sorted(place for part in places for place in part)
    if found != list(range(len(ids))):
        known = set(found)
        missing = next((repr(row_id) for row_id, place in position.items() if place not in known), "no id")
        raise PredictionError(f"{len(found)} predictions for {len(ids)} rows: expected one each; missing is {missing}")
    # Whole tables first: where each is in order itself no row is copied.
    order = sorted((part, number) for number, part in enumerate(places))
    table = pa.concat_tables([tables[number] for _, number in order])
    rows = np.array([place for part, _ in order for place in part], int)
    return (table if (np.diff(rows) > 0).all() else table.take(np.argsort(rows))).combine_chunks()
