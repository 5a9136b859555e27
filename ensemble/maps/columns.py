"""What combinations of maps are worth: members on the rows that no member has seen or, of one member, its fold models
on the blend set.

Maps are too large to be held, so rows are read one after another, by all models side by side, and each combination that
is asked for is made of each row and counted. What remains of a row is what `scores.py` keeps.

Shape suffixes: M models, N rows, n some of the rows, C combinations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from ensemble.combination import Combination, normalise_weights, weights_from_scores
from ensemble.maps.combine import choose_classes, combine_maps
from ensemble.maps.files import read_together
from ensemble.maps.scores import count_classes, count_map, measure_error, measure_maps, split_kept
from ensemble.predictions import PredictionError
from ensemble.run import Combinable, Evaluation, Run


@dataclass(frozen=True)
class MapColumns(Combinable):
    """Maps of M models, of which `oof_MN` holds what is kept, (M, N, 2 K).

    Attributes:
        files: of each model those that hold its rows, one after the other.
        threshold: of two classes.
        errors: of each model on its own validation rows, by which it is weighed; None: by those on these rows.
    """

    files: tuple[tuple[Path, ...], ...] = ()
    threshold: float = 0.5
    errors: tuple[float, ...] | None = None

    def take(self, names: Sequence[str]) -> MapColumns:
        """Those of some models."""
        places = self._find(names)
        return replace(
            self,
            names=tuple(names),
            oof_MN=self.oof_MN[places],
            files=tuple(self.files[place] for place in places),
            errors=None if self.errors is None else tuple(self.errors[place] for place in places),
        )

    def predict_cross_fitted(self, hows: Sequence[Combination]) -> list[np.ndarray]:
        """Of each combination what is kept of each row, (N, 2 K), by weights of other folds' rows."""
        return self._combine([_Wish(how, tuple(range(len(self.names))), self._weigh(how)) for how in hows])

    def evaluate(self, candidates: Sequence[tuple[Sequence[str], Combination]]) -> list[Evaluation]:
        """What each combination of some of the models comes to; all in one reading of the rows."""
        folds, parts = np.unique(self.fold_N).tolist(), []
        wishes: list[_Wish] = []
        for names, how in candidates:
            own, places = self.take(names), tuple(self._find(names))
            is_fitted = how.is_fitted and self.errors is None
            own_parts = [own._weigh(how)] + ([own._weigh(how, fold) for fold in folds] if is_fitted else [])
            parts.append(range(len(wishes), len(wishes) + len(own_parts)))
            wishes += [_Wish(how, places, weights_NM) for weights_NM in own_parts]
        counts = self._combine(wishes)
        evaluations = []
        for (_, how), (cross_fitted, *inner) in zip(candidates, parts, strict=True):
            by_fold = zip(folds, inner or [cross_fitted] * len(folds), strict=True)
            rest = [(self.others(fold), counts[place]) for fold, place in by_fold]
            errors = [
                measure_error(how.metric, self.target_N[rows], counts_N[rows]) if rows.any() else np.nan
                for rows, counts_N in rest
            ]
            evaluations.append(Evaluation(counts[cross_fitted], np.array(errors)))
        return evaluations

    def sum_up(self) -> str:
        """A checksum of the files and the threshold."""
        digest = hashlib.sha256(f"{self.threshold}{self.errors}{self.is_ordered}{self.fold_N.tolist()}".encode())
        for path in dict.fromkeys(path for paths in self.files for path in paths):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def _find(self, names: Sequence[str]) -> list[int]:
        return [self.names.index(name) for name in names]

    def _weigh(self, how: Combination, left_out: int | None = None) -> np.ndarray | None:
        """The models' weights for each row, (N, M), from rows of other folds, of folds in time earlier ones (for the
        first all weigh the same); None for a method without weights.

        Args:
            how: of all these models.
            left_out: a fold whose rows, and of folds in time later ones, are not looked at, and have no weights (NaN).
        """
        if how.method != "weighted_mean":
            return None
        if how.weights is not None:
            return np.tile(normalise_weights(how.weights, len(self.names)), (len(self.ids_N), 1))
        if self.errors is not None:
            weights_M = weights_from_scores(np.array(self.errors), how.weight_power)
            return np.tile(weights_M, (len(self.ids_N), 1))
        weights_NM = np.full((len(self.ids_N), len(self.names)), np.nan)
        used_N = np.ones(len(self.ids_N), bool) if left_out is None else self.others(left_out)
        fold_n, is_ordered = self.fold_N[used_N], self.is_ordered
        if len(np.unique(fold_n)) == 1:  # weights are fitted on one half and tried on the other
            fold_n, is_ordered = np.random.default_rng(0).permutation(len(fold_n)) % 2, False
        target_n, oof_Mn, weights_nM = self.target_N[used_N], self.oof_MN[:, used_N], weights_NM[used_N]
        for fold in np.unique(fold_n):
            rest = fold_n < fold if is_ordered else fold_n != fold
            equal_M = np.full(len(self.names), 1 / len(self.names))  # where nothing comes before it in time
            weights_nM[fold_n == fold] = weigh(how, target_n[rest], oof_Mn[:, rest]) if rest.any() else equal_M
        weights_NM[used_N] = weights_nM
        return weights_NM

    def _combine(self, wishes: Sequence[_Wish]) -> list[np.ndarray]:
        """What is kept of each row by each wish, (N, 2 K); zeros where it has no weights."""
        counts_CN = [np.zeros(self.oof_MN.shape[1:], np.int64) for _ in wishes]
        for row, (stored, probability_MCHW) in enumerate(read_together(self.files)):
            assert stored.target_HW is not None, "of these rows the truth is known"
            num_classes, known = count_classes(stored.probability_CHW), {}
            for wish, counts_N in zip(wishes, counts_CN, strict=True):
                weights_M = None if wish.weights_NM is None else wish.weights_NM[row]
                if weights_M is not None and np.isnan(weights_M).any():
                    continue
                key = (wish.places, wish.how.method, None if weights_M is None else weights_M.tobytes())
                if key not in known:
                    chosen_MCHW = probability_MCHW[list(wish.places)]
                    combined_CHW = combine_maps(chosen_MCHW, wish.how.method, weights_M, self.threshold)
                    predicted_HW = choose_classes(combined_CHW, self.threshold)
                    known[key] = count_map(predicted_HW, stored.target_HW, num_classes)[1]
                counts_N[row] = known[key]
        return counts_CN


@dataclass(frozen=True)
class _Wish:
    """A combination of the models at some places, with weights for each row."""

    how: Combination
    places: tuple[int, ...]
    weights_NM: np.ndarray | None


def weigh(how: Combination, target_N: np.ndarray, oof_MN: np.ndarray) -> np.ndarray:
    """Weights of the models by their errors on some rows, (M,)."""
    errors_M = np.array([measure_error(how.metric, target_N, oof_N) for oof_N in oof_MN])
    return weights_from_scores(errors_M, how.weight_power)


def read_columns(run: Run, checkpoint: str) -> MapColumns:
    """The members' maps out of fold or, of one member, its fold models' of the blend set.

    Raises:
        PredictionError: there is no blend set, or files do not belong together.
    """
    if not run.combines_folds:
        files = {
            name: tuple(fold.predictions("validation", checkpoint) for fold in folds)
            for name, folds in run.members.items()
        }
        return _count(run, files, None)
    folds = run.find_blend_models()
    files = dict(zip(run.model_names, ((fold.predictions("blend", checkpoint),) for fold in folds), strict=True))
    own = [measure_maps(fold.predictions("validation", checkpoint), run.ensemble.threshold) for fold in folds]
    return _count(run, files, tuple(measure_error(run.ensemble.metric, *split_kept(table)) for table in own))


def _count(run: Run, files: dict[str, tuple[Path, ...]], errors: tuple[float, ...] | None) -> MapColumns:
    threshold = run.ensemble.threshold
    tables = [pa.concat_tables(measure_maps(path, threshold) for path in paths) for paths in files.values()]
    ids = tables[0]["id"].to_pylist()
    kept = []
    for number, table in enumerate(tables):
        place = {row_id: row for row, row_id in enumerate(table["id"].to_pylist())}
        if set(place) != set(ids) or len(table) != len(ids):
            raise PredictionError(f"{list(files)[number]} has maps of other rows than {next(iter(files))}")
        target_N, prediction_N = split_kept(table)
        kept.append((target_N, prediction_N[[place[row_id] for row_id in ids]]))
    ids_N = np.array(ids)
    has_folds = errors is None and run.num_folds > 1
    fold_N = tables[0]["fold"].to_numpy() if has_folds else run.divide(ids_N)
    kept_MN = np.stack([one for _, one in kept])
    return MapColumns(
        tuple(files), ids_N, fold_N, kept[0][0], kept_MN, run.find_units(ids_N), has_folds and run.is_ordered,
        tuple(files.values()), threshold, errors,
    )  # fmt: skip
