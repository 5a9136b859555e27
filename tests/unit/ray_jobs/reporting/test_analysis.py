"""Numbers, text and pictures of recorded trainings."""

import io

import numpy as np
import pytest
from rich.console import Console
from support.made_run import train_loss, write_fold_record

from ray_jobs.reporting.analysis import compare_runs, find_best_epochs, measure_curve, name_score, write_text_report
from ray_jobs.reporting.analysis_figures import WINDOW, draw_batches, draw_comparison, draw_stats, draw_training
from ray_jobs.reporting.curves import read_record, read_run
from ray_jobs.runs.folder import RunFolder


def make_curves(root, num_folds=2, num_epochs=6):
    folder = RunFolder(root)
    for fold in range(num_folds):
        write_fold_record(folder, fold, num_epochs)
    return read_run(folder)


def test_the_statistics_are_those_of_the_recorded_numbers(tmp_path):
    measured = measure_curve(make_curves(tmp_path)[1])
    losses = [train_loss(epoch, 1) for epoch in range(6)]
    assert measured.num_epochs == 6
    assert measured.mean_epoch_seconds == pytest.approx(3.0)
    assert measured.total_hours == pytest.approx(18 / 3600)
    assert (measured.initial_rate, measured.final_rate) == pytest.approx((1e-3, 1e-3 / 6), abs=1e-8)
    train = measured.train
    assert (train.initial, train.final, train.best) == pytest.approx((losses[0], losses[-1], losses[-1]), abs=1e-6)
    assert train.best_epoch == 6
    assert train.improvement == pytest.approx(losses[0] - losses[-1], abs=1e-6)
    assert train.improvement_percent == pytest.approx(100 * (1 - losses[-1] / losses[0]), abs=1e-3)
    assert measured.validation.best == pytest.approx(1.1 * losses[-1])
    # The score rises after the fourth epoch although the loss falls: best is by score.
    assert measured.score.best_epoch == 4


def test_the_five_best_epochs_are_those_with_the_lowest_score(tmp_path):
    (curve,) = make_curves(tmp_path, 1, 8)
    order = np.argsort(curve.epochs["score"], kind="stable")[:5] + 1
    assert find_best_epochs(curve.epochs, "score")["Epoch"].tolist() == order.tolist()


def test_the_score_is_called_by_the_metric_it_equals_also_after_one_epoch(tmp_path):
    write_fold_record(RunFolder(tmp_path), 0, 1)
    assert name_score(read_record(RunFolder(tmp_path).fold_record(0))) == "val/error"


def test_the_text_report_has_a_column_for_each_fold(tmp_path):
    report = write_text_report("run x", make_curves(tmp_path))
    lines = {line[:24].strip(): line[24:].split() for line in report.splitlines()}
    assert lines["epochs"] == ["6", "6"]
    assert lines["mean epoch seconds"] == ["2", "3"]
    assert lines["initial learning rate"] == ["0.001", "0.001"]
    assert "score (val/error)" in report
    assert "fold 1: 5 best epochs by score (val/error)" in report


def test_a_training_that_only_diverged_is_still_reported(tmp_path):
    curves = make_curves(tmp_path, 1, 3)
    curves[0].epochs["Avg_Loss"] = np.nan
    assert "epochs" in write_text_report("diverged", curves)
    assert np.isnan(measure_curve(curves[0]).train.best)


def test_the_comparison_has_the_mean_and_the_spread_of_the_folds(tmp_path):
    runs = {"long": make_curves(tmp_path / "a", 3, 6), "short": make_curves(tmp_path / "b", 1, 2)}
    console = Console(file=io.StringIO(), width=80)
    console.print(compare_runs(runs))
    rows = {line.split()[0]: line.split()[1:] for line in console.file.getvalue().splitlines()[2:]}
    scores = [2 * train_loss(3, fold) for fold in range(3)]
    assert rows["long"][:3] == ["3", "6", "3"]
    assert [float(cell) for cell in rows["long"][-2:]] == pytest.approx([np.mean(scores), np.std(scores)], rel=1e-3)
    assert rows["short"][:3] == ["1", "2", "2"]


def test_the_training_picture_shows_the_recorded_losses(tmp_path):
    curves = make_curves(tmp_path)
    losses, ranges, rates, times = draw_training(curves).axes
    for number, curve in enumerate(curves):
        mean, best, validation = losses.lines[3 * number : 3 * number + 3]
        assert mean.get_ydata().tolist() == curve.epochs["Avg_Loss"].tolist()
        assert best.get_ydata().tolist() == curve.epochs["Best_Loss_So_Far"].tolist()
        assert validation.get_ydata().tolist() == curve.epochs["val/loss_epoch"].tolist()
        assert times.lines[number].get_ydata().tolist() == [2.0 + number] * 6
    band = ranges.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((train_loss(5, 0) - 0.15, train_loss(0, 0) + 0.15), abs=1e-6)
    assert len(rates.lines) == 2
    gains, spreads = draw_stats(curves).axes
    assert gains.lines[0].get_ydata()[1] == pytest.approx(train_loss(0, 0) - train_loss(1, 0), abs=1e-6)
    assert spreads.lines[0].get_ydata()[0] == pytest.approx(0.3 / train_loss(0, 0), abs=1e-6)


def test_the_moving_average_is_that_of_the_last_hundred_batches(tmp_path):
    (curve,) = make_curves(tmp_path, 1, 60)
    along, by_epoch = draw_batches([curve]).axes
    loss, average = (line.get_ydata() for line in along.lines)
    assert len(loss) == 240
    assert average[-1] == pytest.approx(loss[-WINDOW:].mean())
    assert by_epoch.lines[0].get_ydata()[0] == pytest.approx(np.median(loss[:4]))


def test_the_mean_of_a_compared_run_ends_where_its_shortest_fold_ends(tmp_path):
    folder = RunFolder(tmp_path)
    write_fold_record(folder, 0, 5)
    write_fold_record(folder, 1, 3)
    axes = draw_comparison({"run": read_run(folder)}).axes[0]
    mean = axes.lines[-1]
    assert mean.get_xdata().tolist() == [1, 2, 3]
    assert mean.get_ydata()[0] == pytest.approx((train_loss(0, 0) + train_loss(0, 1)) / 2, abs=1e-6)
