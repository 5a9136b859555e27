"""CSV files and log lines of a fold: derived from its record, whatever a trainer calls its values."""

import csv
import logging

import numpy as np
import torch

from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import read_lines
from ray_jobs.tracking.csv_files import BATCH_COLUMNS, EPOCH_COLUMNS, CsvFiles
from ray_jobs.tracking.journal import FoldJournal
from trainers.interface import Progress


def train(journal, epochs, steps=3, start=0, **further):
    """Logs what a trainer logs; the losses and scores depend on the step and epoch alone."""
    for epoch in range(start, epochs):
        for step in range(epoch * steps, (epoch + 1) * steps):
            journal.log(step + 1, {"train/loss_step": 1 / (step + 1), "learning_rate": 1e-3}, 100.0 + step)
            journal.follow(Progress(step + 1, epochs * steps, epoch, epochs, step + 1 - epoch * steps, steps))
        metrics = {"train/loss_epoch": 2 / (epoch + 1), "train/epoch_time": 1.5, "score": abs(epoch - 1.0), **further}
        journal.log((epoch + 1) * steps, {**metrics, "epoch": epoch}, 100.0 + epoch)


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def only(folder, pattern):
    (path,) = folder.glob(pattern)
    return path


def test_an_epoch_has_mean_lowest_and_highest_loss_rate_time_best_and_every_further_scalar(tmp_path):
    folder = RunFolder(tmp_path)
    train(FoldJournal(folder, 0), 3, **{"val/dice": 0.75, "my/own": 7})
    rows = read(only(folder.fold_csv(0), "epoch_metrics_*.csv"))
    assert tuple(rows[0])[: len(EPOCH_COLUMNS)] == EPOCH_COLUMNS
    assert [row["Epoch"] for row in rows] == ["1", "2", "3"]
    assert (rows[1]["Avg_Loss"], rows[1]["Min_Batch_Loss"], rows[1]["Max_Batch_Loss"]) == (
        "1.000000",
        "0.166667",
        "0.250000",
    )
    assert (rows[1]["Learning_Rate"], rows[1]["Epoch_Time_Seconds"]) == ("0.00100000", "1.50")
    assert [row["Best_Loss_So_Far"] for row in rows] == ["2.000000", "1.000000", "0.666667"]
    assert [row["Is_Best_Model"] for row in rows] == ["True", "True", "False"]  # by score, not by loss
    assert {(row["val/dice"], row["my/own"]) for row in rows} == {("0.75", "7")}
    assert not list(folder.fold_csv(0).glob("batch_metrics_*.csv"))


def test_batches_are_written_on_request_from_0_in_each_epoch(tmp_path):
    folder = RunFolder(tmp_path)
    train(FoldJournal(folder, 0, log_batches=True), 2)
    rows = read(only(folder.fold_csv(0), "batch_metrics_*.csv"))
    assert tuple(rows[0]) == BATCH_COLUMNS
    assert [(row["Epoch"], row["Batch"]) for row in rows] == [(e, b) for e in "12" for b in "012"]
    assert [row["Loss"] for row in rows] == [f"{1 / (step + 1):.6f}" for step in range(6)]


def test_a_name_that_turns_up_later_becomes_a_column_of_all_rows(tmp_path):
    folder = RunFolder(tmp_path)
    journal = FoldJournal(folder, 0)
    train(journal, 1)
    path = only(folder.fold_csv(0), "epoch_metrics_*.csv")
    assert "new/name" not in read(path)[0]
    train(journal, 2, start=1, **{"new/name": 5})
    assert [row["new/name"] for row in read(path)] == ["", "5"]
    assert "fold_0/new/name" in read_lines(folder.fold_record(0))[-1]


def test_a_fold_that_continues_goes_on_in_its_files_as_if_nothing_had_happened(tmp_path):
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    train(FoldJournal(whole, 0, log_batches=True), 4)
    first = FoldJournal(broken, 0, log_batches=True)
    train(first, 3)
    second = FoldJournal(broken, 0, keep=8, log_batches=True)  # the end of epoch 2
    train(second, 4, start=2)
    train(first, 5, start=3, **{"late/name": 1})  # a survivor
    for pattern in ("epoch_metrics_*.csv", "batch_metrics_*.csv"):
        assert read(only(broken.fold_csv(0), pattern)) == read(only(whole.fold_csv(0), pattern))
    assert len(read_lines(broken.fold_record(0))) == 16


def test_a_fold_that_starts_over_leaves_the_files_of_the_attempt_before(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    for stamp in ("20260101_000000", "20260101_000001"):
        monkeypatch.setattr("time.strftime", lambda *_, stamp=stamp: stamp)
        train(FoldJournal(folder, 0), 2)
    assert len(list(folder.fold_csv(0).glob("epoch_metrics_*.csv"))) == 2


def test_other_names_of_the_loss_are_understood(tmp_path):
    files = CsvFiles(tmp_path, "")
    for step in range(2):
        files.add({"time": 1.0, "train/loss": 0.5 + step, "train/learning_rate": 2e-4})
    ended = files.add({"time": 2.0, "epoch": 0, "score": 1.0, "train/epoch_loss": 1.0})
    assert (ended.min_loss, ended.max_loss, ended.mean_loss, ended.rate) == (0.5, 1.5, 1.0, 2e-4)


def test_a_disk_that_refuses_delays_the_files_and_is_said_once(tmp_path, caplog):
    folder = RunFolder(tmp_path)
    folder.metrics.mkdir()
    folder.fold_csv(0).write_text("a file where the folder should be")
    journal = FoldJournal(folder, 0, log_batches=True)
    train(journal, 3)
    assert [line.levelno for line in caplog.records].count(logging.WARNING) == 1
    assert "the record goes on" in caplog.text
    assert len(read_lines(folder.fold_record(0))) == 12
    folder.fold_csv(0).unlink()
    train(journal, 4, start=3)  # and nothing is missing
    assert [row["Epoch"] for row in read(only(folder.fold_csv(0), "epoch_metrics_*.csv"))] == ["1", "2", "3", "4"]
    assert len(read(only(folder.fold_csv(0), "batch_metrics_*.csv"))) == 12


def test_the_log_tells_progress_epochs_and_new_bests(tmp_path, caplog):
    caplog.set_level(logging.INFO, "ray_jobs")
    train(FoldJournal(RunFolder(tmp_path), 0), 3, **{"val/loss_epoch": 0.5})
    lines = [line.message for line in caplog.records]
    assert lines[0].startswith("epoch 1/3 [1/3  33%] loss 1.000000, learning rate 0.00100000, ETA 00:00:0")
    assert (
        "epoch 1/3 is over: batch loss mean 2.000000, min 0.333333, max 1.000000; validation loss 0.500000, "
        "score 1.000000" in lines[3]
    )
    assert lines[4] == "new best at epoch 1: score 1.000000"
    assert lines[9] == "new best at epoch 2: score 0.000000, better by 1.000000"
    assert not any("new best at epoch 3" in line for line in lines)


def test_the_log_leaves_out_a_learning_rate_and_a_number_of_epochs_that_nobody_says(tmp_path, caplog):
    caplog.set_level(logging.INFO, "ray_jobs")
    journal = FoldJournal(RunFolder(tmp_path), 0)
    journal.log(1, {"train/loss_step": 0.5}, 1.0)
    journal.follow(Progress(1))
    journal.log(1, {"epoch": 0, "score": 0.25}, 2.0)
    lines = [line.message for line in caplog.records]
    assert lines[0] == "step 1 [1] loss 0.500000, ETA unknown"
    assert lines[1].startswith("epoch 1 is over: ")


def test_values_that_are_not_finite_leave_cells_empty_and_are_never_best(tmp_path):
    folder = RunFolder(tmp_path)
    journal = FoldJournal(folder, 0)
    for epoch, score in enumerate((float("nan"), torch.tensor(0.75), np.float32(0.5))):
        journal.log(epoch, {"epoch": epoch, "score": score, "train/loss_epoch": float("inf"), "x": score}, 1.0)
    rows = read(only(folder.fold_csv(0), "epoch_metrics_*.csv"))
    assert [row["Avg_Loss"] for row in rows] == ["", "", ""]
    assert [row["x"] for row in rows] == ["", "0.75", "0.5"]
    assert [row["Is_Best_Model"] for row in rows] == ["False", "True", "True"]


def test_scalars_of_steps_get_columns_too_with_their_last_value(tmp_path):
    folder = RunFolder(tmp_path)
    journal = FoldJournal(folder, 0)
    for step in range(3):
        journal.log(step, {"train/loss": 1.0, "train/grad_norm": step / 2, "epoch": 0.1 * step}, 1.0)
    journal.log(3, {"epoch": 0, "score": 1.0}, 1.0)
    (row,) = read(only(folder.fold_csv(0), "epoch_metrics_*.csv"))
    assert row["train/grad_norm"] == "1.0"
    assert (row["Min_Batch_Loss"], row["Max_Batch_Loss"]) == ("1.000000", "1.000000")


def test_a_text_where_a_number_belongs_ends_the_files_and_not_the_training(tmp_path, caplog):
    folder = RunFolder(tmp_path)
    journal = FoldJournal(folder, 0)
    journal.log(0, {"train/loss_step": "much", "learning_rate": 1e-3}, 1.0)
    journal.log(1, {"epoch": 0, "score": 1.0, "train/loss_epoch": "more"}, 1.0)
    assert "the record goes on" in caplog.text
    assert len(read_lines(folder.fold_record(0))) == 2
