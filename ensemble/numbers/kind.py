"""Predictions that are a number of each row. Light: SciPy and scikit-learn are loaded when something is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble.combination import Combination
from ensemble.config import FITTED_METHODS, METHODS, SPACES, EnsembleConfig
from ensemble.kinds import FoldTargets, Kind, Metric, Offer
from ensemble.pictures import Picture
from ensemble.run import Combinable, Materials, Model, Run, Submission

if TYPE_CHECKING:
    import pyarrow as pa

    from ensemble.members.suspects import Suspects
    from ensemble.numbers.columns import NumberColumns
    from ensemble.numbers.new_rows import NumberCombiner

_METRICS = {
    metric.name: metric
    for metric in (
        Metric("msle", "MSLE"),
        Metric("rmsle", "RMSLE"),
        Metric("mse", "MSE", unit="{target}²"),
        Metric("rmse", "RMSE", unit="{target}"),
        Metric("mae", "MAE", unit="{target}"),
        Metric("log_loss", "log loss", unit="nats"),
    )
}


class Numbers(Kind):
    """The kind; the scorers of scikit-learn are metrics, too, whose values are better the higher they are."""

    name = "number"
    title = "numbers"
    methods: Sequence[str] = (*METHODS, *FITTED_METHODS)
    scores: Sequence[str] = ("msle", "mae", "mse", "rmse")
    offers: frozenset[Offer] = frozenset(("members", "external", "interval", "sweep", "leaderboard", "tuning"))
    constant = "the training rows' log mean"
    records = (
        (
            "with a blend set or members",
            {
                "blend_msle": "error of the combination on the blend set; with members: `ensemble/out_of_fold_msle`",
                "best_member_msle": "error of the best model in it; both names end in `ensemble.metric`",
            },
        ),
        (
            "with `ensemble.seeds`",
            {"seed_std_<member>": "standard deviation of the member's error over the seeds"},
        ),
        (
            "with a blend set or members",
            {
                "ambiguity": "what the mean gains because the models differ (Krogh and Vedelsby 1995)",
                "effective_models": "how many independent models they amount to",
            },
        ),
        (
            "with `ensemble.interval`",
            {
                "interval_level": "level, such as 0.9",
                "interval_kind": "`cv+` or `empirical`",
                "interval_mean_width": "mean width over the rows",
            },
        ),
        (
            "report written",
            {
                "figures/loss_of_all_folds": "figure: training and validation losses",
                "figures/final_predictions": "figure: the submitted predictions",
            },
        ),
    )
    files: Mapping[str, str] = {
        "oof.parquet": "for each member one prediction of each row that some fold validated, by the model that did not "
        "train on it",
        "ensemble/test_predictions.parquet": (
            "each model's prediction of each test row, the combined one, their standard deviation"
        ),
        "ensemble/honest_predictions.parquet": (
            "id, fold, target, prediction: the combination on the rows that score it, by weights that did not see the"
            " row (only with members or a blend set)"
        ),
        "submission_<method>.csv": "ID and prediction",
    }

    def describe_metric(self, name: str) -> Metric:
        """How a metric's values are read."""
        return _METRICS.get(name) or Metric(name, name, higher_is_better=True)

    def check_metric(self, name: str, read_targets: Callable[[], np.ndarray] | None = None) -> None:
        """Raises ValueError where a metric is unknown or not defined for such targets."""
        from ensemble.numbers.metrics import check_metric, measure_error

        if read_targets is None:
            check_metric(name)
        else:
            target_N = read_targets()
            measure_error(name, target_N, target_N)

    def can_weigh_by(self, name: str) -> bool:
        """Not by a scorer, whose negative may be below 0."""
        return name in _METRICS

    def check_run(self, run: Run) -> None:
        """Raises ValueError where no interval can be had from such folds, PredictionError where `ensemble.external`
        does not belong to these rows and folds."""
        if run.ensemble.interval is not None:
            from ensemble.members.cv_plus import interval_kind

            interval_kind(run.fold_kind, run.ensemble.checkpoint)
        from ensemble.numbers.columns import read_external

        read_external(run)

    def predict_constant(self, train_target_N: np.ndarray, target_N: np.ndarray | None = None) -> float:
        """The best constant for MSLE."""
        from ensemble.numbers.scores import predict_constant

        return predict_constant(train_target_N)

    def note_targets(
        self, name: str, target_N: np.ndarray, folds: Sequence[FoldTargets], classes: Sequence[str]
    ) -> list[str]:
        """Where all rows, or all that train a fold, have the same target."""
        if (target_N == target_N[0]).all():
            return [
                f"target {name} is {target_N[0]:g} in all {len(target_N):,} training rows: there is nothing to learn, "
                "and no model can beat that constant. Is it the right column?"
            ]
        trained = [fold.trained_n for fold in folds]
        alike = [str(number) for number, values_n in enumerate(trained) if (values_n == values_n[0]).all()]
        if not alike:
            return []
        which = f"fold{'s' * (len(alike) > 1)} {', '.join(alike)}"
        return [f"target {name} is the same in all rows that train {which}: there is nothing to learn from them"]

    def tabulate(self, prediction: Any, *, fold: int, checkpoint: str, member: str) -> pa.Table:
        """The rows of a block of numbers."""
        from ensemble.predictions import build_table

        columns = (prediction.ids, prediction.prediction, prediction.prediction_z, prediction.target)
        return build_table(*columns, fold=fold, checkpoint=checkpoint, member=member)

    def measure(self, path: Path, ensemble: EnsembleConfig) -> pa.Table:
        """The file as it is."""
        from ensemble.predictions import read_table

        return read_table(path)

    def split(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """True value and prediction of each row, (N,) and (N,), in the target's unit."""
        return table["target"].to_numpy(), table["prediction"].to_numpy()

    def join(self, target_N: np.ndarray, prediction_N: np.ndarray) -> dict[str, pa.Array]:
        """Both as columns."""
        import pyarrow as pa

        return {"target": pa.array(target_N), "prediction": pa.array(prediction_N)}

    def score(self, target_N: np.ndarray, prediction_N: np.ndarray, metric: str) -> dict[str, float | None]:
        """msle, mae, mse, rmse and another metric."""
        from ensemble.numbers.scores import score

        return score(target_N, prediction_N, metric)

    def find_suspects(self, lines: pa.Table) -> Suspects:
        """By the standardised residual."""
        from ensemble.members.suspects import Suspects, judge_numbers

        target_N, prediction_N = self.split(lines)
        words = ([f"{value:.6g}" for value in values_N] for values_N in (target_N, prediction_N))
        return Suspects(judge_numbers(target_N, prediction_N), *words)

    def score_constant(
        self, target_N: np.ndarray, constant_N: np.ndarray | None, metric: str
    ) -> dict[str, float | None]:
        """Of the training rows' log mean."""
        assert constant_N is not None, "a constant was predicted"
        return self.score(target_N, constant_N, metric)

    def measure_error(self, metric: str, target_N: np.ndarray, prediction_N: np.ndarray) -> float:
        """The error by a metric."""
        from ensemble.numbers.metrics import measure_error

        return measure_error(metric, target_N, prediction_N)

    def draw_errors(
        self,
        metric: str,
        target_N: np.ndarray,
        predictions_CN: np.ndarray,
        unit_N: np.ndarray | None = None,
        num_draws: int | None = None,
        seed: int = 0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Errors on all rows and on drawn ones."""
        from ensemble.numbers.metrics import draw_errors

        return draw_errors(metric, target_N, predictions_CN, unit_N, num_draws, seed)

    def list_combinations(self, ensemble: EnsembleConfig, *, for_sweep: bool) -> list[Combination]:
        """Every method in the config's space, or all of all."""
        from ensemble.numbers.methods.combinations import TRIMS, WEIGHT_POWERS, list_combinations

        if for_sweep:
            return list_combinations(SPACES, ensemble.metric, TRIMS, WEIGHT_POWERS)
        return list_combinations([ensemble.space], ensemble.metric, [ensemble.trim])

    def read_columns(self, run: Run, checkpoint: str) -> NumberColumns:
        """As `find_columns`, by a checkpoint; without a blend set there are none of fold models."""
        from ensemble.numbers.columns import read_columns

        return read_columns(run, checkpoint)

    def submit(
        self,
        run: Run,
        columns: Combinable | None,
        read_scores: Callable[[], Mapping[str, Any]],
        models: Sequence[Model],
        materials: Materials,
    ) -> Submission:
        """A table of the predictions, and of the ends of their intervals."""
        from ensemble.numbers.submission import submit

        return submit(run, _of_numbers(columns), read_scores, models)

    def build_combiner(self, run: Run, read_scores: Callable[[], Mapping[str, Any]]) -> NumberCombiner:
        """The run's combination, for new rows."""
        from ensemble.numbers.new_rows import build_combiner

        return build_combiner(run, read_scores)

    def describe_scale(self, facts: Mapping[str, Any]) -> str:
        """In a space."""
        return f"in {facts['space']} space"

    def load_pictures(self) -> Sequence[str | Picture]:
        """Of predictions, their errors and how the models differ."""
        from ensemble.numbers.figures import PICTURES

        return PICTURES


def _of_numbers(columns: Combinable | None) -> NumberColumns | None:
    from ensemble.numbers.columns import NumberColumns

    assert columns is None or isinstance(columns, NumberColumns)
    return columns


KIND: Kind = Numbers()
