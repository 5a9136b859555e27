"""Predictions that are answers to questions, which are right or wrong."""

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

    from ensemble.answers.columns import AnswerColumns
    from ensemble.answers.new_rows import AnswerCombiner

_METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "answer accuracy", higher_is_better=True, most=1.0),
        Metric("format_accuracy", "format accuracy", higher_is_better=True, most=1.0),
    )
}
_METHODS = ("majority_vote", "mean", "self_consistency", "weighted_mean")
_WEIGHT_POWERS = (1.0, 2.0, 4.0, 8.0)  # that a sweep tries


class Answers(Kind):
    """The kind."""

    name = "answers"
    title = "answers"
    methods: Sequence[str] = _METHODS
    scores: Sequence[str] = tuple(_METRICS)
    offers: frozenset[Offer] = frozenset(("members", "sweep", "leaderboard", "tuning"))
    constant = "the most frequent right answer of each type"
    records_scores = True
    most_rows_of_a_block = 64  # each takes a while
    files: Mapping[str, str] = {
        "oof.parquet": "for each member of each question that some fold validated: what the model said that did not "
        "learn from it, its answer, whether it is right, its samples, and what the models before it said",
        "evaluation/": "out of fold: eval_<model>.json (accuracies with intervals, by type), "
        "eval_details_<model>.jsonl (each answer) and ablation_summary_out_of_fold.json (paired differences)",
        "ensemble/test_predictions.parquet": "each model's answer to each test question, the elected one, the share of "
        "the votes for others",
        "ensemble/honest_predictions.parquet": "id, fold, codes, right or wrong: the combination on the rows that "
        "score it, by weights that did not see the row (only with members or a blend set)",
        "submission_<method>.csv": "ID, elected answer, its share of the votes, form, right or wrong where known, text",
    }
    records = (
        (
            "submission written",
            {
                "out_of_fold_accuracy": "of answers: share of held-out questions that are answered right",
                "out_of_fold_format_accuracy": "of answers: share of them that are answered in the whole form",
                "test_accuracy": "of answers: share of test questions that the ensemble answers right, where known",
                "ablation_comparison": "of answers: table of base, sft_only and sft_grpo with paired differences",
                "compared": "of maps and answers: table of each fold model and each method on the test rows",
                "base_model/answer_accuracy": "of answers: out of fold, of the base; likewise `<model>/<type>/…`",
                "base_model/format_accuracy": "of answers: likewise of the form",
                "sft_only/answer_accuracy": "of answers: out of fold, of the supervised stage's model",
                "sft_only/format_accuracy": "of answers: likewise of the form",
                "sft_grpo/answer_accuracy": "of answers: out of fold, of GRPO's model",
                "sft_grpo/format_accuracy": "of answers: likewise of the form",
            },
        ),
        (
            "report written",
            {
                "figures/loss_of_all_folds": "figure: training and validation losses",
                "figures/ablation": "figure: right answers of base, supervised and GRPO model, by type",
                "figures/example_answers": "figure: answers before and after",
            },
        ),
    )

    def describe_metric(self, name: str) -> Metric:
        """How a metric's values are read."""
        return _METRICS.get(name) or Metric(name, name)

    def check_metric(self, name: str, read_targets: Callable[[], np.ndarray] | None = None) -> None:
        """Raises ValueError for other metrics than these."""
        from ensemble.answers.scores import check_metric

        check_metric(name)

    def tabulate(self, prediction: Any, *, fold: int, checkpoint: str, member: str) -> pa.Table:
        """The row of one question."""
        from ensemble.answers.files import build_answer_table

        return build_answer_table([prediction], fold=fold, checkpoint=checkpoint, member=member)

    def measure(self, path: Path, ensemble: EnsembleConfig) -> pa.Table:
        """The file as it is."""
        from ensemble.answers.files import read_answer_table

        return read_answer_table(path)

    def split(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Codes of type and right answer, (N, 2), and whether a row is right and of the form, (N, 2)."""
        from ensemble.answers.files import split_kept

        return split_kept(table)

    def join(self, target_N: np.ndarray, prediction_N: np.ndarray) -> dict[str, pa.Array]:
        """Both as columns."""
        from ensemble.answers.files import join_kept

        return join_kept(target_N, prediction_N)

    def score(self, target_N: np.ndarray, prediction_N: np.ndarray, metric: str) -> dict[str, float | None]:
        """Both accuracies."""
        from ensemble.answers.scores import score_answers

        return score_answers(target_N, prediction_N)

    def describe_out_of_fold(self, lines: pa.Table, *, is_ordered: bool) -> dict[str, Any]:
        """The ablation: every model that a fold came to, with intervals and paired differences."""
        from ensemble.answers.scores import describe_ablation

        return {"ablation": describe_ablation(lines.to_pylist())}

    def score_constant(
        self, target_N: np.ndarray, constant_N: np.ndarray | None, metric: str
    ) -> dict[str, float | None]:
        """Of guessing the most frequent answer of each type of these rows."""
        from ensemble.answers.scores import score_guessing

        return score_guessing(target_N)

    def measure_error(self, metric: str, target_N: np.ndarray, prediction_N: np.ndarray) -> float:
        """What is missing to 1."""
        from ensemble.answers.scores import measure_error

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
        from ensemble.answers.scores import draw_errors

        return draw_errors(metric, target_N, predictions_CN, unit_N, num_draws, seed)

    def read_combination(self, ensemble: EnsembleConfig) -> Combination:
        """Without a space, which answers do not have."""
        return replace(Combination.from_config(ensemble), space=None)

    def list_combinations(self, ensemble: EnsembleConfig, *, for_sweep: bool) -> list[Combination]:
        """Every method; for a sweep with several powers of the weights by score."""
        hows = [Combination(method, None, ensemble.metric) for method in self.methods]
        powers = _WEIGHT_POWERS[1:] if for_sweep else ()
        return hows + [replace(hows[self.methods.index("weighted_mean")], weight_power=power) for power in powers]

    def read_columns(self, run: Run, checkpoint: str) -> AnswerColumns:
        """As `find_columns`, by a checkpoint; without a blend set there are none of fold models."""
        from ensemble.answers.columns import read_columns

        return read_columns(run, checkpoint)

    def submit(
        self,
        run: Run,
        columns: Combinable | None,
        read_scores: Callable[[], Mapping[str, Any]],
        models: Sequence[Model],
        materials: Materials,
    ) -> Submission:
        """A table of elected answers."""
        from ensemble.answers.columns import AnswerColumns
        from ensemble.answers.submission import submit

        assert columns is None or isinstance(columns, AnswerColumns)
        return submit(run, self.read_combination(run.ensemble), columns, read_scores, models)

    def build_combiner(self, run: Run, read_scores: Callable[[], Mapping[str, Any]]) -> AnswerCombiner:
        """The run's combination, for new rows."""
        from ensemble.answers.new_rows import build_combiner

        return build_combiner(run, self.read_combination(run.ensemble), read_scores)

    def draw_out_of_fold(
        self, ensemble: EnsembleConfig, folds: Sequence[FoldFiles], lines: pa.Table, materials: Materials
    ) -> None:
        """Writes the files of the evaluation."""
        from ensemble.answers.evaluation_files import write_evaluation

        write_evaluation(lines.to_pylist(), "out_of_fold", materials.write)

    def write_evaluation(
        self, tables: Mapping[str, pa.Table], rows: str, write: Callable[[str, bytes], None]
    ) -> tuple[list[str], list[list[str]], dict[str, Any]]:
        """Accuracies of each model, of votes, and of what else was asked."""
        from ensemble.answers.evaluation_files import evaluate_tables

        return evaluate_tables(tables, rows, write)

    def describe_scale(self, facts: Mapping[str, Any]) -> str:
        """By votes."""
        return "by votes for answers"

    def load_pictures(self) -> Sequence[str | Picture]:
        """What each stage adds, and examples."""
        from ensemble.answers.figures import PICTURES

        return PICTURES


KIND: Kind = Answers()
