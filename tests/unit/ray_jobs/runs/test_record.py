"""The metric record: what a kill, a survivor, a full disk and odd values leave of it."""

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from support.processes import REPOSITORY

from ray_jobs.errors import RunFolderError
from ray_jobs.runs.record import MetricRecord, RecordReader, count_lines, log_news, read_lines


@pytest.fixture
def reader(tmp_path):
    """A reader of fold_0.jsonl, which is not there yet."""
    with contextlib.closing(RecordReader(tmp_path / "fold_0.jsonl")) as reader:
        yield reader


# Writes rows as fast as it can, from the position that is given; says each position that is safely on the disk.
WRITER = """
import sys
from pathlib import Path
from ray_jobs.runs.record import MetricRecord
path, keep, attempt = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
record = MetricRecord(path, keep=keep)
for step in range(keep, 10**9):
    record.log(step, {"loss": step / 7, "attempt": attempt})
    if step % 50 == 49:
        record.sync()
        print(record.num_lines, flush=True)
"""


def start_writer(path, keep, attempt):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(keep), str(attempt)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_record_numbers_its_lines_and_continues_after_a_torn_one(tmp_path):
    path = tmp_path / "fold_0.jsonl"
    record = MetricRecord(path)
    record.log(1, {"loss": 0.5}, at=1.0)
    record.log(2, {"loss": float("nan")}, at=2.0)
    record.close()
    with path.open("a") as file:
        file.write('{"step":2,"glo')
    record = MetricRecord(path)
    record.log(3, {"loss": 0.25})
    record.close()
    rows = read_lines(path)
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert [row["loss"] for row in rows] == [0.5, None, 0.25]
    assert json.loads(path.read_text().splitlines()[0]) == {"step": 0, "global_step": 1, "time": 1.0, "loss": 0.5}


def test_a_writer_of_an_earlier_attempt_adds_nothing_to_a_fresh_record(tmp_path):
    survivor = MetricRecord(tmp_path / "fold_0.jsonl", keep=0)
    survivor.log(1, {"loss": 1.0})
    record = MetricRecord(tmp_path / "fold_0.jsonl", keep=0)
    survivor.log(2, {"loss": 2.0})
    record.log(1, {"loss": 3.0})
    assert [row["loss"] for row in read_lines(record.path)] == [3.0]


def test_lines_after_the_position_of_a_checkpoint_are_dropped(tmp_path):
    path = tmp_path / "fold_0.jsonl"
    record = MetricRecord(path)
    for step in range(5):
        record.log(step, {"loss": step})
    record = MetricRecord(path, keep=3)
    assert record.log(9, {"loss": 9})["step"] == 3
    assert [row["loss"] for row in read_lines(path)] == [0, 1, 2, 9]
    with pytest.raises(RunFolderError, match="has 4 whole lines, but 7 were written"):
        MetricRecord(path, keep=7)
    assert count_lines(path) == 4


def test_after_a_kill_and_a_restart_at_once_no_row_is_missing_or_double(tmp_path):
    """Ten kills at random moments; each time the next writer goes on from the last position that was synced."""
    path, keep, moments = tmp_path / "fold_0.jsonl", 0, random.Random(0)
    for attempt in range(10):
        with start_writer(path, keep, attempt) as writer:
            synced = [int(writer.stdout.readline()) for _ in range(moments.randint(1, 5))]
            time.sleep(moments.random() * 0.01)
            writer.send_signal(signal.SIGKILL)
            synced += [int(line) for line in writer.stdout]
        keep = synced[-1]
        MetricRecord(path, keep=keep).close()
        rows = read_lines(path)
        assert [row["step"] for row in rows] == list(range(keep))
        assert [row["loss"] for row in rows] == [step / 7 for step in range(keep)]
    assert len({row["attempt"] for row in rows}) > 1


def test_a_survivor_that_goes_on_writing_adds_nothing(tmp_path):
    path = tmp_path / "fold_0.jsonl"
    with start_writer(path, 0, "survivor") as survivor:
        keep = int(survivor.stdout.readline())
        with start_writer(path, keep, "successor") as successor:
            for writer in (successor, survivor, successor, survivor):
                writer.stdout.readline()
            last = int(successor.stdout.readline())
            survivor.kill()
            successor.kill()
    rows = read_lines(path)
    assert len(rows) >= last
    assert [row["step"] for row in rows] == list(range(len(rows)))
    assert {row["attempt"] for row in rows[:keep]} == {"survivor"}
    assert {row["attempt"] for row in rows[keep:]} == {"successor"}


def test_a_full_disk_leaves_no_half_line(tmp_path):
    """A limit on the file's size stands for the disk."""
    path = tmp_path / "fold_0.jsonl"
    record = MetricRecord(path)
    record.log(0, {"loss": 1.0})
    size, limits = path.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))
    try:
        with pytest.raises(OSError, match="only 20 of"):
            record.log(1, {"loss": 2.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.stat().st_size == size
    record.log(1, {"loss": 3.0})
    assert [row["loss"] for row in read_lines(path)] == [1.0, 3.0]


def test_scalars_of_numpy_and_torch_are_numbers_and_other_things_are_refused(tmp_path):
    record = MetricRecord(tmp_path / "fold_0.jsonl")
    values = {
        "a": np.float32(0.5),
        "b": np.int64(3),
        "c": torch.tensor(2.5),
        "d": "cpu",
        "e": True,
        "f": np.float64("inf"),
    }
    record.log(0, values | {"table": {"columns": ["x"], "data": [[float("nan")], [1]]}})
    row = read_lines(record.path)[0]
    assert [row[name] for name in "abcdef"] == [0.5, 3, 2.5, "cpu", True, None]
    assert row["table"] == {"columns": ["x"], "data": [[None], [1]]}
    with pytest.raises(TypeError, match="a metric must be a number"):
        record.log(1, {"a": np.zeros(3)})
    assert count_lines(record.path) == 1


def test_a_reader_follows_a_growing_record_and_waits_for_the_end_of_a_line(tmp_path, reader):
    path = tmp_path / "fold_0.jsonl"
    assert reader.read_new() == []
    record = MetricRecord(path)
    record.log(0, {"loss": 1})
    assert [row["step"] for row in reader.read_new()] == [0]
    with path.open("a") as file:
        file.write('{"step":1,"loss"')
        file.flush()
        assert reader.read_new() == []
        file.write(':5}\n{"step":2,"loss":6}\n')
    assert [row["loss"] for row in reader.read_new(limit=1)] == [5]
    assert [row["loss"] for row in reader.read_new()] == [6]


def test_a_reader_gives_no_row_twice_when_a_new_attempt_repeats_it(tmp_path, reader):
    path = tmp_path / "fold_0.jsonl"
    first = MetricRecord(path)
    for step in range(4):
        first.log(step, {"loss": step})
    assert len(reader.read_new()) == 4
    second = MetricRecord(path, keep=1)
    first.log(4, {"loss": -1})
    for step in range(1, 3):
        second.log(step, {"loss": step})
    assert reader.read_new() == []
    for step in range(3, 6):
        second.log(step, {"loss": step})
    assert [(row["step"], row["loss"]) for row in reader.read_new()] == [(4, 4), (5, 5)]


def test_the_record_of_a_run_can_be_read_while_it_is_replaced(tmp_path, reader):
    path, seen = tmp_path / "fold_0.jsonl", []
    for attempt in range(20):
        record = MetricRecord(path, keep=min(attempt * 3, count_lines(path)))
        while record.num_lines < attempt * 3 + 5:
            record.log(0, {"loss": record.num_lines})
            seen += [row["step"] for row in reader.read_new()]
        record.close()
    assert seen == list(range(62))
    assert os.listdir(tmp_path) == ["fold_0.jsonl"]
    assert json.loads(path.read_text().splitlines()[-1])["step"] == 61


def test_a_row_that_would_only_repeat_what_is_known_is_left_out(tmp_path):
    path = tmp_path / "submission.jsonl"
    first = {
        "ensemble/method": "mean",
        "ensemble/pred_std_max": np.float32(0.1),
        "ensemble/model_weights": {"columns": []},
    }
    for metrics in (
        first,
        first,
        {"ensemble/figures/loss": {"image": "a.png"}},
        first,
        {"ensemble/method": "median"},
        first,
    ):
        log_news(path, metrics)
    rows = read_lines(path)
    assert [row.get("ensemble/method") for row in rows] == ["mean", None, "median", "mean"]
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
