"""Files that hold the loss of each token of documents. Beside the columns that say whose they are they have

| column         | meaning |
|---|---|
| tokens         | that were predicted: the document's own and the end after it |
| bytes          | of the document in UTF-8 |
| floor          | its entropy in nats; null where it is not known |
| baseline       | its nats by the shares that tokens have in the training documents |
| nats           | the sum of its losses |
| token_nats     | the loss of each token |
| window, stride | tokens that the model saw at most, and by how many the next window was further |

Shape suffixes: N documents, S tokens of all of them, M models.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ensemble.predictions import PredictionError, build_row_columns, match_rows

UNKNOWN = -1.0  # a floor that is not known, in arrays
TRUTH = ("tokens", "bytes", "floor", "baseline")
_KEPT = (*TRUTH, "nats")
_LINE = ("id", "member", "repeat", "fold", "checkpoint", "in_sample", *_KEPT, "window", "stride")


def build_loss_table(losses: Any, *, fold: int, checkpoint: str, member: str = "main") -> pa.Table:
    """A table of one model's losses.

    Args:
        losses: of documents, as `trainers.predictions.TokenLosses` has them.
        fold, checkpoint, member: whose.

    Raises:
        PredictionError: a loss is no finite number from 0, or there is not one for each token.
    """
    tokens_N, nats_S = np.asarray(losses.tokens, np.int64), np.asarray(losses.nats, np.float32)
    who = f"fold {fold} ({checkpoint})"
    if tokens_N.sum() != len(nats_S) or (tokens_N < 1).any():
        raise PredictionError(f"{who}: {len(nats_S)} losses of {tokens_N.sum()} tokens: expected one each")
    ends_N = np.cumsum(tokens_N)
    if not (np.isfinite(nats_S).all() and (nats_S >= 0).all()):
        token = int((~(np.isfinite(nats_S) & (nats_S >= 0))).argmax())
        row = int(np.searchsorted(ends_N, token, side="right"))
        raise PredictionError(
            f"{who}: the loss of a token of {str(losses.ids[row])!r} is {nats_S[token]}: expected a finite number "
            "from 0"
        )
    num = len(tokens_N)
    floor_N = np.asarray(losses.floor, np.float64)
    columns = {
        **build_row_columns(losses.ids, fold=fold, checkpoint=checkpoint, in_sample=False, member=member, repeat=0),
        "tokens": pa.array(tokens_N),
        "bytes": pa.array(np.asarray(losses.bytes, np.int64)),
        "floor": pa.array(floor_N, mask=~np.isfinite(floor_N)),
        "baseline": pa.array(np.asarray(losses.baseline, np.float64)),
        "nats": pa.array(sum_documents(nats_S, tokens_N)),
        "window": pa.array(np.full(num, losses.window, np.int32)),
        "stride": pa.array(np.full(num, losses.stride, np.int32)),
        "token_nats": pa.LargeListArray.from_arrays(pa.array(np.concatenate([[0], ends_N])), pa.array(nats_S)),
    }
    return pa.table(columns)


def sum_documents(nats_S: np.ndarray, tokens_N: np.ndarray) -> np.ndarray:
    """The nats of each document, (N,) float64, added up in their order."""
    sums_N: np.ndarray = np.add.reduceat(nats_S.astype(np.float64), np.cumsum(tokens_N) - tokens_N)
    return sums_N


def read_lines(path: Path) -> pa.Table:
    """A line for each document of a prediction file, without the losses of its tokens.

    Raises:
        PredictionError: it is missing or damaged, or holds no losses of tokens.
    """
    return _read(path, list(_LINE))


def read_losses(path: Path) -> pa.Table:
    """As `read_lines`, with the losses of the tokens."""
    return _read(path, [*_LINE, "token_nats"])


def _read(path: Path, columns: list[str]) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            if missing := set(columns) - set(file.schema_arrow.names):
                names = ", ".join(sorted(missing))
                raise PredictionError(f"{path}: no column {names}; expected losses of tokens")
            return file.read(columns=columns)
    except (OSError, pa.ArrowInvalid) as error:
        raise PredictionError(f"{path} is missing or damaged: {error}") from None


def split_kept(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Of each document tokens, bytes, floor (UNKNOWN where it is not known) and baseline, (N, 4), and nats, (N,).

    Raises:
        PredictionError: the columns are not there.
    """
    if missing := [name for name in _KEPT if name not in table.column_names]:
        raise PredictionError(f"predictions without {', '.join(missing)}: these are no losses of tokens")
    truth = [table[name].fill_null(UNKNOWN).to_numpy().astype(np.float64) for name in TRUTH]
    return np.stack(truth, axis=1), table["nats"].to_numpy().astype(np.float64)


def join_kept(target_N: np.ndarray, nats_N: np.ndarray) -> dict[str, pa.Array]:
    """The same as columns."""
    tokens_N, bytes_N, floor_N, baseline_N = np.ascontiguousarray(target_N.T)
    return {
        "tokens": pa.array(tokens_N.astype(np.int64)),
        "bytes": pa.array(bytes_N.astype(np.int64)),
        "floor": pa.array(floor_N, mask=floor_N == UNKNOWN),
        "baseline": pa.array(baseline_N),
        "nats": pa.array(np.asarray(nats_N, np.float64)),
    }


def read_how(table: pa.Table) -> tuple[int, int]:
    """Window and stride of documents.

    Raises:
        PredictionError: they were not all scored alike.
    """
    windows, strides = (table[name].unique().to_pylist() for name in ("window", "stride"))
    if len(windows) > 1 or len(strides) > 1:
        raise PredictionError(
            f"documents were scored with windows {windows} and strides {strides}, by which perplexities differ: "
            "expected one of each"
        )
    return windows[0], strides[0]


def stack_models(tables: Sequence[pa.Table]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lays the losses of several models for the same documents over one another, matched by id.

    Returns:
        ids (N,) and what is kept of the truth (N, 4), in the order of the first table, and the losses (M, S).

    Raises:
        PredictionError: the tables do not hold the same documents, or as other tokens.
    """
    ids_N, (target_N, _) = np.array(tables[0]["id"].to_pylist()), split_kept(tables[0])
    tokens_N = target_N[:, 0].astype(np.int64)
    stacked_MS = np.empty((len(tables), int(tokens_N.sum())), np.float32)
    for number, (table, places) in enumerate(zip(tables, match_rows(tables), strict=True)):
        own_N = split_kept(table)[0][:, 0].astype(np.int64)
        if (own_N != tokens_N[places]).any():
            raise PredictionError(
                f"model {number} has the documents as other tokens than model 0, so that their losses cannot be put "
                "together: expected one tokenizer for all members"
            )
        nats_S = table["token_nats"].combine_chunks().flatten().to_numpy()
        stacked_MS[number] = _reorder(nats_S, own_N, np.asarray(places), tokens_N)
    return ids_N, target_N, stacked_MS


def _reorder(nats_S: np.ndarray, own_N: np.ndarray, places_N: np.ndarray, tokens_N: np.ndarray) -> np.ndarray:
    """The losses of documents, of which the n-th becomes the `places_N[n]`-th."""
    if (places_N == np.arange(len(places_N))).all():
        return nats_S
    starts_N = np.cumsum(tokens_N) - tokens_N
    moved_S = np.empty_like(nats_S)
    moved_S[spread_rows(starts_N[places_N], own_N)] = nats_S
    return moved_S


def spread_rows(starts_N: np.ndarray, tokens_N: np.ndarray) -> np.ndarray:
    """The places of the tokens of documents that begin at these places, one document after the other."""
    first_N = np.cumsum(tokens_N) - tokens_N
    return np.repeat(starts_N - first_N, tokens_N) + np.arange(int(tokens_N.sum()))
