"""A run of classes, from the command line to submission, report, leaderboard and sweep; without Ray and without
training."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, log_loss
from support.made_class_run import make_class_run

from docs.catalogue import list_metrics
from ray_jobs.cli.command_line import parse_kfold
from ray_jobs.errors import RunError
from ray_jobs.leaderboard import main as show_leaderboard
from ray_jobs.planning.checks import check_run
from ray_jobs.prediction.models import settle_run
from ray_jobs.reporting.report_figures import write_pictures
from ray_jobs.results.run_files import describe_run
from ray_jobs.runs.json_files.summary import read_summary
from ray_jobs.runs.record import read_lines

CLASSES = ["bird", "boat", "fish", "truck"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return make_class_run(tmp_path_factory.mktemp("alone") / "run")


@pytest.fixture(scope="module")
def with_members(tmp_path_factory):
    words = ("members=[seed1 training.seed=1, seed2 training.seed=2]", "ensemble.method=simplex")
    return make_class_run(tmp_path_factory.mktemp("members") / "run", *words)


def test_scores_are_those_of_the_out_of_fold_file_and_the_constant_has_the_shares(alone):
    folder, config, summary = alone
    lines = pd.read_parquet(folder.oof)
    probability = np.stack(lines["probability"])
    found = summary["scores"]["out_of_fold"]
    assert config.kind.name == "classes"
    assert found["best"]["accuracy"] == pytest.approx(accuracy_score(lines["target"], lines["prediction"]))
    assert found["best"]["log_loss"] == pytest.approx(log_loss(lines["target"], probability, labels=CLASSES))
    truth = pd.read_csv(f"{config.trainer.data.root}/train_val.csv").set_index("id")["label"]
    assert lines["target"].tolist() == truth.loc[lines["id"]].tolist()
    shares = truth.value_counts(normalize=True)
    assert found["constant"]["log_loss"] == pytest.approx(-(shares * np.log(shares)).sum(), rel=0.01)
    assert found["constant"]["accuracy"] == pytest.approx(shares.max())
    by_fold = lines.groupby("fold")["target"].value_counts(normalize=True)
    assert (by_fold - shares.reindex(by_fold.index, level="target")).abs().max() < 0.01, "stratified by class"


def test_models_that_are_too_sure_get_a_temperature_that_helps(alone):
    folder, _, summary = alone
    calibration = summary["scores"]["calibration"]
    assert calibration["temperature"] > 1.5
    for name in ("log_loss", "calibration_error"):
        assert calibration["after"][name] < 0.9 * calibration["before"][name]
    assert calibration["before"]["log_loss"] == summary["scores"]["out_of_fold"]["best"]["log_loss"]
    (recorded,) = [row for row in read_lines(folder.submission_record) if "ensemble/temperature" in row]
    assert recorded["ensemble/temperature"] == calibration["temperature"]
    assert recorded["ensemble/calibration_error_at_temperature"] == calibration["after"]["calibration_error"]
    known = {name for metrics in list_metrics("clip_regression", "classes") for name in metrics.names}
    assert {name for name in recorded if name.startswith("ensemble/")} <= known


def test_the_submission_has_the_class_and_the_probability_of_each(alone):
    _, _, summary = alone
    table = pd.read_csv(summary["submission"]["path"])
    columns = [f"probability_{name}" for name in CLASSES]
    assert table.columns.tolist() == ["ID", "label", *columns]
    np.testing.assert_allclose(table[columns].sum(axis=1), 1)
    assert table["label"].tolist() == [CLASSES[n] for n in table[columns].to_numpy().argmax(axis=1)]
    assert len(table) == summary["submission"]["test_samples"] == 96


def test_members_are_combined_and_scored_honestly(with_members):
    folder, _, summary = with_members
    rows = {row["name"]: row for row in summary["combinations"]["rows"]}
    assert {"main", "seed1", "seed2", "mean", "geometric_mean", "simplex", "greedy"} <= set(rows)
    assert rows["simplex"]["submitted"]
    assert rows["simplex"]["error"] < min(rows[name]["error"] for name in ("main", "seed1", "seed2"))
    honest = pd.read_parquet(folder.honest_predictions)
    loss = log_loss(honest["target_class"], np.stack(honest["probability"]), labels=range(4))
    assert loss == pytest.approx(rows["simplex"]["error"])
    calibration = summary["submission"]["calibration"]
    assert calibration["before"]["log_loss"] == pytest.approx(loss)
    assert sum(summary["submission"]["weights"]) == pytest.approx(1)


def test_every_picture_of_the_report_can_be_drawn(with_members):
    drawn = {one.picture.name: one for one in write_pictures(*with_members[:2], read_summary(with_members[0]))}
    for name in ("confusion", "reliability", "roc", "confident_errors", "members_and_combinations"):
        assert drawn[name].png, drawn[name].missing


def test_members_are_on_the_leaderboard_by_any_of_the_scores(with_members, tmp_path):
    folder, _, summary = with_members
    for metric in ("log_loss", "roc_auc_ovr"):
        board = tmp_path / f"{metric}.csv"
        assert show_leaderboard([str(folder.root), f"--metric={metric}", f"--csv={board}"]) == 0
        with board.open(newline="") as file:
            errors = {row["what"]: float(row["error"]) for row in csv.DictReader(file)}
        assert set(errors) == {"main", "seed1", "seed2", "ensemble (simplex)"}
        own = summary["members"]["seed1"]["out_of_fold"]["best"][metric]
        assert errors["seed1"] == pytest.approx(own if metric == "log_loss" else 1 - own)


def test_a_blend_set_scores_combinations_of_fold_models_and_a_sweep_reads_them(tmp_path):
    folder, config, summary = make_class_run(tmp_path / "run", "folds.blend_fraction=0.2", "ensemble.method=greedy")
    assert summary["combinations"]["scored_on"] == "blend"
    columns = config.kind.read_columns(describe_run(folder, config), "final")
    hows = config.kind.list_combinations(config.ensemble, for_sweep=True)[:-1:2]
    found = columns.evaluate([(columns.names, how) for how in hows])
    assert all(np.isfinite(one.inner_F).all() for one in found)


def test_new_rows_are_combined_as_test_rows(with_members):
    folder, config, summary = with_members
    combiner = settle_run(folder, config)
    names = combiner.list_columns("label", shows_models=True)
    assert names == ("label", *(f"probability_{n}" for n in CLASSES), "model_main", "model_seed1", "model_seed2", "std")
    tables = [
        pd.read_parquet(folder.of_member(name).fold(fold).predictions("test", "best"))
        for name in config.member_names
        for fold in range(3)
    ]
    probability = np.stack([np.stack(table["probability"]) for table in tables])
    found = SimpleNamespace(ids=tables[0]["id"].to_numpy(), prediction=probability, problems=(("x", "no date"),))
    predictor = SimpleNamespace(predict=lambda block: found)
    block = combiner.predict(predictor, None, shows_models=True).to_pandas()
    submitted = pd.read_csv(summary["submission"]["path"])
    assert block["1"].tolist() == submitted["label"].tolist()
    np.testing.assert_allclose(block[["2", "3", "4", "5"]], submitted.iloc[:, 2:], rtol=1e-12)


def check(tmp_path, *words):
    return check_run(parse_kfold([f"run.storage={tmp_path}", *words]).config, tmp_path / "scratch")


def test_the_usual_metric_of_what_is_found_in_the_data_stands_for_the_default(small_frame, write_data, tmp_path):
    root = write_data(small_frame.assign(label=["cat", "dog", "emu"] * 8))
    config = check(tmp_path, f"data.root={root}", "data.target=label").config
    assert (config.kind.name, config.ensemble.metric, config.trainer.data.task) == (
        "classes",
        "log_loss",
        "classification",
    )
    with pytest.raises(RunError, match=r"ensemble.metric=mae: expected one of log_loss"):
        check(tmp_path, f"data.root={root}", "data.target=label", "ensemble.metric=mae")
    with pytest.raises(RunError, match=r"ensemble.method=ridge: expected one of mean, geometric_mean"):
        check(tmp_path, f"data.root={root}", "data.target=label", "ensemble.method=ridge", "folds.blend_fraction=0.2")


def test_rare_classes_and_folds_without_a_class_are_told_before_the_launch(small_frame, write_data, tmp_path):
    frame = small_frame.assign(label=["cat", "dog"] * 11 + ["emu", "emu"], fold=[0, 1, 2] * 7 + [0, 0, 0])
    root = write_data(frame)
    words = (f"data.root={root}", "data.target=label")
    notes = check(tmp_path, *words, "folds.kind=stratified").inventory.notes
    assert any("1 class has fewer rows than there are folds (3): 'emu' (2)" in note for note in notes)
    notes = check(tmp_path, *words, "folds.kind=predefined", "data.fold_column=fold").inventory.notes
    assert any("fold 0 trains on no row of class 'emu' (2 to validate)" in note for note in notes)
    by_class = small_frame.assign(label=["cat"] * 12 + ["dog"] * 12, fold=[0] * 12 + [1] * 12)
    words = (f"data.root={write_data(by_class)}", "data.target=label", "folds.count=2")
    with pytest.raises(ValueError, match="all rows that train fold 0 are of class 'dog'"):
        check(tmp_path, *words, "folds.kind=predefined", "data.fold_column=fold")
