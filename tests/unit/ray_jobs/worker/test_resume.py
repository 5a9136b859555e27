"""The points from which a fold goes on: random generators, two places, damage."""

import random

import numpy as np
import pytest
import torch

from ray_jobs.runs.folder import RunFolder
from ray_jobs.worker.resume import ResumePoints, get_random_state, set_random_state


@pytest.fixture
def points(tmp_path):
    return ResumePoints(RunFolder(tmp_path).fold(0))


def write(points, step, epoch=0, lines=0):
    tensors = {"shared/weight": torch.full((3,), float(step)), "rank0/own/total": torch.tensor(step / 2)}
    tensors |= {f"rank0/random/{name}": tensor for name, tensor in get_random_state().items()}
    points.write(tensors, {"facts": {"step": step}, "global_step": step, "epoch": epoch, "record_lines": lines})
    points.wait()


def draw():
    return random.gauss(0, 1), np.random.standard_normal(), torch.rand(2).tolist()


def test_every_random_generator_goes_on_where_it_was():
    random.gauss(0, 1)
    np.random.standard_normal()
    state = get_random_state()
    drawn = [draw() for _ in range(3)]
    set_random_state(state)
    assert [draw() for _ in range(3)] == drawn


@pytest.mark.parametrize("card", [0, 1])
def test_the_generator_of_the_card_in_use_goes_on_on_the_card_in_use_then(monkeypatch, card):
    restored, current = {}, [0]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[0])
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda number: torch.tensor([number + 7], dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, number: restored.update({number: state.tolist()}))
    state = get_random_state()
    current[0] = card
    set_random_state(state)
    assert restored == {card: [7]}


def test_the_newest_point_counts_and_comes_back_as_it_was(points):
    for step in (1, 2, 3):
        write(points, step)
        expected = draw()
    stored = ResumePoints(points.files).find_newest()
    point = stored.for_rank(0, 1)
    assert point.facts == {"step": 3}
    assert torch.equal(point.tensors["weight"], torch.full((3,), 3.0))
    assert float(point.own["total"]) == 1.5
    stored.restore_random_state(0)
    assert draw() == expected


def test_of_two_points_of_one_step_the_one_after_the_validation_counts(points):
    for step, epoch, lines in ((4, 0, 4), (4, 1, 5), (8, 1, 9), (8, 2, 10), (12, 2, 14), (12, 2, 15)):
        write(points, step, epoch, lines)
        newest = ResumePoints(points.files).find_newest().description
        assert (newest["global_step"], newest["epoch"], newest["record_lines"]) == (step, epoch, lines)


@pytest.mark.parametrize("damage", ["cut", "flipped", "torn manifest", "flipped manifest"])
def test_a_damaged_point_is_said_and_the_one_before_counts(points, caplog, damage):
    for step in (1, 2):
        write(points, step)
    newest = points.files.checkpoint(points.find_newest().place)
    (file,) = newest.glob("model-*.safetensors")
    content = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(content[:100])
    elif damage == "flipped":
        content[-1] ^= 1
        file.write_bytes(content)
    elif damage == "torn manifest":
        (newest / "checkpoint.json").write_text('{"tensors": "mo')
    else:  # another step: only the manifest's own checksum tells
        text = (newest / "checkpoint.json").read_text()
        (newest / "checkpoint.json").write_text(text.replace('"step": 2', '"step": 3'))
    again = ResumePoints(points.files)
    assert again.find_newest().description["global_step"] == 1
    assert "is damaged, the one before counts" in caplog.text
    write(again, 5)  # takes the damaged one's place
    assert ResumePoints(points.files).find_newest().description["global_step"] == 5
    assert len(list(points.files.root.rglob("*.safetensors"))) == 2


def test_a_point_that_cannot_be_written_costs_only_itself(points, caplog):
    write(points, 1)
    place = points.files.checkpoint(points.next_place)
    place.write_text("a file where the folder should be")
    write(points, 2)
    assert "could not be written, the one before counts" in caplog.text
    assert ResumePoints(points.files).find_newest().description["global_step"] == 1
    place.unlink()
    write(points, 3)  # where the failed one should have been, and not over the only one there is
    steps = [points.read(name).description["global_step"] for name in ("resume_0", "resume_1")]
    assert steps == [1, 3]


def test_no_point_is_written_where_the_run_is_not(points):
    def refuse():
        raise FileNotFoundError("the storage is away")

    points.check = refuse
    write(points, 1)
    assert not points.files.root.exists()


def test_another_number_of_ranks_shares_the_sums_and_none_repeats_what_another_has_drawn(points):
    torch.manual_seed(1)
    first = get_random_state()
    torch.manual_seed(2)
    tensors = {"rank0/own/total": torch.tensor(3.0), "rank1/own/total": torch.tensor(4.5)}
    for rank, state in enumerate((first, get_random_state())):
        tensors |= {f"rank{rank}/random/{name}": tensor for name, tensor in state.items()}
    points.write(tensors, {"facts": {}, "global_step": 7, "epoch": 0})
    points.wait()
    stored = points.find_newest()
    assert [float(stored.for_rank(rank, 2).own["total"]) for rank in range(2)] == [3.0, 4.5]
    assert [float(stored.for_rank(rank, 3).own["total"]) for rank in range(3)] == [7.5, 0.0, 0.0]
    assert float(stored.for_rank(0, 1).own["total"]) == 7.5
    drawn = []
    for rank in (0, 1, 2, 3, 2):
        stored.restore_random_state(rank)
        drawn.append(draw())
    assert len(set(map(str, drawn))) == 4
    assert drawn[2] == drawn[4]  # from the point alone, whatever this process has done before
    set_random_state(first)
    assert draw() == drawn[0]


def test_points_of_a_complete_fold_are_removed(points):
    write(points, 1)
    write(points, 2)
    points.remove()
    assert points.find_newest() is None
    assert not list(points.files.root.rglob("*.safetensors"))
