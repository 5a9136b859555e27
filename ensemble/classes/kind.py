"""Predictions that are the probabilities of C classes of each row. Light: SciPy and scikit-learn are loaded when
something is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble.combination import Combination
from ensemble.config import EnsembleConfig
from ensemble.kinds import FoldTargets, Kind, Metric, Offer
from ensemble.pictures import Picture
from ensemble.run import Combinable, Materials, Model, Run, Submission

if TYPE_CHECKING:
    import pyarrow as pa

    from ensemble.classes.columns import ClassColumns
    from ensemble.classes.new_rows import ClassCombiner
    from ensemble.members.suspects import Suspects

_METRICS = {
    metric.name: metric
    for metric in (
        Metric("log_loss", "log loss", unit="nats"),
        Metric("brier", "Brier score"),
        Metric("accuracy", "accuracy", higher_is_better=True, most=1.0),
        Metric("balanced_accuracy", "balanced accuracy", higher_is_better=True, most=1.0),
        Metric("f1_macro", "macro F1", higher_is_better=True, most=1.0),
        Metric("roc_auc_ovr", "AUC, one against rest", higher_is_better=True, most=1.0),
        Metric("calibration_error", "expected calibration error"),
    )
}
_METHODS = ("mean", "geometric_mean", "median", "weighted_mean", "simplex", "greedy")
_WEIGHT_POWERS = (1.0, 2.0, 4.0, 8.0)  # that a sweep tries


class Classes(Kind):
    """The kind."""

    name = "classes"
    title = "classes"
    methods: Sequence[str] = _METHODS
    scores: Sequence[str] = tuple(_METRICS)
    offers: frozenset[Offer] = frozenset(("members", "interval", "sweep", "leaderboard", "tuning"))
    constant = "the training rows' class shares"
    files: Mapping[str, str] = {
        "oof.parquet": "for each member of each row that some fold validated: true and likeliest class and the "
        "probability of each class, by the model that did not train on it",
        "ensemble/test_predictions.parquet": (
            "each model's class of each test row, the combined one, the standard deviation of its probability over the "
            "models, and the combined probability of each class"
        ),
        "ensemble/honest_predictions.parquet": (
            "id, fold, number of the true class, probabilities: the combination on the rows that score it, by weights "
            "that did not see the row (only with members or a blend set)"
        ),
        "submission_<method>.csv": "ID, likeliest class, probability of each class, and the set of classes (only with "
        "ensemble.interval)",
    }
    records = (
        (
            "submission written",
            {
                "log_loss": "of classes: log loss of all rows that some fold validated (of the first member)",
                "brier": "of classes: Brier score of these rows",
                "accuracy": "of classes: share of these rows whose likeliest class is the true one",
                "balanced_accuracy": "of classes: mean of that over the classes",
                "f1_macro": "of classes: mean F1 of the classes",
                "roc_auc_ovr": "of classes: mean area under the ROC curve of each class against the rest",
                "calibration_error": "of classes: expected calibration error, in 15 bins",
            },
        ),
        (
            "submission written",
            {
                "temperature": "of classes: with the least log loss of these rows; above 1: the model is too sure",
                "log_loss_at_temperature": "of classes: log loss of the rows of a fold at the other folds' temperature",
                "calibration_error_at_temperature": "of classes: likewise",
            },
        ),
        (
            "with `ensemble.interval`",
            {
                "interval_level": "level, such as 0.9",
                "interval_kind": "`cv+` or `empirical`",
                "interval_mean_size": "of classes: mean number of classes in a set",
            },
        ),
        (
            "report written",
            {
                "figures/loss_of_all_folds": "figure: training and validation losses",
                "figures/confusion": "figure: true and predicted classes",
                "figures/reliability": "figure: probabilities against shares that are right",
                "figures/roc": "figure: ROC curve of each class against the rest",
                "figures/confident_errors": "figure: wrong rows of which the model was surest",
            },
        ),
    )

    def describe_metric(self, name: str) -> Metric:
        """How a metric's values are read."""
        return _METRICS.get(name) or Metric(name, name)

    def check_metric(self, name: str, read_targets: Callable[[], np.ndarray] | None = None) -> None:
        """Raises ValueError for other metrics than these, and for an area where all rows are of one class."""
        from ensemble.classes.metrics import check_metric

        check_metric(name)
        if read_targets is not None and name == "roc_auc_ovr" and len(np.unique(read_targets())) < 2:
            raise ValueError("it is not defined for rows of one class")

    def check_run(self, run: Run) -> None:
        """Raises ValueError where no sets of classes can be had from such folds."""
        if run.ensemble.interval is not None:
            from ensemble.members.cv_plus import interval_kind

            interval_kind(run.fold_kind, run.ensemble.checkpoint)

    def predict_constant(self, train_target_N: np.ndarray, target_N: np.ndarray | None = None) -> list[float]:
        """The share of each class among the training rows."""
        every_N = train_target_N if target_N is None else target_N
        counts_C = np.bincount(train_target_N.astype(int), minlength=int(every_N.max()) + 1)
        shares: list[float] = (counts_C / counts_C.sum()).tolist()
        return shares

    def note_targets(
        self, name: str, target_N: np.ndarray, folds: Sequence[FoldTargets], classes: Sequence[str]
    ) -> list[str]:
        """Classes that a fold does not train on or validate, and rare ones."""
        from ensemble.classes.division import note_classes

        return note_classes(name, target_N, folds, classes)

    def tabulate(self, prediction: Any, *, fold: int, checkpoint: str, member: str) -> pa.Table:
        """The rows of a block of class probabilities."""
        from ensemble.classes.files import build_class_table

        columns = (prediction.ids, prediction.probability_NC, prediction.target, prediction.classes)
        return build_class_table(*columns, fold=fold, checkpoint=checkpoint, member=member)

    def measure(self, path: Path, ensemble: EnsembleConfig) -> pa.Table:
        """The file as it is."""
        from ensemble.classes.files import read_class_table

        return read_class_table(path)

    def split(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """The number of each row's true class, (N,), and its probabilities, (N, C)."""
        from ensemble.classes.files import split_kept

        return split_kept(table)

    def join(self, target_N: np.ndarray, prediction_N: np.ndarray) -> dict[str, pa.Array]:
        """Both as columns."""
        from ensemble.classes.files import join_kept

        return join_kept(target_N, prediction_N)

    def score(self, target_N: np.ndarray, prediction_N: np.ndarray, metric: str) -> dict[str, float | None]:
        """Every score."""
        from ensemble.classes.metrics import score_classes

        return score_classes(target_N, prediction_N)

    def describe_out_of_fold(self, lines: pa.Table, *, is_ordered: bool) -> dict[str, Any]:
        """The temperature, and log loss and calibration error before and after."""
        from ensemble.classes.temperature import calibrate_lines

        return {"calibration": calibrate_lines(lines, is_ordered=is_ordered)}

    def find_suspects(self, lines: pa.Table) -> Suspects:
        """By confident learning."""
        from ensemble.classes.files import read_classes
        from ensemble.members.suspects import Suspects, judge_classes

        target_N, probability_NC = self.split(lines)
        names, said_N = read_classes(lines), probability_NC.argmax(axis=1)
        given = [names[number] for number in target_N]
        predicted = [f"{names[number]} ({probability_NC[row, number]:.2f})" for row, number in enumerate(said_N)]
        return Suspects(judge_classes(target_N, probability_NC), given, predicted)

    def score_constant(
        self, target_N: np.ndarray, constant_N: np.ndarray | None, metric: str
    ) -> dict[str, float | None]:
        """Of the training rows' class shares."""
        assert constant_N is not None, "a constant was predicted"
        return self.score(target_N, constant_N, metric)

    def measure_error(self, metric: str, target_N: np.ndarray, prediction_N: np.ndarray) -> float:
        """The error by a metric."""
        from ensemble.classes.metrics import measure_error

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
        from ensemble.classes.metrics import draw_errors

        return draw_errors(metric, target_N, predictions_CN, unit_N, num_draws, seed)

    def read_combination(self, ensemble: EnsembleConfig) -> Combination:
        """Without a space, which probabilities do not have."""
        return replace(Combination.from_config(ensemble), space=None)

    def list_combinations(self, ensemble: EnsembleConfig, *, for_sweep: bool) -> list[Combination]:
        """Every method; for a sweep with several powers of the weights by score."""
        hows = [Combination(method, None, ensemble.metric) for method in self.methods]
        powers = _WEIGHT_POWERS[1:] if for_sweep else ()
        return hows + [replace(hows[self.methods.index("weighted_mean")], weight_power=power) for power in powers]

    def read_columns(self, run: Run, checkpoint: str) -> ClassColumns:
        """As `find_columns`, by a checkpoint; without a blend set there are none of fold models."""
        from ensemble.classes.columns import read_columns

        return read_columns(run, checkpoint)

    def submit(
        self,
        run: Run,
        columns: Combinable | None,
        read_scores: Callable[[], Mapping[str, Any]],
        models: Sequence[Model],
        materials: Materials,
    ) -> Submission:
        """A table of the likeliest classes and of all probabilities."""
        from ensemble.classes.submission import submit

        return submit(run, self.read_combination(run.ensemble), _of_classes(columns), read_scores, models)

    def build_combiner(self, run: Run, read_scores: Callable[[], Mapping[str, Any]]) -> ClassCombiner:
        """The run's combination, for new rows."""
        from ensemble.classes.new_rows import build_combiner

        return build_combiner(run, self.read_combination(run.ensemble), read_scores)

    def load_pictures(self) -> Sequence[str | Picture]:
        """Which classes are taken for which, how far probabilities can be trusted, and the worst errors."""
        from ensemble.classes.figures import PICTURES

        return PICTURES


def _of_classes(columns: Combinable | None) -> ClassColumns | None:
    from ensemble.classes.columns import ClassColumns

    assert columns is None or isinstance(columns, ClassColumns)
    return columns


KIND: Kind = Classes()
