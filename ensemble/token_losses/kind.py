"""Predictions that are the loss of each token of a document. Light: what measures and draws is loaded when it is
needed."""

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
from ensemble.run import Combinable, Materials, Model, Run, Submission

if TYPE_CHECKING:
    import pyarrow as pa

    from ensemble.token_losses.columns import LossColumns
    from ensemble.token_losses.new_rows import LossCombiner

_METRICS = {
    metric.name: metric
    for metric in (
        Metric("perplexity", "perplexity a token"),
        Metric("nats_per_token", "loss", unit="nats a token"),
        Metric("bits_per_byte", "bits per byte"),
        Metric("excess_nats", "excess over the entropy", unit="nats a token"),
    )
}
_METHODS = ("mean", "weighted_mean", "simplex")
_WEIGHT_POWERS = (1.0, 2.0, 4.0, 8.0)  # that a sweep tries


class TokenLosses(Kind):
    """The kind. Models become one by the mean of the probabilities that they give each token."""

    name = "token_losses"
    title = "losses of tokens"
    methods: Sequence[str] = _METHODS
    scores: Sequence[str] = tuple(_METRICS)
    offers: frozenset[Offer] = frozenset(("members", "sweep", "leaderboard", "tuning"))
    constant = "the shares of tokens in the training documents"
    files: Mapping[str, str] = {
        "folds/<i>/predictions/<rows>_<checkpoint>.parquet": (
            "of each validation, blend or test document the loss of each of its tokens, by the best and the final "
            "checkpoint; window and stride"
        ),
        "oof.parquet": (
            "for each member of each document that some fold validated: tokens, bytes, nats, its entropy where that is "
            "known, by the model that did not train on it"
        ),
        "ensemble/test_predictions.parquet": (
            "nats of each test document by each model and by all together, their standard deviation, tokens, bytes"
        ),
        "ensemble/honest_predictions.parquet": (
            "id, fold, tokens, bytes, nats: the combination on the documents that score it, by weights that did not "
            "see the document (only with members or a blend set)"
        ),
        "submission_<method>.csv": "ID, nats, tokens, bytes, perplexity and bits per byte of each test document",
    }
    records = (
        (
            "submission written",
            {
                "out_of_fold_perplexity": "of losses: perplexity a token of all documents that some fold validated",
                "out_of_fold_nats_per_token": "of losses: nats a token of these documents",
                "out_of_fold_bits_per_byte": "of losses: bits for each byte of these documents",
                "out_of_fold_excess_nats": "of losses: nats a token above the documents' entropy, where that is known",
            },
        ),
        (
            "submission written",
            {
                "test_perplexity": "of losses: perplexity a token of the test documents by all models together",
                "test_nats_per_token": "of losses: nats a token of the test documents",
                "test_bits_per_byte": "of losses: bits for each byte of the test documents",
                "test_excess_nats": "of losses: nats a token above their entropy, where that is known",
            },
        ),
        (
            "report written",
            {
                "figures/learning_curves": "figure: loss by epoch, and the entropy",
                "figures/losses_of_documents": "figure: bits for each byte of each document",
                "figures/hardest_documents": "figure: the documents with the most bits for each byte",
            },
        ),
    )
    records_scores = True

    def describe_metric(self, name: str) -> Metric:
        """How a metric's values are read."""
        return _METRICS.get(name) or Metric(name, name)

    def check_metric(self, name: str, read_targets: Callable[[], np.ndarray] | None = None) -> None:
        """Raises ValueError for other metrics than these."""
        if name not in _METRICS:
            raise ValueError(f"expected one of {', '.join(_METRICS)}, by which losses of tokens are compared")

    def can_weigh_by(self, name: str) -> bool:
        """Not by what may be below 0."""
        return name in _METRICS and name != "excess_nats"

    def check_run(self, run: Run) -> None:
        """Raises ValueError where fold models are to be combined otherwise than by the mean of probabilities."""
        if not run.combines_folds and run.ensemble.fold_method != "mean":
            raise ValueError(
                f"ensemble.fold_method={run.ensemble.fold_method}: expected mean, as only the mean of probabilities "
                "follows from the losses of tokens"
            )

    def tabulate(self, prediction: Any, *, fold: int, checkpoint: str, member: str) -> pa.Table:
        """The rows of a block of documents."""
        from ensemble.token_losses.files import build_loss_table

        return build_loss_table(prediction, fold=fold, checkpoint=checkpoint, member=member)

    def measure(self, path: Path, ensemble: EnsembleConfig) -> pa.Table:
        """The file without the losses of the tokens."""
        from ensemble.token_losses.files import read_lines

        return read_lines(path)

    def split(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Tokens, bytes, entropy and baseline of each document, (N, 4), and its nats, (N,)."""
        from ensemble.token_losses.files import split_kept

        return split_kept(table)

    def join(self, target_N: np.ndarray, prediction_N: np.ndarray) -> dict[str, pa.Array]:
        """Both as columns."""
        from ensemble.token_losses.files import join_kept

        return join_kept(target_N, prediction_N)

    def score(self, target_N: np.ndarray, prediction_N: np.ndarray, metric: str) -> dict[str, float | None]:
        """Every score."""
        from ensemble.token_losses.scores import score_losses

        return score_losses(target_N, prediction_N)

    def describe_out_of_fold(self, lines: pa.Table, *, is_ordered: bool) -> dict[str, Any]:
        """Window and stride, intervals over documents, and the hardest documents."""
        from ensemble.token_losses.hardest import describe_lines

        return describe_lines(lines)

    def score_constant(
        self, target_N: np.ndarray, constant_N: np.ndarray | None, metric: str
    ) -> dict[str, float | None]:
        """Of the shares that tokens have in the fold's training documents."""
        return self.score(target_N, target_N[:, 3], metric)

    def measure_error(self, metric: str, target_N: np.ndarray, prediction_N: np.ndarray) -> float:
        """The error by a metric."""
        from ensemble.token_losses.scores import measure_error

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
        """Errors on all documents and on drawn ones."""
        from ensemble.token_losses.scores import draw_errors

        return draw_errors(metric, target_N, predictions_CN, unit_N, num_draws, seed)

    def read_combination(self, ensemble: EnsembleConfig) -> Combination:
        """Without a space, which losses do not have."""
        return replace(Combination.from_config(ensemble), space=None)

    def list_combinations(self, ensemble: EnsembleConfig, *, for_sweep: bool) -> list[Combination]:
        """Every method; for a sweep with several powers of the weights by score."""
        hows = [Combination(method, None, ensemble.metric) for method in self.methods]
        if not self.can_weigh_by(ensemble.metric):
            return [how for how in hows if how.method != "weighted_mean"]
        powers = _WEIGHT_POWERS[1:] if for_sweep else ()
        return hows + [replace(hows[1], weight_power=power) for power in powers]

    def read_columns(self, run: Run, checkpoint: str) -> LossColumns:
        """As `find_columns`, by a checkpoint; without a blend set there are none of fold models."""
        from ensemble.token_losses.columns import read_columns

        return read_columns(run, checkpoint)

    def submit(
        self,
        run: Run,
        columns: Combinable | None,
        read_scores: Callable[[], Mapping[str, Any]],
        models: Sequence[Model],
        materials: Materials,
    ) -> Submission:
        """A table of the test documents and their losses."""
        from ensemble.token_losses.submission import submit

        return submit(run, self.read_combination(run.ensemble), _of_losses(columns), read_scores, models)

    def build_combiner(self, run: Run, read_scores: Callable[[], Mapping[str, Any]]) -> LossCombiner:
        """The run's combination, for new documents."""
        from ensemble.token_losses.new_rows import build_combiner

        return build_combiner(run, self.read_combination(run.ensemble), read_scores)

    def describe_scale(self, facts: Mapping[str, Any]) -> str:
        """Token by token, and how documents were scored."""
        if "window" not in facts:
            return "of probabilities, token by token"
        return f"of probabilities, token by token (window {facts['window']}, stride {facts['stride']})"

    def write_evaluation(
        self, tables: Mapping[str, pa.Table], rows: str, write: Callable[[str, bytes], None]
    ) -> tuple[list[str], list[list[str]], dict[str, Any]]:
        """Perplexity and bits per byte of each model and of all together, and what each is above their mean."""
        from ensemble.token_losses.evaluation_files import write_evaluation

        return write_evaluation(self, tables, rows, write)

    def load_pictures(self) -> Sequence[str | Picture]:
        """Curves with the entropy, losses of documents, and the hardest."""
        from ensemble.token_losses.figures import PICTURES

        return PICTURES


def _of_losses(columns: Combinable | None) -> LossColumns | None:
    from ensemble.token_losses.columns import LossColumns

    assert columns is None or isinstance(columns, LossColumns)
    return columns


KIND: Kind = TokenLosses()
