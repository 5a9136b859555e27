"""The `ensemble` section of a config."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

FoldMethod = Literal["mean", "median", "trimmed_mean", "geometric_mean"]
Method = Literal[FoldMethod, "weighted_mean"]
FittedMethod = Literal["simplex", "ridge", "greedy"]
MapMethod = Literal["mean", "median", "weighted_mean", "majority_vote"]
AnswerMethod = Literal["majority_vote", "self_consistency", "mean", "weighted_mean"]
Space = Literal["z", "raw"]
Checkpoint = Literal["best", "final"]
CombinedFolds = Literal["all", "finished"]
FOLD_METHODS, METHODS, FITTED_METHODS, SPACES = map(get_args, (FoldMethod, Method, FittedMethod, Space))
MAP_METHODS, ANSWER_METHODS = get_args(MapMethod), get_args(AnswerMethod)
REFUSED_METHODS = ("soup",)  # no kind has them; one may say why
NOTHING_TO_FIT = (
    f"expected several members, a blend set (folds.blend_fraction=0.1), or one of {', '.join(METHODS)}; its weights "
    "are fitted on rows that no model was trained on, and the fold models of one member have no such rows in common"
)


@dataclass(frozen=True)
class EnsembleConfig:
    """How models' predictions become one: those of the members where there are several, else those of the folds.
    Changing it re-runs the ensemble alone, never a fold."""

    method: Method | FittedMethod | MapMethod | AnswerMethod | str = "mean"
    """trimmed_mean: without the `trim` lowest and highest; geometric_mean: in z space the mean, in raw space 0 where a
    model says 0; weighted_mean: by `weights` where given, else by validation score. simplex, ridge and greedy fit
    weights of the members to their out-of-fold predictions, or of the fold models to the blend set. Of maps: mean,
    median, weighted_mean or majority_vote, place by place. Of answers: majority_vote, self_consistency, mean or
    weighted_mean."""
    space: Space = "z"
    """z: combine log1p of the predictions, the scale in which MSLE lives; raw: the predictions themselves."""
    weights: tuple[float, ...] | None = None
    """One weight for each member in their order or, with one member, for each fold; they are scaled to add up to 1."""
    trim: float = 0.2
    """Share of the models that trimmed_mean leaves out at each end, rounded down: 0.2 of fewer than 5 models is none.
    """
    weight_power: float = 1.0
    """weighted_mean by validation score: weights in proportion to 1 / error to this power; higher trusts the best more.
    """
    checkpoint: Checkpoint = "best"
    """Which checkpoint of each fold predicts. best was chosen on the fold's own validation rows, final was not."""
    folds: CombinedFolds = "all"
    """Which fold models are combined. finished: those of the folds that are finished, of several members in each of
    them; all: there is no submission before all are."""
    interval: float | None = None
    """Level of a prediction interval, such as 0.9: the submission gets two more columns, <target>_low and
    <target>_high."""
    metric: str = "msle"
    """What greedy makes small and combinations are compared by: msle, rmsle, mse, rmse, mae, log_loss or one of
    scikit-learn's scorers."""
    fold_method: FoldMethod = "mean"
    """Where there are several members: how the fold models of each become one."""
    members: tuple[str, ...] | None = None
    """The members to combine, by name, those of `external` included; None: all."""
    seeds: int = 1
    """How often each member is trained, with other seeds: `main`, `main.seed1`, ... All of them are combined. With
    several the intervals of comparisons hold what another seed changes."""
    threshold: float = 0.5
    """Of maps with two classes: from which probability on a place counts as foreground."""
    external: str | None = None
    """Parquet file with predictions made elsewhere, in the schema of oof.parquet: each of its members joins the others.
    """

    def __post_init__(self) -> None:
        known = (*METHODS, *FITTED_METHODS, *MAP_METHODS, *ANSWER_METHODS, *REFUSED_METHODS)
        if self.method not in known:
            raise ValueError(
                f"ensemble.method={self.method}: expected one of {', '.join((*METHODS, *FITTED_METHODS))}, or of "
                f"maps one of {', '.join(MAP_METHODS)}, of answers one of {', '.join(ANSWER_METHODS)}"
            )
        if not 0 < self.threshold < 1:
            raise ValueError(f"ensemble.threshold={self.threshold:g}: expected a probability, above 0 and below 1")
        if self.fold_method not in FOLD_METHODS:
            raise ValueError(f"ensemble.fold_method={self.fold_method}: expected one of {', '.join(FOLD_METHODS)}")
        if self.folds not in get_args(CombinedFolds):
            raise ValueError(f"ensemble.folds={self.folds}: expected one of {', '.join(get_args(CombinedFolds))}")
        if self.members is not None and (not self.members or len(set(self.members)) < len(self.members)):
            raise ValueError(
                f"ensemble.members=[{','.join(self.members)}]: expected names of members, each once, or none for all"
            )
        if not 1 <= self.seeds <= 100:
            raise ValueError(f"ensemble.seeds={self.seeds}: expected 1 to 100 trainings of each member")
        if not 0 <= self.trim < 0.5:
            raise ValueError(f"ensemble.trim={self.trim:g}: expected a share, at least 0 and below 0.5")
        if self.interval is not None and not 0 < self.interval < 1:
            raise ValueError(f"ensemble.interval={self.interval:g}: expected a level, above 0 and below 1, or none")
        if not 0 < self.weight_power <= 100:
            raise ValueError(f"ensemble.weight_power={self.weight_power:g}: expected above 0 and at most 100")
        if self.weights is not None:
            self._check_weights(self.weights)

    def _check_weights(self, weights: tuple[float, ...]) -> None:
        shown = f"[{','.join(f'{weight:g}' for weight in weights)}]"
        if self.method != "weighted_mean":
            raise ValueError(
                f"ensemble.weights={shown}: expected none with ensemble.method={self.method}; only weighted_mean uses "
                "weights"
            )
        if not all(math.isfinite(w) and w >= 0 for w in weights) or not sum(weights) > 0:
            raise ValueError(f"ensemble.weights={shown}: expected finite numbers, at least 0 each and one above 0")
