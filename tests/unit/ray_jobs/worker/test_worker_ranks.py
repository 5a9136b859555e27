"""What several ranks of a fold do together, as processes of their own without Ray."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from unittest import mock

import pytest
import torch.distributed as dist
import torch.multiprocessing as processes

from ray_jobs.runs.folder import RunFolder
from ray_jobs.worker.ranks import Ranks
from ray_jobs.worker.requests import Requests

NUM_MAPS, AT_ONCE = (17, 3), 16  # of each rank: more than are sent at once, and fewer
STEP_S = [0.001] * 40 + [0.4] * 30  # how long each step takes


def run_rank(rank, root):
    dist.init_process_group("gloo", f"file://{root}/meeting", rank=rank, world_size=2)
    folder = RunFolder(root)
    ranks = Ranks(rank, 2, "cpu")
    requests = Requests(folder, folder.fold(0), 1, ranks, 10)
    own = (f"{rank}_{number}" for number in range(NUM_MAPS[rank]))
    gathered = list(ranks.stream_to_first(own, AT_ONCE))
    looks, clock = [], mock.Mock(return_value=1000.0)
    with mock.patch.object(time, "monotonic", clock):
        for step, seconds in enumerate(STEP_S, start=501):  # as a fold that goes on
            clock.return_value += seconds * (1 + rank)  # no two clocks are the same
            requests.look(step)
            looks += [step] if requests.last_step == step else []
    (root / f"rank{rank}.json").write_text(json.dumps({"gathered": gathered, "looks": looks}))


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    root = tmp_path_factory.mktemp("ranks")
    processes.spawn(run_rank, (root,), nprocs=2)
    return [json.loads((root / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_rank_0_has_the_maps_of_all_ranks(ranks):
    expected = {f"{rank}_{number}" for rank in range(2) for number in range(NUM_MAPS[rank])}
    assert len(ranks[0]["gathered"]) == sum(NUM_MAPS)
    assert set(ranks[0]["gathered"]) == expected
    assert ranks[1]["gathered"] == []


def test_ranks_look_at_the_same_steps_rarely_where_steps_are_short_and_soon_where_they_are_long(ranks):
    looks = ranks[0]["looks"]
    assert ranks[1]["looks"] == looks
    gaps = [later - earlier for earlier, later in pairwise(looks)]
    assert looks[0] == 501
    assert gaps[:6] == [1, 2, 4, 8, 10, 10]
    assert gaps[-3:] == [2, 2, 2]  # of steps of 0.4 s
