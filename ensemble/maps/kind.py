"""Predictions that are a map of each row: a class of each of its places."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble.combination import Combination
from ensemble.config import MAP_METHODS, EnsembleConfig
from ensemble.kinds import Kind, Metric, Offer
from ensemble.pictures import Picture
from ensemble.run import Combinable, FoldFiles, Materials, Model, Run, Submission

if TYPE_CHECKING:
    import pyarrow as pa

    from ensemble.maps.columns import MapColumns
    from ensemble.maps.new_rows import MapCombiner
    from ensemble.members.suspects import Suspects

_TITLES = {"dice": "Dice", "iou": "IoU", "dice_of_rows": "mean Dice of rows"}
_METRICS = ("dice", "iou")  # by which maps are compared; higher is better
_OF_CLASS = "dice_class_"
_WEIGHT_POWERS = (1.0, 2.0, 4.0, 8.0)  # that a sweep tries


class Maps(Kind):
    """The kind."""

    name = "map"
    title = "maps"
    methods: Sequence[str] = MAP_METHODS
    scores: Sequence[str] = tuple(_TITLES)
    offers: frozenset[Offer] = frozenset(("members", "sweep", "leaderboard", "tuning", "threshold", "truth"))
    constant = "one class everywhere"
    files: Mapping[str, str] = {
        "folds/<i>/predictions/<rows>_<checkpoint>.parquet": (
            "of each validation, blend or test row its probabilities and its true classes, as PNG pictures in the "
            "table, by the best and the final checkpoint"
        ),
        "oof.parquet": (
            "of each row that some fold validated: its true and its predicted share of foreground, Dice and IoU, by "
            "the model that did not train on it"
        ),
        "masks/": "out_of_fold/: the class of each pixel, by the model that did not train on the row; test/: by the "
        "ensemble",
        "overlays/": "the same over the pictures, true edges in white; out of fold at most 100, from the worst Dice to "
        "the best",
        "disagreement/": (
            "test/: the standard deviation of the models' probabilities; white is 0.5, the largest possible value"
        ),
        "ensemble/test_predictions.parquet": (
            "each model's share of foreground in each test row, the ensemble's, the mean disagreement"
        ),
        "ensemble/honest_predictions.parquet": (
            "id, fold and counts of pixels: the combination on the rows that score it, by weights that did not see "
            "the row (only with members)"
        ),
        "submission_<method>.csv": (
            "of each test row: share of foreground, disagreement, mask, and Dice and IoU where the truth is known"
        ),
    }
    records = (
        (
            "submission written",
            {
                "out_of_fold_dice": "of maps: Dice of all pixels that some fold validated",
                "out_of_fold_iou": "of maps: intersection over union of the same pixels",
            },
        ),
        (
            "submission written",
            {
                "test_dice": "of maps: Dice of the ensemble on test pictures with masks",
                "test_iou": "of maps: intersection over union on them",
                "compared": "of maps: table of each fold model and each method on them",
            },
        ),
        (
            "with a blend set or members",
            {
                "out_of_fold_dice_error": "of maps, with members: 1 - Dice of the combination",
                "best_member_dice_error": "of maps, with members: 1 - Dice of the best of them",
            },
        ),
        (
            "report written",
            {
                "figures/loss_of_all_folds": "figure: training and validation losses",
                "figures/example_overlays": "figure: masks over their pictures",
                "figures/dice_of_rows": "figure: Dice of each picture",
                "figures/disagreement": "figure: where the models differ",
            },
        ),
    )
    row_files: Mapping[str, str] = {"masks": ".png", "overlays": ".png", "disagreement": ".png"}
    most_rows_of_a_block = 16  # each takes a while
    records_scores = True

    def describe_metric(self, name: str) -> Metric:
        """How a metric's values are read; higher ones are better."""
        if name.startswith(_OF_CLASS):
            title = f"Dice of class {name.removeprefix(_OF_CLASS)}"
        else:
            title = _TITLES.get(name, name)
        return Metric(name, title, higher_is_better=True, most=1.0)

    def check_metric(self, name: str, read_targets: Callable[[], np.ndarray] | None = None) -> None:
        """Raises ValueError for other metrics than these."""
        if name not in _METRICS:
            raise ValueError(f"expected one of {', '.join(_METRICS)} for maps")

    def tabulate(self, prediction: Any, *, fold: int, checkpoint: str, member: str) -> pa.Table:
        """The row of one map."""
        from ensemble.maps.files import build_map_table, encode_map

        encoded = encode_map(prediction.row_id, prediction.probability_CHW, prediction.target_HW)
        return build_map_table([encoded], fold=fold, checkpoint=checkpoint, member=member)

    def measure(self, path: Path, ensemble: EnsembleConfig) -> pa.Table:
        """Shares of foreground, Dice, IoU and counts of each map."""
        from ensemble.maps.scores import measure_maps

        return measure_maps(path, ensemble.threshold)

    def split(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Counts of true places and of said ones, (N, K + 1) and (N, 2 K)."""
        from ensemble.maps.scores import split_kept

        return split_kept(table)

    def join(self, target_N: np.ndarray, prediction_N: np.ndarray) -> dict[str, pa.Array]:
        """The counts as columns."""
        from ensemble.maps.scores import join_kept

        return join_kept(target_N, prediction_N)

    def score(self, target_N: np.ndarray, prediction_N: np.ndarray, metric: str) -> dict[str, float | None]:
        """Dice and IoU of all places, the mean Dice of the rows, and of several classes the Dice of each."""
        from ensemble.maps.scores import score_maps

        return score_maps(target_N, prediction_N)

    def find_suspects(self, lines: pa.Table) -> Suspects | None:
        """By the lowest Dice of the surest maps; nothing of files from before that was measured."""
        from ensemble.members.suspects import Suspects, judge_maps

        if "confidence" not in lines.column_names:
            return None
        dice_N, sure_N = lines["dice"].to_numpy(), lines["confidence"].to_numpy()
        given = [f"{share:.1%} marked" for share in lines["target"].to_pylist()]
        predicted = [
            f"{share:.1%} (Dice {dice:.2f}, sure {sure:.2f})"
            for share, dice, sure in zip(lines["prediction"].to_pylist(), dice_N, sure_N, strict=True)
        ]
        pictures = [f"overlays/out_of_fold/{row_id}.png" for row_id in lines["id"].to_pylist()]
        return Suspects(judge_maps(dice_N, sure_N), given, predicted, pictures)

    def score_constant(
        self, target_N: np.ndarray, constant_N: np.ndarray | None, metric: str
    ) -> dict[str, float | None]:
        """Of the class that is best said everywhere."""
        from ensemble.maps.scores import score_constant

        return score_constant(target_N, metric)

    def measure_error(self, metric: str, target_N: np.ndarray, prediction_N: np.ndarray) -> float:
        """What is missing to 1."""
        from ensemble.maps.scores import measure_error

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
        from ensemble.maps.scores import draw_errors

        return draw_errors(metric, target_N, predictions_CN, unit_N, num_draws, seed)

    def read_combination(self, ensemble: EnsembleConfig) -> Combination:
        """Without a space, which maps do not have."""
        return replace(Combination.from_config(ensemble), space=None)

    def list_combinations(self, ensemble: EnsembleConfig, *, for_sweep: bool) -> list[Combination]:
        """Every method; for a sweep with several powers of the weights by score."""
        hows = [Combination(method, None, ensemble.metric) for method in self.methods]
        powers = _WEIGHT_POWERS[1:] if for_sweep else ()
        return hows + [replace(hows[self.methods.index("weighted_mean")], weight_power=power) for power in powers]

    def find_columns(self, run: Run) -> MapColumns | None:
        """Of members out of fold; fold models are compared as they are, on the blend set and where the truth of test
        rows is known."""
        return None if run.combines_folds else self.read_columns(run, run.ensemble.checkpoint)

    def read_columns(self, run: Run, checkpoint: str) -> MapColumns:
        """Of members out of fold, of fold models on the blend set."""
        from ensemble.maps.columns import read_columns

        return read_columns(run, checkpoint)

    def submit(
        self,
        run: Run,
        columns: Combinable | None,
        read_scores: Callable[[], Mapping[str, Any]],
        models: Sequence[Model],
        materials: Materials,
    ) -> Submission:
        """Masks, overlays, disagreement, and a table of them."""
        from ensemble.maps.submission import submit

        return submit(run, _of_maps(columns), read_scores, models, materials)

    def build_combiner(self, run: Run, read_scores: Callable[[], Mapping[str, Any]]) -> MapCombiner:
        """The run's combination, for new rows."""
        from ensemble.maps.new_rows import build_combiner

        return build_combiner(run, read_scores)

    def draw_out_of_fold(
        self, ensemble: EnsembleConfig, folds: Sequence[FoldFiles], lines: pa.Table, materials: Materials
    ) -> None:
        """Masks and overlays."""
        from ensemble.maps.submission import draw_out_of_fold

        draw_out_of_fold(ensemble, folds, lines, materials)

    def describe_scale(self, facts: Mapping[str, Any]) -> str:
        """Everywhere alike."""
        return "place by place"

    def load_pictures(self) -> Sequence[str | Picture]:
        """Examples, Dice of rows, and where the models differ."""
        from ensemble.maps.figures import PICTURES

        return PICTURES


def _of_maps(columns: Combinable | None) -> MapColumns | None:
    from ensemble.maps.columns import MapColumns

    assert columns is None or isinstance(columns, MapColumns)
    return columns


KIND: Kind = Maps()
