"""Generative models of rows: what they are worth is the loss of unseen rows at fixed times and noise. Light."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble.combination import Combination
from ensemble.config import EnsembleConfig
from ensemble.kinds import Kind, Metric, Offer
from ensemble.pictures import Picture
from ensemble.run import Combinable, FoldFiles, Materials, Model, Run, Submission

if TYPE_CHECKING:
    import pyarrow as pa

    from ensemble.samples.columns import SampleColumns
    from ensemble.samples.new_rows import SampleCombiner

_BINS = (
    "t below 0.15",
    "t from 0.15 to 0.3",
    "t from 0.3 to 0.45",
    "t from 0.45 to 0.6",
    "t from 0.6 to 0.8",
    "t from 0.8",
)
_TITLES = {"v_loss": "v-loss"} | {f"v_loss_bin_{number}": f"v-loss, {bin}" for number, bin in enumerate(_BINS)}


class Samples(Kind):
    """The kind."""

    name = "samples"
    title = "samples"
    methods: Sequence[str] = ("mean",)
    refused: Mapping[str, str] = {
        "soup": "the mean of weights means nothing where folds began with different initial weights, as their weights "
        "do not correspond; mean is the mean of what the models predict"
    }
    scores: Sequence[str] = tuple(_TITLES)
    offers: frozenset[Offer] = frozenset(("members", "sweep", "leaderboard", "tuning"))
    constant = "always the mean grey"
    files: Mapping[str, str] = {
        "folds/<i>/predictions/<rows>_<checkpoint>.parquet": (
            "of each validation, blend or test row its losses at its own times and noise, and errors from which those "
            "of a mean of models follow; samples_best: pictures that the model has made, and the nearest rows"
        ),
        "oof.parquet": (
            "of each row that some fold validated: its times and losses, by the model that did not train on it, beside "
            "those of the best possible model, where it is known, and of one that has the training rows by heart"
        ),
        "ensemble/test_predictions.parquet": (
            "of each test row: each model's mean loss, that of the mean of their predictions, and how far these are "
            "from their mean"
        ),
        "ensemble/honest_predictions.parquet": (
            "id, fold, times and losses: the combination on the rows that score it (only with members or a blend set)"
        ),
        "submission_<method>.csv": "ID, mean loss of each test row",
        "samples/": "pictures that the models have made: a grid of each fold, the closest pairs with training rows, "
        "and samples.json with what was measured of them",
    }
    records = (
        (
            "submission written",
            {
                "out_of_fold_v_loss": "of samples: v-loss of all rows that some fold validated",
                "out_of_fold_v_loss_bin_0": "of samples: of their draws at times below 0.15; _1 to _5: 0.15 to 0.3, "
                "0.45, 0.6, 0.8 and 1",
            },
        ),
        (
            "submission written",
            {
                "test_v_loss": "of samples: v-loss of the mean of the models' predictions on test rows",
                "test_v_loss_bin_0": "of samples: likewise at times below 0.15, and so on",
            },
        ),
        (
            "report written",
            {
                "figures/loss_of_all_folds": "figure: training and validation losses",
                "figures/loss_by_time": "figure: v-loss by bins of time",
                "figures/samples": "figure: pictures that the first fold's model has made",
                "figures/samples_over_steps": "figure: pictures that it made as it was trained",
                "figures/closest_pairs": "figure: samples beside their nearest training and unseen pictures",
                "figures/agreement_of_folds": "figure: what folds make of the same noise",
            },
        ),
    )
    records_scores = True

    def describe_metric(self, name: str) -> Metric:
        """How a metric's values are read."""
        return Metric(name, _TITLES.get(name, name))

    def check_metric(self, name: str, read_targets: Callable[[], np.ndarray] | None = None) -> None:
        """Raises ValueError for other metrics than these."""
        from ensemble.samples.metrics import check_metric

        check_metric(name)

    def tabulate(self, prediction: Any, *, fold: int, checkpoint: str, member: str) -> pa.Table:
        """The rows of a block of losses, or of samples."""
        if hasattr(prediction, "pictures"):
            from ensemble.samples.sample_files import build_sample_table

            return build_sample_table(prediction, fold=fold, checkpoint=checkpoint, member=member)
        from ensemble.samples.files import build_loss_table

        one = prediction
        columns = (one.ids, one.time_NS, one.loss_NS, one.square_N, one.error_NSP, one.process, one.references)
        return build_loss_table(*columns, fold=fold, checkpoint=checkpoint, member=member)

    def measure(self, path: Path, ensemble: EnsembleConfig) -> pa.Table:
        """The file without what only combining needs."""
        from ensemble.samples.files import read_loss_table

        return read_loss_table(path)

    def split(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """What turned a row into noise, its mean square and times, (N, 5 + S); and its losses, (N, S)."""
        from ensemble.samples.files import split_kept

        return split_kept(table)

    def join(self, target_N: np.ndarray, prediction_N: np.ndarray) -> dict[str, pa.Array]:
        """Both as columns."""
        from ensemble.samples.files import join_kept

        return join_kept(target_N, prediction_N)

    def explain_difference(self, target: np.ndarray, other: np.ndarray) -> str | None:
        """Losses under different processes are not compared."""
        from ensemble.samples.files import PROCESS
        from ensemble.samples.metrics import explain_processes

        same = np.array_equal(target[: len(PROCESS)], other[: len(PROCESS)])
        return None if same else explain_processes(target, other)

    def score(self, target_N: np.ndarray, prediction_N: np.ndarray, metric: str) -> dict[str, float | None]:
        """Every score."""
        from ensemble.samples.metrics import score_samples

        return score_samples(target_N, prediction_N)

    def describe_out_of_fold(self, lines: pa.Table, *, is_ordered: bool) -> dict[str, Any]:
        """The losses by bins of time with standard errors, beside floor, memoriser and the mean grey."""
        from ensemble.samples.outcome import describe_losses

        return {"by_time": describe_losses(lines)}

    def score_constant(
        self, target_N: np.ndarray, constant_N: np.ndarray | None, metric: str
    ) -> dict[str, float | None]:
        """Of a model that always predicts the mean grey."""
        from ensemble.samples.metrics import score_samples, score_zero

        return score_samples(target_N, score_zero(target_N))

    def measure_error(self, metric: str, target_N: np.ndarray, prediction_N: np.ndarray) -> float:
        """The error by a metric."""
        from ensemble.samples.metrics import measure_error

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
        from ensemble.samples.metrics import draw_errors

        return draw_errors(metric, target_N, predictions_CN, unit_N, num_draws, seed)

    def read_combination(self, ensemble: EnsembleConfig) -> Combination:
        """Without a space: clean pictures are averaged."""
        return replace(Combination.from_config(ensemble), space=None)

    def list_combinations(self, ensemble: EnsembleConfig, *, for_sweep: bool) -> list[Combination]:
        """The mean."""
        return [Combination("mean", None, ensemble.metric)]

    def read_columns(self, run: Run, checkpoint: str) -> SampleColumns:
        """As `find_columns`, by a checkpoint; without a blend set there are none of fold models."""
        from ensemble.samples.columns import read_columns

        return read_columns(run, checkpoint)

    def submit(
        self,
        run: Run,
        columns: Combinable | None,
        read_scores: Callable[[], Mapping[str, Any]],
        models: Sequence[Model],
        materials: Materials,
    ) -> Submission:
        """The losses of test rows."""
        from ensemble.samples.submission import submit

        return submit(run, models)

    def build_combiner(self, run: Run, read_scores: Callable[[], Mapping[str, Any]]) -> SampleCombiner:
        """The mean of all fold models, for new rows."""
        from ensemble.samples.new_rows import build_combiner

        return build_combiner(run)

    def draw_out_of_fold(
        self, ensemble: EnsembleConfig, folds: Sequence[FoldFiles], lines: pa.Table, materials: Materials
    ) -> None:
        """Grids of samples, and the closest pairs with training rows."""
        from ensemble.samples.gallery import draw_samples

        draw_samples(folds, materials)

    def describe_scale(self, facts: Mapping[str, Any]) -> str:
        """Clean pictures are averaged."""
        return "over predicted clean pictures"

    def load_pictures(self) -> Sequence[str | Picture]:
        """Losses by time, samples, and how near they are to training rows."""
        from ensemble.samples.figures import PICTURES

        return PICTURES


KIND: Kind = Samples()
