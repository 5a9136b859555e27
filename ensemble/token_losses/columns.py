"""Reads what is combined in a run, token by token: what its members say of documents out of fold, or what the fold
models of its only member say of the blend set; and of the test documents.

Shape suffixes: M models, F fold models of all members, N documents, S tokens of all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import pyarrow as pa

from ensemble.combination import Combination
from ensemble.run import Combinable, Evaluation, Run
from ensemble.token_losses.combine import choose_weights, mix_losses
from ensemble.token_losses.files import read_losses, spread_rows, stack_models, sum_documents
from ensemble.token_losses.scores import measure_error


@dataclass(frozen=True)
class LossColumns(Combinable):
    """Losses of M models: sums of documents, (M, N), and what is kept of their truth, (N, 4).

    Attributes:
        nats_MS: the losses of all tokens, one document after the other.
    """

    nats_MS: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    @property
    def num_tokens(self) -> np.ndarray:
        """Tokens of each document, (N,)."""
        return self.target_N[:, 0].astype(np.int64)

    def take(self, names: Sequence[str]) -> LossColumns:
        """Those of some models."""
        places = [self.names.index(name) for name in names]
        return replace(self, names=tuple(names), oof_MN=self.oof_MN[places], nats_MS=self.nats_MS[places])

    def keep(self, rows_N: np.ndarray) -> Self:
        """Those of some documents."""
        tokens_N = self.num_tokens
        places = spread_rows((np.cumsum(tokens_N) - tokens_N)[rows_N], tokens_N[rows_N])
        return replace(super().keep(rows_N), nats_MS=self.nats_MS[:, places])

    def mix(self, weights_M: np.ndarray | None) -> np.ndarray:
        """The nats of each document by all models together, (N,)."""
        return sum_documents(mix_losses(self.nats_MS, weights_M), self.num_tokens)

    def weigh(self, how: Combination) -> np.ndarray | None:
        """Weights that are fitted to all documents, (M,), if any are; None: equal ones."""
        return choose_weights(how, self.target_N, self.oof_MN, self.nats_MS)

    def predict_cross_fitted(self, hows: Sequence[Combination]) -> list[np.ndarray]:
        """Of each combination the honest nats of each document, (N,)."""
        return [self._cross_fit(how) for how in hows]

    def _cross_fit(self, how: Combination) -> np.ndarray:
        if not how.is_fitted:
            return self.mix(self.weigh(how))
        folds = np.unique(self.fold_N)
        if len(folds) < 2:
            raise ValueError(f"{len(folds)} fold: expected at least 2, as weights are fitted on others")
        cross_fitted_N = np.empty(len(self.ids_N))
        for fold in folds:
            held_N, other_N = self.fold_N == fold, self.others(fold)
            weights_M = self.keep(other_N).weigh(how) if other_N.any() else None
            cross_fitted_N[held_N] = self.keep(held_N).mix(weights_M)
        return cross_fitted_N

    def evaluate(self, candidates: Sequence[tuple[Sequence[str], Combination]]) -> list[Evaluation]:
        """What each combination of some of the models comes to."""
        return [self.take(names)._evaluate(how) for names, how in candidates]

    def _evaluate(self, how: Combination) -> Evaluation:
        cross_fitted_N, inner = self._cross_fit(how), []
        for fold in np.unique(self.fold_N):
            rest_N = self.others(fold)
            if not rest_N.any():
                inner.append(np.nan)
                continue
            inner_N = self._keep_divided(rest_N)._cross_fit(how) if how.is_fitted else cross_fitted_N[rest_N]
            inner.append(measure_error(how.metric, self.target_N[rest_N], inner_N))
        return Evaluation(cross_fitted_N, np.array(inner))

    def _keep_divided(self, rows_N: np.ndarray) -> LossColumns:
        """Some documents; those of a single fold in two parts, so that weights can be fitted on one and tried on the
        other."""
        kept = self.keep(rows_N)
        if len(np.unique(kept.fold_N)) > 1:
            return kept
        part_N = np.random.default_rng(0).permutation(len(kept.fold_N)) % 2
        return replace(kept, fold_N=part_N, is_ordered=False)

    def sum_up(self) -> str:
        """A checksum of all values, and of their order."""
        digest = hashlib.sha256(b"ordered" * self.is_ordered)
        for values in (self.nats_MS, self.target_N, self.fold_N.astype(np.int64)):
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()


def read_columns(run: Run, checkpoint: str) -> LossColumns:
    """Out of fold, of the members that are combined; with one member, of the blend set by each of its fold models.

    Raises:
        PredictionError: there is no blend set, or files do not belong together.
    """
    if run.combines_folds:
        return _read_blend(run, checkpoint)
    tables = [
        pa.concat_tables(read_losses(fold.predictions("validation", checkpoint)) for fold in folds)
        for folds in run.members.values()
    ]
    has_folds = run.num_folds > 1
    ids_N, target_N, nats_MS = stack_models(tables)
    fold_N = tables[0]["fold"].to_numpy() if has_folds else run.divide(ids_N)
    return _build(run, tuple(run.members), ids_N, fold_N, target_N, nats_MS, is_ordered=has_folds and run.is_ordered)


def _read_blend(run: Run, checkpoint: str) -> LossColumns:
    folds = run.find_blend_models()
    ids_N, target_N, nats_MS = stack_models([read_losses(fold.predictions("blend", checkpoint)) for fold in folds])
    return _build(run, run.model_names, ids_N, run.divide(ids_N), target_N, nats_MS, is_ordered=False)


def _build(
    run: Run,
    names: tuple[str, ...],
    ids_N: np.ndarray,
    fold_N: np.ndarray,
    target_N: np.ndarray,
    nats_MS: np.ndarray,
    *,
    is_ordered: bool,
) -> LossColumns:
    tokens_N = target_N[:, 0].astype(np.int64)
    sums_MN = np.stack([sum_documents(nats_S, tokens_N) for nats_S in nats_MS])
    return LossColumns(names, ids_N, fold_N, target_N, sums_MN, run.find_units(ids_N), is_ordered, nats_MS)


def read_test(run: Run, part: str = "test") -> tuple[LossColumns, pa.Table] | None:
    """What is combined, for the test documents: the members' losses, each the mean of its fold models'; with one
    member, those of its fold models. And the first model's file.

    Raises:
        PredictionError: files do not belong together.
    """
    paths = [fold.predictions(part, run.ensemble.checkpoint) for folds in run.members.values() for fold in folds]
    if not paths[0].exists():
        return None
    tables = [read_losses(path) for path in paths]
    ids_N, target_N, nats_FS = stack_models(tables)
    nats_MS = nats_FS if run.combines_folds else combine_folds(nats_FS, [run.num_folds] * len(run.members))
    columns = _build(run, run.model_names, ids_N, np.zeros(len(ids_N), int), target_N, nats_MS, is_ordered=False)
    return columns, tables[0]


def combine_folds(nats_FS: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Of each member the mean of its fold models' probabilities, as losses, (M, S) float32."""
    parts = np.split(nats_FS, np.cumsum(counts)[:-1])
    return np.stack([mix_losses(part_FS) for part_FS in parts]).astype(np.float32)
