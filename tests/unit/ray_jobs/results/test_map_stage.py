"""A run whose family predicts maps: scores, combination, pictures, report, and what is refused."""

from __future__ import annotations

import csv
import dataclasses
import shutil

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from support.made_map_run import make_map_run

from ensemble.config import MAP_METHODS, EnsembleConfig
from ensemble.maps.combine import choose_classes, combine_maps, count_places, score_counts
from ensemble.maps.files import read_maps
from ensemble.maps.overlays import spread_ranks
from ensemble.maps.scores import count_map, score_constant, score_maps
from ray_jobs.cli.console import open_console
from ray_jobs.config.run import from_dict, to_dict
from ray_jobs.errors import RunError, RunFolderError
from ray_jobs.reporting.html_report import write_report
from ray_jobs.reporting.outcome import print_outcome
from ray_jobs.results.checks import check_ensemble, check_finished
from ray_jobs.results.leaderboard import read_entries
from ray_jobs.results.stage import run_ensemble_stage
from ray_jobs.runs.files import read_json, read_parquet, write_parquet
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.summary import SubmissionRecord
from ray_jobs.runs.record import read_lines


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_map_run(tmp_path_factory.mktemp("maps") / "run")


def read_test(folder, number):
    return list(read_maps(folder.fold(number).predictions("test", "best")))


def test_scores_are_of_all_places_together_and_beside_the_best_single_class(run):
    folder, _, summary = run
    overall, counts = summary.stage.scores.out_of_fold, np.zeros((3, 1), np.int64)
    places = 0
    for fold in range(3):
        for one in read_maps(folder.fold(fold).predictions("validation", "best")):
            counts += count_places(choose_classes(one.probability_CHW), one.target_HW, 2)
            places += one.target_HW.size
    assert overall.best["dice"] == score_counts(counts)["dice"]
    assert overall.num_rows == 60
    share = counts[2, 0] / places
    assert overall.constant["dice"] == pytest.approx(2 * share / (1 + share))
    table = read_parquet(folder.oof)
    assert table["dice"].to_numpy().mean() == pytest.approx(overall.best["dice_of_rows"])
    assert set(table["id"].to_pylist()) == {path.stem for path in (folder.masks / "out_of_fold").iterdir()}
    assert len(list((folder.overlays / "out_of_fold").iterdir())) == 60


def test_the_submission_is_the_mean_of_the_models_and_every_method_is_compared(run):
    folder, _, summary = run
    submission = summary.stage.submission.facts
    assert (submission["n_models"], submission["test_samples"], submission["weights"]) == (3, 12, None)
    models = [read_test(folder, fold) for fold in range(3)]
    counts = {method: np.zeros((3, 1), np.int64) for method in MAP_METHODS if method != "weighted_mean"}
    for one in zip(*models, strict=True):
        values = np.stack([stored.probability_CHW for stored in one])
        for method, total in counts.items():
            total += count_places(choose_classes(combine_maps(values, method)), one[0].target_HW, 2)
        said = choose_classes(combine_maps(values, "mean"))
        assert (np.asarray(Image.open(folder.masks / "test" / f"{one[0].row_id}.png")) == 255 * said).all()
    dice = {row["name"]: row["dice"] for row in submission["compared"] if row["kind"] == "combination"}
    for method, total in counts.items():
        assert dice[method] == pytest.approx(score_counts(total)["dice"])
    best_model = max(row["dice"] for row in submission["compared"] if row["kind"] == "model")
    assert dice["mean"] > best_model  # independent noise: what an ensemble is for
    with (folder.root / "submission_mean.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["ID", "foreground", "disagreement", "dice", "iou", "mask"]
    assert all((folder.root / line["mask"]).is_file() for line in lines)
    assert all((folder.disagreement / "test" / f"{line['ID']}.png").is_file() for line in lines)


def test_the_record_holds_the_catalogues_metrics_of_a_submission(run):
    folder, _, _ = run
    row = read_lines(folder.submission_record)[-1]
    names = (
        "n_models checkpoint_type method space test_samples prediction_diversity pred_std_mean pred_std_max "
        "pred_std_min "
    )
    names += (
        "final_pred_min final_pred_max final_pred_mean final_pred_std submission_created submission_path model_weights "
    )
    names += "out_of_fold_dice out_of_fold_iou test_dice test_iou compared"
    assert {f"ensemble/{name}" for name in names.split()} <= set(row)


def test_the_report_tells_dice_and_shows_examples(run, capsys):
    folder, config, summary = run
    page = write_report(folder, config, summary).read_text()
    assert f"Out-of-fold Dice {summary.stage.scores.out_of_fold.best['dice']:.4f}" in page
    for name in ("performance_by_fold", "example_overlays", "dice_of_rows", "disagreement"):
        assert (folder.figures / f"{name}.png").is_file()
    assert "majority_vote" in page
    assert "MSLE" not in page.partition("The whole config")[0]
    print_outcome(open_console(), folder, summary)
    text = capsys.readouterr().out
    assert "Dice on the rows that each fold validates" in text
    assert "Dice on 12 test rows whose truth is known" in text
    assert "one class everywhere would have" in text


def test_another_method_is_combined_anew_from_the_same_maps(run):
    folder, config, _ = run
    ensemble = dataclasses.replace(config.ensemble, method="weighted_mean", weights=(0.0, 0.0, 1.0))
    changed = check_finished(folder, dataclasses.replace(config, ensemble=ensemble), ["main"])
    folder.write_config(changed)
    run_ensemble_stage(str(folder.root))
    one = read_test(folder, 2)[0]
    mask = np.asarray(Image.open(folder.masks / "test" / f"{one.row_id}.png"))
    assert (mask == 255 * choose_classes(one.probability_CHW)).all()
    folder.write_config(config)
    run_ensemble_stage(str(folder.root))
    weighted = read_json(folder.root / "submission_weighted_mean.json")
    assert weighted["weights"] == [0.0, 0.0, 1.0]


def test_a_blend_set_compares_the_methods_too(tmp_path):
    folder, config, summary = make_map_run(tmp_path / "blend", blend=0.2)
    assert set(summary.stage.compared) == {"blend", "test"}
    rows = summary.stage.compared["blend"]
    assert {row.name for row in rows} == {"fold 0", "fold 1", "fold 2", *MAP_METHODS}
    assert rows[0].num_rows == 60 - summary.stage.scores.out_of_fold.num_rows
    assert "rows of the blend set" in write_report(folder, config, summary).read_text()


def test_a_run_with_unfinished_folds_scores_what_is_there(tmp_path):
    folder, _, summary = make_map_run(tmp_path / "part", unfinished=(1,))
    assert [fold.fold for fold in summary.stage.scores.folds] == [0, 2]
    reason = "folds [1] are not trained; the same command trains them; ensemble.folds=finished combines the others"
    assert summary.stage.submission == SubmissionRecord(reason=reason)
    next((folder.fold(0).root / "predictions").glob("validation_best*")).write_bytes(b"broken")
    with pytest.raises(RunFolderError, match=r"validation_best\.parquet is missing or damaged; .* trains fold 0 again"):
        check_finished(folder, folder.read_config(), ["main"])


def check(config):
    check_ensemble(config, pa.table({"id": ["a"], "fold": [0]}), lambda: np.zeros(1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "simplex"}, "expected one of mean, median.* for maps"),
        ({"metric": "msle"}, "expected one of dice, iou"),
        ({"interval": 0.9}, "interval=0.9: expected none for maps"),
        ({"external": "x.parquet"}, "external=x.parquet: expected none for maps"),
    ],
)
def test_what_is_of_numbers_is_refused(run, changes, message):
    _, config, _ = run
    config = dataclasses.replace(
        config, ensemble=EnsembleConfig(), folds=dataclasses.replace(config.folds, blend_fraction=0.2)
    )
    with pytest.raises(RunError, match=message):
        check(dataclasses.replace(config, ensemble=EnsembleConfig(**{"metric": "dice"} | changes)))


def test_fold_models_of_members_are_combined_by_what_maps_offer(run):
    _, config, _ = run
    ensemble = dataclasses.replace(config.ensemble, fold_method="geometric_mean")
    with pytest.raises(RunError, match="fold_method=geometric_mean: expected one of mean, median"):
        check(dataclasses.replace(config, ensemble=ensemble, members=("wide model.features=[8,8]",)))


def test_counts_that_an_earlier_version_did_not_write_are_asked_for(run, tmp_path):
    shutil.copytree(run[0].root, tmp_path / "old")
    old = RunFolder(tmp_path / "old")
    write_parquet(old.oof, read_parquet(old.oof).drop_columns(["true", "places", "right", "said"]))
    with pytest.raises(
        RunFolderError,
        match=r"of an earlier version of this project: .*`python ray_jobs/submit.py` on the run adds them",
    ):
        read_entries(old)


def test_a_config_of_maps_survives_json(run):
    _, config, _ = run
    assert from_dict(to_dict(config)) == config


def test_the_constant_of_several_classes_is_the_best_of_them():
    true = np.array([[0, 1, 1, 2]], np.uint8)
    targets, predictions = zip(*(count_map(said, true, 3) for said in (true, np.full_like(true, 2))), strict=True)
    target_N, prediction_N = np.stack(targets), np.stack(predictions)
    first = score_maps(target_N[:1], prediction_N[:1])
    assert (first["dice"], first["dice_class_2"]) == (1, 1)
    assert score_maps(target_N, prediction_N)["dice_class_2"] == pytest.approx(2 * 2 / (5 + 2))
    # class 1 everywhere, class 2 never
    assert score_constant(target_N)["dice"] == pytest.approx((2 * 2 / (4 + 2)) / 2)


def test_examples_are_spread_from_the_lowest_to_the_highest():
    values = np.array([5, 1, 4, 2, 3])
    assert spread_ranks(values, 3) == [1, 4, 0]
    assert spread_ranks(values, 9) == [1, 3, 4, 2, 0]
