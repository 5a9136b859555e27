"""Members of a run whose family predicts maps: combined, scored without what they have seen, swept, and on the
leaderboard."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest
from PIL import Image
from support.made_map_run import make_map_run

from ensemble.combination import Combination
from ensemble.config import MAP_METHODS, EnsembleConfig
from ensemble.maps.combine import choose_classes, combine_maps, count_places, score_counts
from ensemble.maps.files import read_maps
from ray_jobs.cli.console import open_console
from ray_jobs.errors import RunError
from ray_jobs.leaderboard import compare
from ray_jobs.reporting.html_report import write_report
from ray_jobs.results.run_files import describe_run
from ray_jobs.results.sweep import sweep
from ray_jobs.results.sweep.trial import SweepTrial
from ray_jobs.runs.files import read_json
from ray_jobs.runs.record import read_lines


def read_test(folder, number):
    return list(read_maps(folder.fold(number).predictions("test", "best")))


@pytest.fixture(scope="module")
def with_members(tmp_path_factory):
    root = tmp_path_factory.mktemp("members") / "run"
    ensemble = EnsembleConfig(method="weighted_mean", metric="dice")
    return make_map_run(root, noise=0.4, ensemble=ensemble, members=("wide model.features=[8,8]", "again folds.seed=5"))


def combine_cross_fitted(folder, names, method, left_out=()):
    """Counts of each row's cross-fitted combination, straightforward: all maps in memory, by id."""
    maps = {
        name: {
            one.row_id: one
            for fold in range(3)
            for one in read_maps(folder.of_member(name).fold(fold).predictions("validation", "best"))
        }
        for name in names
    }
    first = maps[names[0]]
    counts = {}
    for held in range(3):
        rest = [row_id for row_id, one in first.items() if one.fold != held and one.fold not in left_out]
        errors = []
        for name in names:
            parts = [count_places(choose_classes(maps[name][i].probability_CHW), first[i].target_HW, 2) for i in rest]
            errors.append(1 - score_counts(sum(parts))["dice"])
        weights = (1 / np.array(errors)) / (1 / np.array(errors)).sum()
        for row_id, one in first.items():
            if one.fold == held:
                values = np.stack([maps[name][row_id].probability_CHW for name in names])
                combined = combine_maps(values, method, weights if method == "weighted_mean" else None)
                counts[row_id] = count_places(choose_classes(combined), one.target_HW, 2)
    return counts


def test_members_are_combined_and_scored_on_rows_that_none_has_seen(with_members):
    folder, config, summary = with_members
    assert set(summary.stage.members) == {"main", "wide", "again"}
    combinations = summary.stage.combinations
    assert (combinations.scored_on, combinations.label, combinations.num_rows) == (
        "out_of_fold",
        "1 - Dice",
        60,
    )
    rows = {row.name: row for row in combinations.rows}
    assert set(rows) == {"main", "wide", "again", *MAP_METHODS}
    for name, scores in summary.stage.members.items():
        assert rows[name].error == pytest.approx(1 - scores.out_of_fold.best["dice"])
    for method in ("weighted_mean", "majority_vote"):
        counts = combine_cross_fitted(folder, ["main", "wide", "again"], method)
        assert rows[method].error == pytest.approx(1 - score_counts(sum(counts.values()))["dice"])
    assert rows["weighted_mean"].submitted
    assert rows["mean"].error < rows["main"].error  # independent noise
    assert rows["mean"].low < rows["mean"].error < rows["mean"].high
    submission = summary.stage.submission.facts
    assert [model["member"] for model in submission["model_weights"]] == ["main", "wide", "again"]
    assert (submission["n_models"], submission["fold_method"]) == (3, "mean")
    assert sum(submission["weights"]) == pytest.approx(1)
    row = next(row for row in read_lines(folder.submission_record) if "ensemble/combinations" in row)
    assert row["ensemble/out_of_fold_dice_error"] == rows["weighted_mean"].error
    assert {"ensemble/best_member_dice_error", "ensemble/member_wide_dice_error"} <= set(row)
    page = write_report(folder, config, summary).read_text()
    assert "1 - Dice" in page
    assert (folder.figures / "members_and_combinations.png").is_file()


def test_the_masks_of_members_are_of_their_combined_fold_models(with_members):
    folder, _, summary = with_members
    weights = np.array(summary.stage.submission.facts["weights"])
    names = ["main", "wide", "again"]
    tests = [[read_test(folder.of_member(name), fold) for fold in range(3)] for name in names]
    for place in range(12):
        of_members = [np.mean([fold[place].probability_CHW for fold in member], axis=0) for member in tests]
        said = choose_classes(combine_maps(np.stack(of_members), "weighted_mean", weights))
        mask = np.asarray(Image.open(folder.masks / "test" / f"{tests[0][0][place].row_id}.png"))
        assert (mask == 255 * said).all()


def test_what_a_sweep_sees_of_a_combination_is_what_it_is_worth_without_each_fold(with_members):
    folder, config, _ = with_members
    columns = config.kind.read_columns(describe_run(folder, config), "best")
    names, how = ("main", "again"), Combination("weighted_mean", None, "dice")
    plain, weighted = columns.evaluate([(names, Combination("mean", None, "dice")), (names, how)])
    counts = combine_cross_fitted(folder, names, "weighted_mean")
    expected = np.stack([np.concatenate([counts[i][0], counts[i][1]]) for i in columns.ids_N])
    assert (weighted.cross_fitted_N == expected).all()
    for fold in range(3):
        inner = combine_cross_fitted(folder, names, "weighted_mean", left_out=(fold,))
        rest = sum(one for row_id, one in inner.items() if columns.fold_N[columns.ids_N == row_id][0] != fold)
        assert weighted.inner_F[fold] == pytest.approx(1 - score_counts(rest)["dice"])
    assert (
        plain.cross_fitted_N == columns.take(names).predict_cross_fitted([Combination("mean", None, "dice")])[0]
    ).all()
    assert columns.sum_up() == config.kind.read_columns(describe_run(folder, config), "best").sum_up()


def test_members_and_their_ensemble_stand_on_the_leaderboard(with_members, tmp_path, capsys):
    folder, _, summary = with_members
    assert compare([folder.root], None, tmp_path / "board.csv") == 0
    assert "1 - Dice on 60 rows" in capsys.readouterr().out
    with (tmp_path / "board.csv").open() as file:
        rows = {row["what"]: float(row["error"]) for row in csv.DictReader(file)}
    assert set(rows) == {"main", "wide", "again", "ensemble (weighted_mean)"}
    error = summary.stage.combinations.submitted.error
    assert rows["ensemble (weighted_mean)"] == pytest.approx(error)
    with pytest.raises(RunError, match=r"predictions to which --metric=msle applies in these runs: .*another --metric"):
        compare([folder.root], "msle", None)


def evaluate_here(folder, config, todo, columns, console):
    """The trials of a sweep without Ray."""
    for number in todo:
        trial = object.__new__(SweepTrial)
        trial.setup({"batch": number}, todo, columns, (config.kind, config.ensemble.metric))
        assert trial.step()["done"]


@pytest.mark.parametrize("members", [None, ("main", "wide")])
def test_a_sweep_tries_methods_checkpoints_members_and_powers(with_members, monkeypatch, capsys, members):
    folder, config, summary = with_members
    config = dataclasses.replace(config, ensemble=dataclasses.replace(config.ensemble, members=members))
    monkeypatch.setattr(sweep, "_evaluate_in_trials", evaluate_here)
    found = sweep.search(folder, config, open_console())
    # Of three members all 7 methods, of two none that is the mean's equal, of one the mean.
    assert len(found.candidates) == 2 * (7 + 3 * 5 + 3)
    assert (found.label, found.num_rows) == ("1 - Dice", 60)
    default = found.candidates[0]
    assert default.members == (members or ("main", "wide", "again"))
    if members is None:
        submitted = summary.stage.combinations.submitted
        assert found.choice.error_C[0] == pytest.approx(submitted.error)
    winner = found.as_config(config.ensemble)
    assert winner.method in MAP_METHODS
    assert winner.space == config.ensemble.space
    again = sweep.search(folder, config, open_console())
    assert again.num_trials == 0  # what was tried is there
    assert (again.choice.error_C == found.choice.error_C).all()
    row_bytes = sweep.predict(
        {name: config.kind.read_columns(describe_run(folder, config), name) for name in ("best", "final")}, default
    ).nbytes
    monkeypatch.setattr(sweep, "BATCH_BYTES", 3 * row_bytes)  # which three candidates fill
    in_more = sweep.search(folder, config, open_console())
    assert in_more.num_trials == -(-len(found.candidates) // 3)
    assert (in_more.choice.error_C == found.choice.error_C).all()
    assert (in_more.choice.winner, in_more.choice.chosen_F) == (found.choice.winner, found.choice.chosen_F)
    assert in_more.choice.nested_error == found.choice.nested_error
    np.testing.assert_allclose(in_more.choice.improvement_low_C, found.choice.improvement_low_C, atol=1e-12)
    sweep.record_search(folder, found)
    sweep.describe_search(open_console(), folder, found)
    assert "1 - Dice, the best of 50 combinations" in capsys.readouterr().out
    outcome = read_json(folder.root / "sweep" / "sweep.json")
    assert 0 < outcome["nested_error"] < 1
    assert "Sweep" in write_report(folder, config, summary).read_text()


def test_a_sweep_of_one_member_is_on_the_blend_set_by_the_weights_that_would_be_submitted(tmp_path, monkeypatch):
    ensemble = EnsembleConfig(method="weighted_mean", metric="dice", weight_power=2.0)
    folder, config, summary = make_map_run(tmp_path / "blend", blend=0.2, ensemble=ensemble)
    monkeypatch.setattr(sweep, "_evaluate_in_trials", evaluate_here)
    found = sweep.search(folder, config, open_console())
    (submitted,) = [row for row in summary.stage.compared["blend"] if row.kind == "submitted"]
    assert found.choice.error_C[0] == pytest.approx(1 - submitted.scores["dice"])
    assert found.num_rows == submitted.num_rows
