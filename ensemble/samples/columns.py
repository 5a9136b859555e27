"""What the mean of models is worth: members on the rows that no member has seen or, of one member, its fold models on
the blend set or the test rows.

The loss of a mean is the mean of the losses less how far the models' predictions are from their mean (Krogh and
Vedelsby 1994, "Neural Network Ensembles, Cross Validation, and Active Learning"). Losses are exact; the distances come
from the kept places of each row.

Shape suffixes: M models, N rows, S draws of a row, P places.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa

from ensemble.combination import Combination
from ensemble.predictions import PredictionError, match_rows
from ensemble.run import Combinable, Evaluation, Run
from ensemble.samples.files import read_errors, read_loss_table, split_kept
from ensemble.samples.metrics import measure_error


@dataclass(frozen=True)
class SampleColumns(Combinable):
    """Losses of M models, (M, N, S).

    Attributes:
        product_NSMM: mean over the places of the products of the models' errors.
    """

    product_NSMM: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0, 0)))

    def take(self, names: Sequence[str]) -> Self:
        """Those of some models."""
        places = [self.names.index(name) for name in names]
        product = self.product_NSMM[:, :, places][:, :, :, places]
        return replace(self, names=tuple(names), oof_MN=self.oof_MN[places], product_NSMM=product)

    def keep(self, rows_N: np.ndarray) -> Self:
        """Those of some rows."""
        return replace(super().keep(rows_N), product_NSMM=self.product_NSMM[rows_N])

    def find_spread(self) -> np.ndarray:
        """How far the models' predictions are from their mean, a mean square, (N, S)."""
        own_NS = np.einsum("nsmm->ns", self.product_NSMM) / len(self.names)
        spread_NS: np.ndarray = np.maximum(own_NS - self.product_NSMM.mean(axis=(2, 3)), 0)
        return spread_NS

    def average(self) -> np.ndarray:
        """The losses of the mean of the models, (N, S)."""
        loss_NS: np.ndarray = self.oof_MN.mean(axis=0) - self.find_spread()
        return loss_NS

    def predict_cross_fitted(self, hows: Sequence[Combination]) -> list[np.ndarray]:
        """Of each combination the losses of each row, (N, S); nothing is fitted."""
        return [self.average() for _ in hows]

    def evaluate(self, candidates: Sequence[tuple[Sequence[str], Combination]]) -> list[Evaluation]:
        """What each combination of some of the models comes to."""
        evaluations = []
        for names, how in candidates:
            loss_NS, inner = self.take(names).average(), []
            for fold in np.unique(self.fold_N):
                rest_N = self.others(fold)
                known = rest_N.any()
                inner.append(measure_error(how.metric, self.target_N[rest_N], loss_NS[rest_N]) if known else np.nan)
            evaluations.append(Evaluation(loss_NS, np.array(inner)))
        return evaluations

    def sum_up(self) -> str:
        """A checksum of all values, and of their order."""
        digest = hashlib.sha256(b"ordered" * self.is_ordered)
        for values in (self.oof_MN, self.target_N, self.fold_N.astype(np.int64), self.product_NSMM):
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()


def read_columns(run: Run, checkpoint: str) -> SampleColumns:
    """Out of fold, of the members that are combined; with one member, of the blend set by each of its fold models.

    Raises:
        PredictionError: there is no blend set, files do not belong together, or processes differ.
    """
    if run.combines_folds:
        if not run.has_blend_set:
            raise PredictionError(
                "with one member, the mean of its fold models can only be scored on rows that all of them predict "
                "unseen: add members, pictures that no fold learns from, or a blend set (folds.blend_fraction=0.1)"
            )
        columns = read_fold_models(run, "blend", checkpoint)
        return replace(columns, fold_N=run.divide(columns.ids_N), unit_N=run.find_units(columns.ids_N))
    files = [[fold.predictions("validation", checkpoint) for fold in folds] for folds in run.members.values()]
    columns = _read_models(tuple(run.members), files)
    has_folds = run.num_folds > 1
    fold_N = columns.fold_N if has_folds else run.divide(columns.ids_N)
    is_ordered = has_folds and run.is_ordered
    return replace(columns, fold_N=fold_N, unit_N=run.find_units(columns.ids_N), is_ordered=is_ordered)


def read_fold_models(run: Run, part: str, checkpoint: str) -> SampleColumns:
    """What is combined on the blend set or the test rows: fold models of all members, one after the other."""
    files = [[fold.predictions(part, checkpoint)] for folds in run.members.values() for fold in folds]
    names = [f"{name} {fold}" for name in run.members for fold in run.folds]
    return _read_models(run.model_names if run.combines_folds else tuple(names), files)


def _read_models(names: tuple[str, ...], files: Sequence[Sequence[Path]]) -> SampleColumns:
    tables = [pa.concat_tables(read_loss_table(path) for path in paths) for paths in files]
    target_N, first_NS = split_kept(tables[0])
    ids, oof_MNS = tables[0]["id"].to_pylist(), np.empty((len(tables), *first_NS.shape))
    for number, (table, places) in enumerate(zip(tables, match_rows(tables), strict=True)):
        own_N, loss_NS = split_kept(table)
        if own_N.shape != target_N.shape or not np.allclose(own_N, target_N[places]):
            raise PredictionError(
                f"model {number} ({names[number]}) predicts rows that were turned into noise differently than model "
                "0's: combine models of one process (process.…) and one size of pictures (data.size)"
            )
        oof_MNS[number, places] = loss_NS
    product_NSMM = _multiply(files, ids, first_NS.shape[1])
    return SampleColumns(
        names, np.array(ids), tables[0]["fold"].to_numpy(), target_N, oof_MNS, product_NSMM=product_NSMM
    )


def _multiply(files: Sequence[Sequence[Path]], ids: Sequence[str], num_draws: int) -> np.ndarray:
    """Mean over the places of the products of errors, (N, S, M, M); a block of rows of all models is in memory."""
    blocks = zip(*(read_errors(paths, ids, num_draws) for paths in files), strict=True)
    parts = []
    for block in blocks:
        error_MnSP = np.stack(block)
        parts.append(np.einsum("mnsp,knsp->nsmk", error_MnSP, error_MnSP, dtype=np.float64) / error_MnSP.shape[-1])
    return np.concatenate(parts)
