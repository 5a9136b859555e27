"""TensorBoard's files: every row of the record once, whatever kills the publisher, and without W&B."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import time

import pytest
from support.publishing import fill
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from ray_jobs.runs.record import MetricRecord, read_lines
from ray_jobs.tracking.tensorboard_files import BoardFile, count_events, encode_row
from ray_jobs.tracking.wandb_runs import list_wandb_runs
from ray_jobs.tracking.wandb_sink import PUBLISHER, WandbSink


def read_events(path):
    """What a reader of TensorBoard's files finds: frames, checksums, messages."""
    content, events = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        assert struct.unpack("<I", content[8:12])[0] == masked_crc32c(content[:8])
        data, content = content[12 : 12 + length], content[12 + length :]
        assert struct.unpack("<I", content[:4])[0] == masked_crc32c(data)
        content = content[4:]
        events.append(Event.FromString(data))
    assert events[0].file_version == "brain.Event:2"
    return events[1:]


def assert_holds(path, record):
    """Every row once, in its order, with its numbers."""
    events, rows = read_events(path), read_lines(record)
    assert [event.step for event in events] == [row["global_step"] for row in rows]
    for event, row in zip(events, rows, strict=True):
        assert event.wall_time == row["time"]
        numbers = {name: value for name, value in row.items() if isinstance(value, (int, float))}
        found = {value.tag: value.simple_value for value in event.summary.value}
        assert found == pytest.approx({n: v for n, v in numbers.items() if n not in ("step", "global_step", "time")})


def board(folder):
    return folder.tensorboard / "fold_0" / "events.out.tfevents.0.kfold"


def test_a_row_is_an_event_with_its_numbers_alone():
    table = {"columns": ["fold"], "data": [[0]]}
    row = {"step": 3, "global_step": 300, "time": 5.5, "a/loss": 0.25, "is_best": True, "text": "x", "no": None}
    event = Event.FromString(encode_row(row | {"table": table, "large": 1e300}))
    assert (event.step, event.wall_time) == (300, 5.5)
    assert {value.tag: value.simple_value for value in event.summary.value} == {"a/loss": 0.25, "is_best": 1.0}
    assert Event.FromString(encode_row({"global_step": 0, "time": 1.0})).HasField("summary")
    assert crc32c(b"123456789") == 0xE3069283


def publish_new(folder, spec):
    with contextlib.closing(BoardFile(folder, spec)) as file:
        return file.publish_new()


@pytest.mark.parametrize("lost", [0, 1, 5, 16, 17, 200])
def test_what_a_kill_has_torn_is_cut_off_and_written_once(make_run, lost):
    folder, config = make_run(40)
    (spec,) = [run for run in list_wandb_runs(folder, config) if run.key == "fold_0"]
    assert publish_new(folder, spec) == 40
    assert count_events(board(folder)) == (41, board(folder).stat().st_size)
    with board(folder).open("ab") as file:
        file.truncate(board(folder).stat().st_size - lost)
    record = MetricRecord(spec.record, keep=40)
    record.log(40, {"fold_0/late": 1})
    record.close()
    assert publish_new(folder, spec) >= 1
    assert publish_new(folder, spec) == 0
    assert_holds(board(folder), spec.record)


def test_a_file_that_lost_its_beginning_is_written_anew(make_run):
    folder, config = make_run(3)
    (spec,) = [run for run in list_wandb_runs(folder, config) if run.key == "fold_0"]
    board(folder).parent.mkdir(parents=True)
    board(folder).write_bytes(b"\0" * 64)
    publish_new(folder, spec)
    assert_holds(board(folder), spec.record)


def test_a_run_without_wandb_has_its_files_though_the_publisher_is_killed(make_run, tmp_path):
    folder, config = make_run(200, tensorboard=True, wandb="disabled")
    command = [*PUBLISHER, str(folder.root), "disabled"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as killed:
        while count_events(board(folder))[0] == 0:
            assert killed.poll() is None
            time.sleep(0.05)
        killed.kill()
    for fold in (0, 1):
        fill(folder.fold_record(fold), fold, 260, keep=200)
    said = []
    sink = WandbSink(folder, config, said.append)
    sink.start()
    assert not sink.finish(60)
    assert said[0] == "W&B: disabled, as tracking.wandb says"
    assert not [line for line in said[1:] if "W&B" in line]
    for fold in (0, 1):
        path = folder.tensorboard / f"fold_{fold}" / board(folder).name
        assert_holds(path, folder.fold_record(fold))
    assert not list(folder.wandb.glob("*run-*"))


def test_nothing_is_written_unless_it_is_asked_for(make_run):
    folder, config = make_run(5, wandb="disabled")
    sink = WandbSink(folder, config, print)
    sink.start()
    sink.finish(10)
    assert not folder.tensorboard.exists()
