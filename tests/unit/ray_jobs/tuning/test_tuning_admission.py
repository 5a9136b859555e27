"""So many trials at once that all of their folds fit."""

import math

import pytest

from ray_jobs.cluster.placement import ClusterResources, Resources, place_folds
from ray_jobs.config.resources import ResourcesConfig
from ray_jobs.errors import ClusterError
from ray_jobs.tuning.admission import admit_trials

GIB = 2**30


def cluster(*nodes, types=()):
    nodes, types = ([Resources(*(*node, 64 * GIB)[:3]) for node in part] for part in (nodes, types))
    cpus, gpus = (sum(amounts) for amounts in ([node.cpus for node in nodes], [node.gpus for node in nodes]))
    return ClusterResources(cpus, gpus, tuple(nodes), tuple(types))


@pytest.mark.parametrize(
    ("nodes", "folds_each", "at_once", "per_worker"),
    [
        ([(2, 0)], 3, 1, 0.666),  # one trial has the machine, as kfold.py
        ([(2, 0)], 1, 2, 1.0),  # with asha one fold of each of two
        ([(16, 0)], 3, 5, 1.0),
        ([(16, 0)], 5, 3, 1.0),
        ([(8, 0), (8, 0)], 3, 5, 1.0),
        ([(1, 0)], 3, 1, 0.333),
    ],
)
def test_trials_share_cores_as_long_as_each_fold_has_a_whole_one(nodes, folds_each, at_once, per_worker):
    placement, admitted = admit_trials(ResourcesConfig(), cluster(*nodes), folds_each, 100)
    assert (admitted, placement.cpus_per_worker, placement.folds_at_once) == (at_once, per_worker, folds_each)
    assert admitted * folds_each * placement.cpus_per_worker <= sum(cpus for cpus, _ in nodes)
    assert admitted * folds_each * placement.threads_per_worker <= max(folds_each, sum(cpus for cpus, _ in nodes))


@pytest.mark.parametrize(
    ("gpus", "folds_each", "at_once", "per_worker"), [(1, 3, 1, 0.333), (2, 3, 1, 0.5), (3, 3, 1, 1.0), (8, 3, 2, 1.0),
                                                      (8, 1, 8, 1.0)]
)  # fmt: skip
def test_trials_share_gpus_as_long_as_each_fold_has_a_whole_one(gpus, folds_each, at_once, per_worker):
    placement, admitted = admit_trials(ResourcesConfig(), cluster((64, gpus)), folds_each, 100)
    assert (admitted, placement.gpus_per_worker) == (at_once, per_worker)


def test_a_trial_alone_is_placed_as_a_run_is():
    for nodes in ([(2, 0)], [(16, 0)], [(16, 2)], [(4, 1), (4, 1)]):
        alone, _ = admit_trials(ResourcesConfig(), cluster(*nodes), 3, 100, limit=1)
        assert alone == place_folds(ResourcesConfig(), cluster(*nodes), 3)


@pytest.mark.parametrize(
    ("resources", "at_once"),
    [
        ({"cpus_per_fold": 1}, 5),
        ({"cpus_per_fold": 0.5}, 10),
        ({"cpus_per_fold": 4}, 1),
        ({"cpus_per_fold": 8}, 1),  # two folds at a time: they take turns
        ({"cpus_per_fold": 1, "workers_per_fold": 2}, 5),
        ({"cpus_per_fold": 2, "workers_per_fold": 2}, 2),
        ({"memory_per_fold": "8GiB"}, 2),
        ({"max_folds_at_once": 7}, 2),
        ({"max_folds_at_once": 2}, 1),
    ],
)
def test_what_is_asked_for_a_fold_decides_how_many_trials_fit(resources, at_once):
    placement, admitted = admit_trials(ResourcesConfig(**resources), cluster((16, 0)), 3, 100)
    assert admitted == at_once
    assert placement.folds_at_once <= 3
    assert placement.slots >= min(admitted * 3, placement.folds_at_once) * placement.num_workers


def test_never_more_trials_than_there_are_or_may_be():
    assert admit_trials(ResourcesConfig(), cluster((64, 0)), 3, 4)[1] == 4
    assert admit_trials(ResourcesConfig(), cluster((64, 0)), 3, 100, limit=2)[1] == 2


def test_few_trials_on_many_cores_have_threads():
    placement, admitted = admit_trials(ResourcesConfig(), cluster((64, 0)), 3, 4)
    assert admitted * 3 * placement.threads_per_worker == 60


def test_an_autoscaler_may_bring_room_for_all():
    scaling = cluster((0, 0), (8, 0, math.inf), types=[(8, 0, math.inf)] * 3)  # one of the three is there
    assert admit_trials(ResourcesConfig(cpus_per_fold=1), scaling, 3, 20)[1] == 8
    unknown = cluster((0, 0), types=[(math.inf, math.inf, math.inf)])
    assert admit_trials(ResourcesConfig(cpus_per_fold=1, gpus_per_fold=0), unknown, 3, 20)[1] == 20


def test_what_no_node_can_hold_is_refused():
    with pytest.raises(ClusterError, match="no node can hold a worker"):
        admit_trials(ResourcesConfig(cpus_per_fold=8), cluster((4, 0)), 3, 10)
