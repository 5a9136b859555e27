"""A run of samples, from the command line to submission, pictures and leaderboard; without Ray and without training."""

from __future__ import annotations

import json

import pytest
from support.made_sample_run import make_sample_run
from support.run_files import list_unknown_files

from docs.catalogue import list_metrics
from ray_jobs.errors import RunFolderError
from ray_jobs.leaderboard import main as show_leaderboard
from ray_jobs.reporting.report_figures import write_pictures
from ray_jobs.runs.json_files.summary import read_summary
from ray_jobs.runs.record import read_lines


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_sample_run(tmp_path_factory.mktemp("alone") / "run", "folds.blend_fraction=0.2")


def test_scores_are_of_unseen_rows_beside_floor_memoriser_and_grey(made):
    _, config, summary = made
    scores = summary["scores"]
    assert config.kind.name == "samples"
    loss = scores["out_of_fold"]["best"]["v_loss"]
    assert loss == pytest.approx(0.08, rel=0.05)
    by_time = scores["by_time"]
    assert by_time["model"][0]["v_loss"] == pytest.approx(loss)
    assert by_time["floor"][0]["v_loss"] == pytest.approx(loss / 3)
    assert by_time["memoriser"][0]["v_loss"] == pytest.approx(2 * loss)
    assert scores["out_of_fold"]["constant"]["v_loss"] == by_time["zero"][0]["v_loss"] > 1


def test_the_mean_of_the_fold_models_is_scored_on_the_blend_set_and_on_test_rows(made):
    folder, _, summary = made
    assert {row["kind"]: row["name"] for row in summary["combinations"]["rows"]} == {
        "member": "fold_2",
        "combination": "mean",
    }
    mean = next(row for row in summary["combinations"]["rows"] if row["kind"] == "combination")
    assert mean["error"] == pytest.approx(0.04 + 0.04 / 3, rel=0.05)
    assert mean["difference_high"] < 0
    lines = folder.submission("mean").read_text().splitlines()
    assert lines[0] == "ID,v_loss"
    assert len(lines) == 1 + 192
    compared = {row["name"]: row["v_loss"] for row in summary["compared"]["test"]}
    assert compared["mean"] == pytest.approx(0.04 + 0.04 / 3, rel=0.05)
    assert compared["fold 0"] == pytest.approx(0.08, rel=0.05)


def test_its_pictures_files_and_metrics_are_those_that_it_names(made):
    folder, config, _ = made
    drawn = {one.picture.name: one.missing for one in write_pictures(folder, config, read_summary(folder))}
    assert not any(drawn[name] for name in ("loss_by_time", "samples", "closest_pairs", "agreement_of_folds"))
    assert drawn["samples_over_steps"] == "no grid was made while the folds were trained (sampling.every_epochs=0)"
    assert list_unknown_files(folder.root) == []
    facts = json.loads((folder.root / "samples" / "samples.json").read_text())
    assert facts["fold_2"]["kid_efficientnet_lite0"] == 14
    recorded = {name for row in read_lines(folder.submission_record) for name in row}
    for metrics in list_metrics("pixel_diffusion", "samples"):
        if metrics.kind == "samples" and metrics.moment == "submission written":
            assert set(metrics.names) <= recorded


def test_runs_are_ranked_where_they_have_the_same_noise_and_else_refused(made, tmp_path, capsys):
    folder, _, _ = made
    same, _, _ = make_sample_run(
        tmp_path / "same", "folds.blend_fraction=0.2", f"data.root={folder.root / 'made_data'}"
    )
    assert show_leaderboard([str(folder.root), str(same.root)]) == 0
    assert "v-loss" in capsys.readouterr().out
    words = ("folds.blend_fraction=0.2", f"data.root={folder.root / 'made_data'}", "process.noise_scale=0.5")
    easy, _, _ = make_sample_run(tmp_path / "easy", *words)
    with pytest.raises(
        RunFolderError, match=r"are not compared: losses under different processes \(noise_scale 1 and 0.5\)"
    ):
        show_leaderboard([str(folder.root), str(easy.root)])
