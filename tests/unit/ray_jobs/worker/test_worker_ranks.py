"""What several ranks of a fold do together, as processes of their own without Ray."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from itertools import pairwise
from unittest import mock

import numpy as np
import pytest
import torch.distributed as dist
import torch.multiprocessing as processes
from support.made_blocks import make_keys, make_part

from ensemble.kinds import load_kind
from ray_jobs.config.run import CheckpointConfig, TrackingConfig
from ray_jobs.errors import FoldStoppedError
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.requests import StopWhen, request_stop
from ray_jobs.worker.context import RayFoldContext
from ray_jobs.worker.ranks import Ranks
from ray_jobs.worker.requests import Requests
from ray_jobs.worker.watchdog import Watchdog
from trainers.interface import Split
from trainers.storage.row_blocks import BLOCK_ROWS, fill

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
    found = {"gathered": gathered, "looks": looks, "ended": end_preparation(rank, root)}
    (root / f"rank{rank}.json").write_text(json.dumps(found))


def end_preparation(rank, root):
    """What becomes of a rank that still fills the cache, or has nothing left to fill, when the run is asked to stop."""
    folder = RunFolder(root / "stopped")
    context = RayFoldContext(
        folder, 0, 1, rank=rank, world_size=2, device="cpu", num_threads=1, kind=load_kind("number"),
        tracking=TrackingConfig(), checkpoint=CheckpointConfig(), watchdog=Watchdog(folder, 0, 1, rank, None),
    )  # fmt: skip
    part, computed = make_part(folder.cache, make_keys())

    def compute(positions):
        request_stop(folder, StopWhen.NOW, "a test")
        return part.compute(positions)

    try:
        fill(
            [replace(part, compute=compute)] if rank == 0 else [],
            "encoding",
            Split(0, *[np.array([], str)] * 2),
            context,
        )
    except FoldStoppedError as error:
        return [str(error), len(computed)]
    return []


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


def test_a_stop_while_the_cache_is_filled_ends_the_rank_that_fills_and_the_one_that_waits_for_it(ranks):
    assert ranks[0]["ended"] == [
        "the run was asked to stop: fold 0 ends while it prepares (encoding)",
        BLOCK_ROWS,  # one block
    ]
    assert ranks[1]["ended"] == ["fold 0 was asked to end before it trains", 0]


def test_ranks_look_at_the_same_steps_rarely_where_steps_are_short_and_soon_where_they_are_long(ranks):
    looks = ranks[0]["looks"]
    assert ranks[1]["looks"] == looks
    gaps = [later - earlier for earlier, later in pairwise(looks)]
    assert looks[0] == 501
    assert gaps[:6] == [1, 2, 4, 8, 10, 10]
    assert gaps[-3:] == [2, 2, 2]  # of steps of 0.4 s
