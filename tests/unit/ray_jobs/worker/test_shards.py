"""What only one rank has: two ranks write their parts of checkpoints and resume points, on one file system or through
objects."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from support import tiny_trainer
from support.local_context import KilledError
from support.object_server import BUCKET, serving_objects

from ensemble.kinds import load_kind
from ray_jobs.config.run import CheckpointConfig, TrackingConfig
from ray_jobs.runs.checkpoints import open_checkpoint
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import read_lines
from ray_jobs.runs.remote.fold_mirror import FoldMirror
from ray_jobs.runs.remote.no_mirror import NO_MIRROR
from ray_jobs.tracking.journal import FoldJournal
from ray_jobs.worker import context as context_module
from ray_jobs.worker.context import RayFoldContext
from ray_jobs.worker.resume import ResumePoints
from ray_jobs.worker.watchdog import Watchdog
from trainers.interface import ResumePoint

POINTS = 5  # more than there are places
KILLS = (2, 9, 17)  # steps; of 13 in the first stage and 12 in the second


def build(
    root: Path, rank: int, world_size: int, attempt: int, uri: str | None = None, name: str = "run"
) -> RayFoldContext:
    """A context whose record is open, without Ray. With objects each rank has a machine of its own."""
    folder = RunFolder(root / (name if uri is None else f"machine{rank}/{name}"))
    folder.root.mkdir(parents=True, exist_ok=True)
    mirror = NO_MIRROR if uri is None else FoldMirror(folder, uri, 0, attempt)
    mirror.bring()
    context = RayFoldContext(
        folder, 0, attempt, rank=rank, world_size=world_size, device="cpu", num_threads=1, kind=load_kind("number"),
        tracking=TrackingConfig(), checkpoint=CheckpointConfig(min_interval_s=0, every_steps=4),
        watchdog=Watchdog(folder, 0, 1, rank, None),
        mirror=mirror,
    )  # fmt: skip
    context.root, context._report_to_train = root, lambda metrics: None
    context.point = context._find_point()
    if context.point is not None:
        context.recording.stage = context.point.description["stage"]
    if rank == 0:
        keep = 0 if context.point is None else context.point.description["record_lines"]
        context.recording.journal = FoldJournal(folder, 0, keep=keep)
        mirror.begin_record()
    if mirror.uri:
        context.shards.mirror = mirror if rank else NO_MIRROR
        context_module.bring_for_node = lambda mirror, _, name: mirror.bring_checkpoint(name) if rank else None
    return context


def describe(context: RayFoldContext, step: int) -> ResumePoint:
    """What differs by rank and step."""
    shard = {"moment": torch.full((50,), step + context.rank / 10)}
    return ResumePoint({"weight": torch.tensor(float(step))}, {"sum": torch.tensor(1.0)}, {"step": step}, shard)


def save(context: RayFoldContext, root: Path) -> None:
    files = root / "tokenizer"
    for step in range(1, POINTS + 1):
        context.log(step, {"loss": step})
        context.save_checkpoint(
            "best",
            {"bias": torch.tensor(step)},
            {"step": step},
            shard={f"layer{context.rank}": torch.full((9,), step)},
            files=files if context.rank == 0 else None,
        )
        context.save_resume_point(describe(context, step), step)
    context.points.wait()
    context.ranks.wait()


def show(context: RayFoldContext) -> dict:
    """What a rank finds."""
    point = context.load_resume_point()
    tensors = context.load_checkpoint("best")
    return {
        "step": point.facts["step"],
        "shard": {name: tensor[0].item() for name, tensor in point.shard.items()},
        "shards": [shard["moment"][0].item() for shard in point.shards],
        "best": {name: tensor.flatten()[0].item() for name, tensor in sorted(tensors.items())},
        "files": (context.find_files("best") / "vocabulary.txt").read_text(),
    }


def run_rank(rank: int, root: Path, uri: str | None) -> None:
    """A rank's two attempts."""
    dist.init_process_group("gloo", f"file://{root}/meeting", rank=rank, world_size=2)
    save(build(root, rank, 2, 1, uri), root)
    (root / f"found{rank}.json").write_text(json.dumps(show(build(root, rank, 2, 2, uri))))
    for name, kills in (("whole", ()), *((f"killed{step}", (step, step + 6)) for step in list_kills(uri))):
        train_tiny(root, rank, uri and f"{uri}_{name}", name, kills)
    dist.barrier()
    dist.destroy_process_group()


def list_kills(uri: str | None) -> tuple[int, ...]:
    """Through objects each step takes longer."""
    return KILLS if uri is None else KILLS[1:2]


def train_tiny(root: Path, rank: int, uri: str | None, name: str, kills: tuple[int, ...]) -> None:
    """The tiny trainer to its end, killed after these steps."""
    for attempt, stop_at in enumerate((*kills, None), start=1):
        context = build(root, rank, 2, attempt, uri, name)
        log_step = context.log_step
        assert (context.point is None) == (attempt == 1 or (attempt == 2 and kills[0] < 4))  # saved every 4 steps

        def log_or_die(step, metrics, stop_at=stop_at, log_step=log_step):
            log_step(step, metrics)
            if step == stop_at:
                raise KilledError

        context.log_step = log_or_die
        torch.manual_seed(attempt)
        try:
            tiny_trainer.train(context)
        except KilledError:
            context.points.wait()  # as much as a kill may find done
        dist.barrier()
    if rank == 0:
        context.recording.close()


@pytest.fixture(scope="module", params=["one file system", "objects"])
def run(request, tmp_path_factory):
    """Root, uri, and what two ranks have found after both were started again."""
    root = tmp_path_factory.mktemp("shards")
    (root / "tokenizer").mkdir()
    (root / "tokenizer" / "vocabulary.txt").write_text("a b c")
    (root / "tokenizer" / "words.txt").write_text("a b")
    if request.param == "one file system":
        yield root, None, train(root, None)
        return
    with serving_objects() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        uri = f"s3://{BUCKET}/shards/run"
        yield root, uri, train(root, uri)


def train(root: Path, uri: str | None) -> list[dict]:
    processes.spawn(run_rank, (root, uri), nprocs=2)
    return [json.loads((root / f"found{rank}.json").read_text()) for rank in range(2)]


def list_folders(root: Path, uri: str | None) -> list[RunFolder]:
    return [RunFolder(root / name) for name in (["run"] if uri is None else ["machine0/run", "machine1/run"])]


def test_each_rank_goes_on_from_what_it_alone_had_and_all_have_the_whole_checkpoint(run):
    for rank, found in enumerate(run[2]):
        assert found["step"] == POINTS
        assert found["shard"]["moment"] == pytest.approx(POINTS + rank / 10)
        assert found["shards"] == []
        assert found["best"] == {"bias": POINTS, "layer0": POINTS, "layer1": POINTS}
        assert found["files"] == "a b c"


def read_bits(folder: RunFolder) -> dict:
    """All of a fold's checkpoints and predictions, and its record without the times."""
    fold = folder.fold(0)
    bits = {name: [open_checkpoint(fold.checkpoint(name)).shards] for name in ("best", "final", "sft")}
    bits |= {path.name: path.read_bytes() for path in (fold.root / "predictions").iterdir()}
    times = ("time", "fold_0/setup/")
    return bits | {
        "record": [
            {key: value for key, value in row.items() if not key.startswith(times)}
            for row in read_lines(folder.fold_record(0))
        ]
    }


def test_a_fold_of_two_stages_that_is_killed_in_each_ends_with_the_same_bits(run):
    root, uri, _ = run
    place = "" if uri is None else "machine0/"
    whole = read_bits(RunFolder(root / f"{place}whole"))
    assert [row["global_step"] for row in whole["record"] if "fold_0/grpo/train/loss_step" in row] == list(
        range(14, 26)
    )
    assert len(whole["best"][0]) == 2
    for step in list_kills(uri):
        assert read_bits(RunFolder(root / f"{place}killed{step}")) == whole


def test_nothing_is_left_of_what_does_not_count_any_more(run):
    root, uri, _ = run
    folder = list_folders(root, uri)[0]
    names = [path.name.partition("-")[0] for path in folder.fold(0).checkpoint("best").iterdir()]
    # Of the checkpoint as it was at each of the two points, and at the one that the last has replaced.
    assert sorted(names) == ["checkpoint.json", "files", *3 * ["model"], *3 * ["shard0"], *3 * ["shard1"]]
    if uri is None:
        assert len(list(folder.fold(0).root.rglob("shard*"))) == 10  # and of the two points themselves
    else:
        objects = FoldMirror(folder, uri, 0, 9).bucket.list()
        # Another machine keeps one more of each point.
        assert 10 <= len([name for name in objects if "/shard" in name]) <= 12


def test_one_rank_gets_the_parts_of_both(run, monkeypatch):
    root, uri, _ = run
    context = build(root, 0, 1, 3, uri)
    found = show(context)
    assert found["shard"] == {}
    assert found["shards"] == pytest.approx([POINTS, POINTS + 0.1])


def test_a_point_of_which_one_rank_s_part_is_damaged_does_not_count(run, caplog):
    root, uri, _ = run
    folder = list_folders(root, uri)[0]
    newest = max(
        (folder.fold(0).checkpoint(name) for name in ("resume_0", "resume_1")),
        key=lambda path: open_checkpoint(path).description["global_step"],
    )
    (part,) = (path for path in newest.glob("shard1-*") if path.name == open_checkpoint(newest).shards[1].name)
    content = part.read_bytes()
    part.write_bytes(content[:-1] + b"\0")
    try:
        found = ResumePoints(folder.fold(0)).find_newest()
        assert found.description["global_step"] == POINTS - 1
        assert "the one before counts" in caplog.text
    finally:
        part.write_bytes(content)
