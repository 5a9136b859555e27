"""The metric that counts is `ensemble.metric`, wherever a run's results are weighed, told or drawn."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console
from support.made_run import make_run

from ensemble.config import EnsembleConfig
from ensemble.kinds import Metric, load_kind
from ensemble.numbers.metrics import measure_error
from ensemble.numbers.scores import score
from ensemble.numbers.submission import choose_weights
from ray_jobs.reporting.html_report import write_report
from ray_jobs.reporting.outcome import print_outcome
from ray_jobs.results.headline import compare_with_constant, find_metric
from ray_jobs.results.summary import build_summary, save_summary
from ray_jobs.runs.files import read_json, write_json
from ray_jobs.runs.json_files.summary import RowScores, Scores, read_summary


def test_fold_models_are_weighed_by_the_metric_that_counts():
    scores = {"folds": [{"best": {"msle": 0.1, "mae": 9.0}}, {"best": {"msle": 0.9, "mae": 1.0}}]}
    weigh = EnsembleConfig(method="weighted_mean", metric="mae")
    assert choose_weights(weigh, scores) == pytest.approx([0.1, 0.9])
    assert choose_weights(EnsembleConfig(method="weighted_mean"), scores) == pytest.approx([0.9, 0.1])


def test_a_runs_weights_are_by_its_metric(tmp_path):
    _, _, summary = make_run(tmp_path / "run", ensemble=EnsembleConfig(method="weighted_mean", metric="rmsle"))
    errors = np.array([fold.best["rmsle"] for fold in summary.stage.scores.folds])
    assert summary.stage.submission.facts["weights"] == pytest.approx(1 / errors / (1 / errors).sum())


@pytest.mark.parametrize(("metric", "label"), [("mae", "MAE (price)"), ("r2", "r2")])
def test_whatever_tells_the_result_tells_it_by_the_metric_that_counts(tmp_path, metric, label):
    folder, config, summary = make_run(tmp_path / "run", ensemble=EnsembleConfig(metric=metric))
    value = summary.stage.scores.out_of_fold.best[metric]
    terminal = Console(file=io.StringIO(), width=120)
    print_outcome(terminal, folder, read_summary(folder))
    shown = terminal.file.getvalue()
    assert f"{label} on the rows that each fold validates" in shown
    assert f"{value:.4f}" in shown
    assert f"| {label} | rows |" in folder.readme.read_text()
    report = write_report(folder, config, summary).read_text()
    assert f"Out-of-fold {label} {value:.4f}" in report
    assert f"{'higher' if metric == 'r2' else 'lower'} is better" in report
    assert f"{label}, best epoch" in report


def test_what_is_worth_knowing_of_the_data_is_told_at_the_end_too(tmp_path):
    folder, config, before = make_run(tmp_path / "run")
    write_json(folder.provenance, read_json(folder.provenance) | {"notes": ["2 files are left out"]})
    summary = build_summary(folder, config, before.stage, {})
    save_summary(folder, config, summary)
    terminal = Console(file=io.StringIO(), width=120)
    print_outcome(terminal, folder, summary)
    assert "2 files are left out" in terminal.file.getvalue()
    assert "Data: 2 files are left out." in folder.readme.read_text()


def test_combinations_are_told_by_their_error(tmp_path):
    _, _, summary = make_run(
        tmp_path / "run", members=("wide model.hidden_dim=128",), ensemble=EnsembleConfig(metric="r2")
    )
    combinations = summary.stage.combinations
    assert (combinations.metric, combinations.label) == ("r2", "minus r2")
    by_name = {row.name: row.error for row in combinations.rows}
    assert by_name["main"] == pytest.approx(-summary.stage.scores.out_of_fold.best["r2"])


def test_scores_have_the_metric_that_counts_in_its_own_direction():
    target, prediction = np.array([0.0, 1.0, 1.0]), np.array([0.2, 0.9, 0.4])
    assert list(score(target, prediction)) == ["msle", "mae", "mse", "rmse"]
    assert score(target, prediction, "roc_auc")["roc_auc"] == 1.0
    assert score(target, prediction, "log_loss")["log_loss"] == measure_error("log_loss", target, prediction)
    assert score(target + 2, prediction, "log_loss")["log_loss"] is None


def test_each_kind_says_how_a_metric_is_read():
    numbers, maps = load_kind("number"), load_kind("map")
    assert numbers.describe_metric("mae").of_target("views") == Metric("mae", "MAE", unit="views")
    assert numbers.describe_metric("roc_auc").higher_is_better
    assert maps.describe_metric("iou") == Metric("iou", "IoU", higher_is_better=True, most=1.0)
    assert maps.describe_metric("dice_class_2").title == "Dice of class 2"
    assert set(numbers.scores) == set(score(np.array([1.0, 2.0]), np.array([1.0, 2.0])))
    assert [one.describe_metric("x").error_label for one in (numbers, maps)] == ["minus x", "1 - x"]
    assert [one.describe_metric("x").error_name for one in (numbers, maps)] == ["x", "x_error"]
    with pytest.raises(ValueError, match="PREDICTS='tokens': expected one of answers, classes, map, number, samples"):
        load_kind("tokens")


def test_a_score_stands_beside_the_constants():
    def compare(value, constant, metric):
        scores = {"best": {metric.name: value}, "final": {}, "constant": {metric.name: constant}}
        return compare_with_constant(
            Scores((), RowScores(num_rows=1, checkpoint="best", **scores)), metric, "one class everywhere"
        )

    assert compare(0.5, 2.0, Metric("mae", "MAE")) == "out-of-fold MAE is 25% of the constant predictor's"
    shown = compare(0.9, 0.5, Metric("dice", "Dice", higher_is_better=True))
    assert shown == "out-of-fold Dice is 0.9000; one class everywhere would have 0.5000"
    assert "not defined" in compare(None, 0.5, Metric("x", "x"))


def test_the_unit_is_the_targets(tmp_path):
    folder, config, _ = make_run(tmp_path / "run", target="clicks")
    assert find_metric(folder, config).label == "MSLE"
    assert find_metric(folder, config, "rmse").label == "RMSE (clicks)"
    assert find_metric(folder, config, "mse").label == "MSE (clicks²)"
