"""The interval of the error on new rows, and of single predictions where rows are not exchangeable."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.made_map_run import make_map_run
from support.made_run import make_run

from ensemble.config import EnsembleConfig
from ensemble.kinds import load_kind
from ray_jobs.reporting.html_report import write_report
from ray_jobs.results.stage import run_ensemble_stage
from ray_jobs.results.wording import describe_new_rows, describe_submission, explain_new_rows
from ray_jobs.runs.files import read_json, write_json
from ray_jobs.runs.json_files.summary import read_summary


def test_it_is_that_of_the_fold_models_around_the_out_of_fold_score_and_everywhere_told(tmp_path):
    folder, config, summary = make_run(tmp_path / "run")
    found = read_summary(folder).stage.new_rows
    assert found == summary.stage.new_rows
    assert found.value == pytest.approx(summary.stage.scores.chosen["msle"])
    assert found.low < found.value < found.high
    assert (found.num_units, found.are_groups, found.is_chosen) == (180, False, True)
    assert "MSLE on new rows: 0.15" in describe_new_rows(found)
    assert "the checkpoints were chosen on these rows" in explain_new_rows(found)
    write_report(folder, config, summary)
    for text in (folder.readme.read_text(), folder.report.read_text()):
        assert describe_new_rows(found) in text


def test_with_members_it_is_that_of_what_is_submitted_and_a_blend_set_needs_no_widening(tmp_path):
    _, _, summary = make_run(tmp_path / "members", members=("wide model.hidden_dim=128",))
    found = summary.stage.new_rows
    assert found.value == pytest.approx(summary.stage.combinations.submitted.error)
    assert found.widening > 1.2
    _, _, summary = make_run(tmp_path / "blend", num_blend=40)
    found = summary.stage.new_rows
    assert (found.num_units, found.is_chosen) == (40, False)
    assert found.widening == pytest.approx(1, abs=0.05)


def test_of_a_metric_that_is_better_the_higher_it_is_the_metrics_own_value(tmp_path):
    _, _, summary = make_map_run(tmp_path / "run")
    found = summary.stage.new_rows
    assert found.label == "Dice"
    assert found.low < found.value < found.high <= 1.05
    assert found.value == pytest.approx(summary.stage.scores.chosen["dice"])


def test_rows_of_groups_are_drawn_together(tmp_path):
    folder, _, _ = make_run(tmp_path / "run")
    plan = pq.read_table(folder.fold_plan)
    pq.write_table(plan.append_column("group", pa.array(np.arange(len(plan)) // 4)), folder.fold_plan)
    found = run_ensemble_stage(str(folder.root)).new_rows
    assert (found.num_units, found.are_groups) == (45, True)
    assert "(45 groups of rows)" in describe_new_rows(found)


@pytest.mark.parametrize("is_drifting", [False, True])
def test_cv_plus_is_printed_only_where_rows_are_not_shown_to_be_other_than_exchangeable(tmp_path, is_drifting):
    ensemble = EnsembleConfig(interval=0.8, checkpoint="final", space="z")
    folder, config, _ = make_run(tmp_path / "run", ensemble=ensemble)
    for fold in range(3):
        path = folder.fold(fold).predictions("validation", "final")
        table = pq.read_table(path)
        z = np.log1p(table["target"].to_numpy()) + np.random.default_rng(fold).normal(0, 0.3, len(table))
        z += np.linspace(0, 1.2, len(table)) * is_drifting  # in the order of the plan
        table = table.set_column(table.column_names.index("prediction"), "prediction", pa.array(np.expm1(z)))
        pq.write_table(table, path)
        folder.fold(fold).write_manifest()
    facts = run_ensemble_stage(str(folder.root)).submission.facts
    assert facts["interval"]["kind"] == ("empirical" if is_drifting else "cv+")
    shown = describe_submission(config.kind, facts)
    if is_drifting:
        assert "nothing is guaranteed, as the rows are not exchangeable: errors follow the order of the table" in shown
        assert facts["interval"]["guaranteed"] is None
    else:
        assert "cv+: coverage at least" in shown


def test_a_fold_that_patience_has_ended_leaves_no_guarantee(tmp_path):
    ensemble = EnsembleConfig(interval=0.8, checkpoint="final")
    folder, _, _ = make_run(tmp_path / "run", ensemble=ensemble)
    write_json(folder.fold(1).status, read_json(folder.fold(1).status) | {"ended_by": "patience"})
    submission = run_ensemble_stage(str(folder.root)).submission
    assert submission.facts["interval"]["kind"] == "empirical"
    assert json.loads((folder.root / "submission_mean.json").read_text())["interval"]["kind"] == "empirical"


def test_what_was_combined_is_said_in_words():
    facts = {"method": "mean", "n_models": 3, "checkpoints": "best", "space": "raw"}
    kind = load_kind("answers")
    assert describe_submission(kind, facts).startswith("mean of 3 models' best checkpoints by votes")
    assert describe_submission(kind, facts | {"n_models": 1}).startswith("the best checkpoint of one model by votes")
    assert describe_submission(kind, facts | {"fold_method": "mean"}).startswith("mean of 3 members' best checkpoints")
