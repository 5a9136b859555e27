"""Reading what a training recorded: the CSV files, whoever wrote them, and the metric record."""

import pytest
from support.made_run import train_loss, write_fold_record

from ray_jobs.errors import RunError
from ray_jobs.reporting.curves import read_epoch_file, read_record, read_run
from ray_jobs.reporting.run_figures import draw_scores
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import MetricRecord
from ray_jobs.tracking.csv_files import BATCH_COLUMNS, EPOCH_COLUMNS

HEADER = ",".join(EPOCH_COLUMNS)
LINES = [f"{n},{1 / n:.6f},0.1,2.0,0.00100000,3.00,{1 / n:.6f},True,2026-01-01 00:00:0{n}" for n in (1, 2, 3)]


def write(path, *lines, end="\n"):
    path.write_text("\n".join(lines) + end)
    return path


def test_the_csv_files_and_the_record_tell_the_same(tmp_path):
    folder = RunFolder(tmp_path)
    write_fold_record(folder, 0, 3, ("a",), log_batches=True)
    recorded, (read,) = read_record(folder.fold_record(0)), read_run(folder)
    assert read.label == recorded.label == "fold 0"
    assert read.epochs["Avg_Loss"].tolist() == pytest.approx([train_loss(epoch, 0) for epoch in range(3)], abs=1e-6)
    assert set(read.epochs) == set(recorded.epochs)
    for name in read.epochs:
        assert read.epochs[name].tolist() == pytest.approx(recorded.epochs[name].tolist(), abs=1e-6), name
    assert read.batches["Loss"].tolist() == pytest.approx(recorded.batches["Loss"].tolist(), abs=1e-6)
    assert read.batches["Batch"].tolist() == [0, 1, 2, 3] * 3
    assert read.validation_loss == "val/loss_epoch"


def test_a_run_is_read_from_its_record_whatever_happened_to_the_csv_files(tmp_path):
    folder = RunFolder(tmp_path)
    write_fold_record(folder, 0, 2, log_batches=False)
    for path in folder.fold_csv(0).iterdir():
        path.write_text("damaged")
    (curve,) = read_run(folder)
    assert (len(curve.epochs), len(curve.batches)) == (2, 8)


def test_a_run_whose_record_is_gone_is_read_from_its_csv_files(tmp_path):
    folder = RunFolder(tmp_path)
    write_fold_record(folder, 0, 2)
    folder.fold_record(0).unlink()
    (curve,) = read_run(folder)
    assert (curve.source.suffix, len(curve.epochs)) == (".csv", 2)


def test_a_fold_that_has_only_begun_is_left_out(tmp_path):
    folder = RunFolder(tmp_path)
    write_fold_record(folder, 0, 2)
    write_fold_record(folder, 1, 0)
    assert [curve.label for curve in read_run(folder)] == ["fold 0"]


def test_a_file_with_the_fixed_columns_alone_is_read_with_the_batches_beside_it(tmp_path):
    path = write(tmp_path / "epoch_metrics_20260101_000000.csv", HEADER, *LINES)
    write(tmp_path / "batch_metrics_20260101_000000.csv", ",".join(BATCH_COLUMNS), "1,0,0.5,0.001,2026-01-01 00:00:01")
    curve = read_epoch_file(path)
    assert curve.epochs["Epoch"].tolist() == [1, 2, 3]
    assert curve.batches["Loss"].tolist() == [0.5]
    assert (curve.validation_loss, curve.note) == (None, "")


@pytest.mark.parametrize("torn", ["4,0.25", "4,0.250000,0.1,2.0,0.001,3.00,0.25,True,2026-01-01 00:0"])
def test_a_torn_last_line_is_left_out_and_said(tmp_path, torn):
    curve = read_epoch_file(write(tmp_path / "e.csv", HEADER, *LINES, torn, end=""))
    assert curve.epochs["Epoch"].tolist() == [1, 2, 3]
    assert "torn" in curve.note


def test_a_whole_last_line_counts_without_a_line_end(tmp_path):
    assert len(read_epoch_file(write(tmp_path / "e.csv", HEADER, *LINES, end="")).epochs) == 3


def test_an_empty_cell_is_unknown(tmp_path):
    curve = read_epoch_file(write(tmp_path / "e.csv", HEADER, "1,0.5,,,,,0.5,True,2026-01-01 00:00:00"))
    assert curve.epochs["Min_Batch_Loss"].isna().all()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([HEADER.replace("Avg_Loss", "Loss")], r"no column 'Avg_Loss'.*; the table has 'Epoch', 'Loss'"),
        ([HEADER], "has not finished one yet"),
        ([HEADER, "1,many,0,0,0,0,0,True,2026-01-01 00:00:00"], "is damaged"),
        ([HEADER, *LINES, "1," * 20, LINES[0]], "is damaged"),
    ],
)
def test_a_file_that_cannot_be_analysed_says_why(tmp_path, lines, message):
    with pytest.raises(RunError, match=message):
        read_epoch_file(write(tmp_path / "e.csv", *lines))


def test_an_empty_file_and_no_file_say_so(tmp_path):
    path = tmp_path / "epoch_metrics_20260101_000000.csv"
    path.write_text("")
    with pytest.raises(RunError, match="training has not finished an epoch"):
        read_epoch_file(path)
    with pytest.raises(RunError, match=r"nearest: epoch_metrics_20260101_000000\.csv"):
        read_epoch_file(tmp_path / "epoch_metrics_20260102_000000.csv")


def test_of_a_training_by_steps_its_evaluations_are_the_curve(tmp_path):
    folder = RunFolder(tmp_path)
    record = MetricRecord(folder.fold_record(0))
    for step in (1, 2):
        record.log(step, {"fold_0/train/loss_step": 3.0 / step, "fold_0/learning_rate": 0.1})
        record.log(
            step, {"fold_0/train/loss_epoch": 2.0 / step, "fold_0/val/loss": 4.0 / step, "fold_0/score": 1 / step}
        )
    record.close()
    (curve,) = read_run(folder)
    assert (curve.unit, curve.note[:14]) == ("evaluation", "by evaluations")
    assert curve.epochs["Epoch"].tolist() == [1, 2]
    assert curve.epochs["Avg_Loss"].tolist() == [2.0, 1.0]
    assert curve.epochs["val/loss"].tolist() == [4.0, 2.0]
    axes = draw_scores([curve]).axes[0]
    assert (axes.get_xlabel(), axes.get_title(loc="left")) == ("evaluation", "Score by evaluation (lower is better)")
    write_fold_record(folder, 1, 2)
    assert [(curve.label, curve.unit) for curve in read_run(folder)] == [("fold 1", "epoch")]  # on one axis
