"""Pictures of a run's record show its numbers, whatever its folds and weights are called and however many there are."""

import pytest
from support.made_run import make_run, train_loss, write_fold_record

from ensemble.figure_style import to_png
from ensemble.kinds import load_kind
from ray_jobs.reporting.curves import read_record
from ray_jobs.reporting.report_figures import PICTURES, write_pictures
from ray_jobs.reporting.run_figures import draw_final_weights, draw_losses, draw_scores, draw_timings, draw_weights
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.status import FoldState, FoldStatus


def make_curves(root, num_folds, num_epochs, weights=("words", "picture")):
    folder = RunFolder(root)
    for fold in range(num_folds):
        write_fold_record(folder, fold, num_epochs, weights)
    return [read_record(folder.fold_record(fold)) for fold in range(num_folds)]


def test_losses_of_all_folds_stand_in_two_panels_of_one_scale(tmp_path):
    train, validation = draw_losses(make_curves(tmp_path, 3, 4)).axes
    assert train.lines[2].get_ydata().tolist() == pytest.approx([train_loss(epoch, 2) for epoch in range(4)])
    assert validation.lines[2].get_ydata().tolist() == pytest.approx([1.1 * train_loss(epoch, 2) for epoch in range(4)])
    assert train.get_ylim() == validation.get_ylim()


def test_every_recorded_weight_has_a_panel_under_its_own_name(tmp_path):
    panels = draw_weights(make_curves(tmp_path, 2, 3, ("x", "y", "z", "bias"))).axes
    assert [axes.get_title(loc="left") for axes in panels if axes.get_visible()] == ["x", "y", "z", "bias"]
    assert panels[1].lines[0].get_ydata().tolist() == pytest.approx([0.25, 0.24, 0.23])


def test_the_ring_marks_the_epoch_with_the_lowest_score(tmp_path):
    axes = draw_scores(make_curves(tmp_path, 1, 6)).axes[0]
    assert axes.lines[1].get_xdata().tolist() == [4]
    assert axes.get_ylabel() == "val/error"


def test_final_weights_are_those_of_the_table():
    axes = draw_final_weights(["fold", "a", "b"], [[0, 0.25, 0.75], [3, 0.5, 0.5]]).axes[0]
    assert [bar.get_height() for bar in axes.patches] == [0.25, 0.5, 0.75, 0.5]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["fold 0", "fold 3"]


def test_bars_of_folds_stand_where_they_trained():
    statuses = [
        FoldStatus(0, FoldState.COMPLETED, started=100.0, finished=130.0),
        FoldStatus(1, FoldState.FAILED, started=110.0, finished=120.0),
        FoldStatus(2),
    ]
    folds, phases = draw_timings(statuses, {"train": 40.0, "total": 41.0}).axes
    assert [(bar.get_x(), bar.get_width()) for bar in folds.patches] == [(0, 30), (10, 10)]
    assert "waiting" in folds.texts[-1].get_text()
    assert [bar.get_width() for bar in phases.patches] == [40]


def test_folds_that_trained_on_different_days_are_compared_from_their_own_starts():
    statuses = [FoldStatus(n, FoldState.COMPLETED, started=1 + n * 86400.0, finished=301 + n * 86400.0) for n in (0, 1)]
    folds, _ = draw_timings(statuses, {}).axes
    assert [(bar.get_x(), bar.get_width()) for bar in folds.patches] == [(0, 5), (0, 5)]
    assert folds.get_xlabel() == "minutes since its own start"


@pytest.mark.parametrize(("num_folds", "num_epochs"), [(1, 1), (10, 3)])
def test_one_epoch_and_ten_folds_can_be_drawn(tmp_path, num_folds, num_epochs):
    curves = make_curves(tmp_path, num_folds, num_epochs)
    for draw in (draw_losses, draw_weights, draw_scores):
        assert to_png(draw(curves)).startswith(b"\x89PNG")


def test_a_family_that_records_no_weights_has_all_other_pictures(tmp_path):
    folder, config, summary = make_run(tmp_path / "plain", weights=())
    missing = {one.picture.name for one in write_pictures(folder, config, summary) if one.png is None}
    assert missing == {"modality_weights", "final_weights"}


def test_pictures_have_names_that_others_may_refer_to():
    names = [one if isinstance(one, str) else one.name for one in load_kind("number").load_pictures()]
    assert len(set(names)) == len(names)
    assert {picture.name for picture in PICTURES} | {"final_predictions"} <= set(names)
