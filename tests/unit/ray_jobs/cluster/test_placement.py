"""How many folds run at once, and with what."""

import math
from dataclasses import replace

import pytest

from ray_jobs.cluster.placement import (
    ClusterResources,
    Resources,
    add_workers,
    count_in_memory,
    find_gain,
    place_folds,
    share_workers,
)
from ray_jobs.config.resources import ResourcesConfig, parse_memory
from ray_jobs.errors import ClusterError

GIB = 2**30
UNKNOWN = (math.inf, math.inf, math.inf)


def cluster(*nodes, types=()):
    """Nodes as (CPUs, GPUs) with 8 GiB each, or (CPUs, GPUs, bytes)."""
    nodes, types = ([Resources(*(*node, 8 * GIB)[:3]) for node in part] for part in (nodes, types))
    cpus, gpus = (sum(amounts) for amounts in ([node.cpus for node in nodes], [node.gpus for node in nodes]))
    return ClusterResources(cpus, gpus, tuple(nodes), tuple(types))


def test_three_folds_share_two_cores_and_all_run_together():
    placement = place_folds(ResourcesConfig(), cluster((2, 0)), 3)
    assert placement.folds_at_once == 3
    assert 3 * placement.cpus_per_worker <= 2
    assert placement.threads_per_worker == 1


def test_many_cores_become_threads():
    placement = place_folds(ResourcesConfig(), cluster((16, 0)), 3)
    assert (placement.cpus_per_worker, placement.threads_per_worker) == (1.0, 5)


@pytest.mark.parametrize(("gpus", "per_worker", "at_once"), [(1, 0.333, 3), (2, 0.5, 3), (3, 1.0, 3), (8, 1.0, 3)])
def test_folds_share_gpus_only_when_there_are_fewer_than_folds(gpus, per_worker, at_once):
    placement = place_folds(ResourcesConfig(), cluster((32, gpus)), 3)
    assert (placement.gpus_per_worker, placement.folds_at_once) == (per_worker, at_once)


@pytest.mark.parametrize(("gpus", "share", "at_once"), [(1, 0.33, 3), (2, 0.4, 4), (2, 0.6, 2), (2, 0.1, 20)])
def test_a_share_of_a_gpu_is_never_pieced_together_from_two(gpus, share, at_once):
    config = ResourcesConfig(gpus_per_fold=share, cpus_per_fold=1)
    assert place_folds(config, cluster((32, gpus)), 24).folds_at_once == at_once


def test_workers_of_one_fold_never_share_a_gpu():
    placement = place_folds(ResourcesConfig(workers_per_fold=2), cluster((16, 2)), 3)
    assert (placement.gpus_per_worker, placement.folds_at_once) == (1.0, 1)
    with pytest.raises(ValueError, match="NCCL refuses"):
        ResourcesConfig(workers_per_fold=2, gpus_per_fold=0.5)


def test_a_head_node_without_gpu_does_not_inflate_the_cores_of_a_gpu_worker():
    placement = place_folds(ResourcesConfig(), cluster((64, 0), (8, 1), (8, 1), (8, 1)), 3)
    assert placement.worker_resources() == {"CPU": 8.0, "GPU": 1.0}


def test_the_user_can_keep_gpus_out():
    assert place_folds(ResourcesConfig(gpus_per_fold=0), cluster((4, 4)), 2).gpus_per_worker == 0


def test_a_request_that_no_node_can_hold_is_an_error_that_lists_the_nodes():
    with pytest.raises(ClusterError, match=r"1 CPU and 2 GPU.*nodes: 4 CPU/1 GPU"):
        place_folds(ResourcesConfig(gpus_per_fold=2, cpus_per_fold=1), cluster((4, 1)), 3)


def test_on_an_autoscaling_cluster_a_feasible_request_waits_and_says_for_what():
    placement = place_folds(ResourcesConfig(gpus_per_fold=1), cluster((2, 0), types=[(8, 1)]), 3)
    assert placement.waits_for == "a node with 8 CPU and 1 GPU"
    with pytest.raises(ClusterError, match="node types that can be started: 8 CPU/1 GPU"):
        place_folds(ResourcesConfig(gpus_per_fold=4), cluster((2, 0), types=[(8, 1)]), 3)


def test_auto_never_silently_trains_on_cpus_where_gpus_could_be_started():
    with pytest.raises(ClusterError, match=r"set 1 to wait for GPUs"):
        place_folds(ResourcesConfig(), cluster((2, 0), types=[(8, 1)]), 3)


def test_folds_of_all_members_run_at_once_where_each_has_room_of_its_own():
    assert place_folds(ResourcesConfig(), cluster((96, 12)), 3, 12).folds_at_once == 12
    assert place_folds(ResourcesConfig(cpus_per_fold=4), cluster((16, 0)), 3, 12).folds_at_once == 4
    assert place_folds(ResourcesConfig(), cluster((96, 12)), 3, 2).folds_at_once == 2


def test_the_cores_are_divided_among_the_folds_of_one_plan_and_no_more_run_at_once():
    placement = place_folds(ResourcesConfig(), cluster((32, 0)), 3, 12)
    assert (placement.folds_at_once, placement.threads_per_worker) == (3, 10)


def test_gpus_that_could_be_started_count_so_that_folds_do_not_share_the_one_that_is_there():
    placement = place_folds(ResourcesConfig(), cluster((8, 1), types=[(8, 1)] * 8), 5)
    assert (placement.gpus_per_worker, placement.folds_at_once) == (1.0, 5)


def test_one_fold_after_another_on_request():
    assert place_folds(ResourcesConfig(max_folds_at_once=1), cluster((8, 0)), 3).folds_at_once == 1


@pytest.mark.parametrize("fields", [{"gpus_per_fold": 1.5}, {"gpus_per_fold": float("nan")}, {"cpus_per_fold": 0}])
def test_impossible_requests_are_refused(fields):
    with pytest.raises(ValueError, match="resources"):
        ResourcesConfig(**fields)


def test_workers_are_counted_node_by_node_not_in_the_sum():
    config = ResourcesConfig(workers_per_fold=3, cpus_per_fold=6)
    with pytest.raises(ClusterError, match="nodes hold 2 of them"):
        place_folds(config, cluster((3, 0), (3, 0)), 3)
    assert place_folds(ResourcesConfig(cpus_per_fold=3), cluster((5, 0), (5, 0), (2, 0)), 3).folds_at_once == 2


@pytest.mark.parametrize(("memory", "at_once"), [("2GiB", 3), ("3GiB", 2), ("5GiB", 1), (8 * GIB, 1), (None, 3)])
def test_as_many_folds_run_at_once_as_the_memory_holds_each_with_the_same_threads(memory, at_once):
    placement = place_folds(ResourcesConfig(memory_per_fold=memory), cluster((12, 0)), 3)
    assert (placement.folds_at_once, placement.threads_per_worker) == (at_once, 4)


def test_memory_is_counted_node_by_node_not_in_the_sum():
    nodes = cluster((8, 0, 7 * GIB), (8, 0, 7 * GIB), (8, 0, 3 * GIB))
    assert place_folds(ResourcesConfig(memory_per_fold="4GiB"), nodes, 5).folds_at_once == 2


def test_ray_is_told_each_workers_share_of_the_memory_in_whole_bytes():
    placement = place_folds(ResourcesConfig(memory_per_fold=4e9, workers_per_fold=3), cluster((3, 0)), 2)
    assert placement.worker_resources() == {"CPU": 0.5, "memory": 1_333_333_334}
    assert "memory" not in place_folds(ResourcesConfig(), cluster((3, 0)), 2).worker_resources()


def test_memory_limits_the_folds_that_share_gpus():
    placement = place_folds(ResourcesConfig(memory_per_fold="3GiB"), cluster((32, 4)), 3)
    assert (placement.gpus_per_worker, placement.folds_at_once, placement.slots) == (1.0, 2, 2)


def test_memory_that_no_node_has_is_an_error_that_says_what_was_found_and_what_to_do():
    with pytest.raises(
        ClusterError, match=r"0.666 CPU, 0 GPU and 9 GiB of memory; nodes: 2 CPU/0 GPU/8 GiB\. .*--memory"
    ):
        place_folds(ResourcesConfig(memory_per_fold="9GiB"), cluster((2, 0)), 3)
    config = ResourcesConfig(memory_per_fold="18GiB", workers_per_fold=3, cpus_per_fold=0.3)
    with pytest.raises(
        ClusterError, match=r"nodes hold 2 of them: 2 CPU/0 GPU/8 GiB, .*Lower resources.memory_per_fold"
    ):
        place_folds(config, cluster((2, 0), (2, 0)), 3)


def test_where_cores_are_short_memory_is_not_blamed():
    with pytest.raises(ClusterError, match=r"it needs .* 1 GiB of memory; .*GiB\. Lower resources.cpus_per_fold"):
        place_folds(ResourcesConfig(memory_per_fold="1GiB", cpus_per_fold=4), cluster((2, 0)), 3)


def test_on_an_autoscaling_cluster_memory_that_a_node_type_has_is_waited_for():
    config = ResourcesConfig(memory_per_fold="16GiB", cpus_per_fold=2)
    placement = place_folds(config, cluster((2, 0), types=[(8, 0, 32 * GIB)]), 3)
    assert placement.waits_for == "a node with 2 CPU, 0 GPU and 16 GiB of memory"
    with pytest.raises(ClusterError, match="can be started: 8 CPU/0 GPU/15 GiB"):
        place_folds(config, cluster((2, 0), types=[(8, 0, 15 * GIB)]), 3)


def test_a_node_type_of_unknown_size_is_waited_for():
    config = ResourcesConfig(gpus_per_fold=1, memory_per_fold="16GiB")
    placement = place_folds(config, cluster((2, 0), types=[UNKNOWN]), 3)
    assert placement.waits_for == "a node with 1 CPU, 1 GPU and 16 GiB of memory"
    assert place_folds(ResourcesConfig(gpus_per_fold=0), cluster(types=[UNKNOWN]), 3).waits_for


@pytest.mark.parametrize(
    ("room", "least", "wishes", "shares"),
    [
        (2, 1, [2, 2], [1, 1]),
        (3, 1, [2, 2], [2, 1]),
        (9, 1, [4, 4, 4], [3, 3, 3]),
        (20, 1, [4, 4], [4, 4]),
        (2, 1, [4, 4, 4], [1, 1, 0]),
        (5, 2, [4, 4, 4], [3, 2, 0]),
        (1, 2, [4], [0]),
        (0, 1, [4, 4], [0, 0]),
        (6, 1, [1, 4, 2], [1, 3, 2]),  # the first was asked to make room
        (4, 1, [], []),
    ],
)
def test_room_is_shared_evenly_between_least_and_most(room, least, wishes, shares):
    assert share_workers(room, least, wishes) == shares


def test_new_room_goes_to_the_folds_with_the_fewest_workers():
    assert add_workers([1, 3, 1], 3, [4, 4, 4]) == [3, 3, 2]
    assert add_workers([4, 3], 5, [4, 4]) == [4, 4]
    assert add_workers([], 5, []) == []


def test_a_change_of_workers_has_to_pay():
    assert find_gain(100.0, 1, 2, restart_s=10.0) == 40.0
    assert find_gain(29.0, 1, 2, restart_s=10.0) == 0.0  # nearly done
    assert find_gain(100.0, 7, 8, restart_s=10.0) == 0.0  # too little a step
    assert find_gain(1.0, 1, 2, restart_s=0.0) == 0.5


def test_a_worker_of_an_elastic_fold_is_the_same_whatever_their_number():
    config = ResourcesConfig(workers_per_fold=(1, 4), cpus_per_fold=8, memory_per_fold="4GiB")
    placement = place_folds(config, cluster((8, 0), (8, 0)), 3)
    assert placement.worker_resources() == {"CPU": 2.0, "memory": GIB}
    assert (placement.num_workers, placement.most_workers, placement.threads_per_worker) == (1, 4, 2)
    assert (placement.folds_at_once, placement.workers_at_once) == (3, 8)
    assert place_folds(ResourcesConfig(workers_per_fold=(1, 2)), cluster((32, 8)), 3).worker_resources()["GPU"] == 1.0
    with pytest.raises(ClusterError, match="nodes hold 2 of them"):
        place_folds(ResourcesConfig(workers_per_fold=(3, 6), cpus_per_fold=6), cluster((2, 0)), 3)


@pytest.mark.parametrize(
    ("cores", "folds", "workers", "cpus", "threads"),
    [
        (2, 2, (1, 2), 1.0, 1),
        (2, 3, (1, 4), 0.666, 1),
        (8, 2, (1, 4), 1.0, 1),
        (16, 2, (1, 4), 1.0, 2),
        (4, 2, (2, 4), 1.0, 1),
    ],
)
def test_cores_make_as_many_elastic_workers_as_can_be_before_they_make_threads(cores, folds, workers, cpus, threads):
    placement = place_folds(ResourcesConfig(workers_per_fold=workers), cluster((cores, 0)), folds)
    assert (placement.cpus_per_worker, placement.threads_per_worker, placement.folds_at_once) == (cpus, threads, folds)


@pytest.mark.parametrize("workers", [0, (0, 2), (2, 1), (2, 2), (1, 2, 3), (1,), (1, 2.5), "2", True])
def test_workers_that_make_no_sense_are_refused(workers):
    with pytest.raises(ValueError, match=r"resources.workers_per_fold=.*expected"):
        ResourcesConfig(workers_per_fold=workers)


def test_of_an_elastic_fold_the_gpus_are_those_of_its_most_workers():
    assert ResourcesConfig(workers_per_fold=(1, 4), gpus_per_fold=4).most_workers == 4
    for gpus, message in ((2, "whole GPUs for each worker"), (0.5, "expected 0 or at least 4.*NCCL refuses")):
        with pytest.raises(ValueError, match=message):
            ResourcesConfig(workers_per_fold=(1, 4), gpus_per_fold=gpus)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (4e9, 4e9),
        ("4e9", 4e9),
        ("4GiB", 4 * GIB),
        ("4Gi", 4 * GIB),
        ("1.5 GB", 1.5e9),
        ("512MiB", GIB / 2),
        ("1T", 1e12),
    ],
)
def test_memory_is_read_in_bytes_or_with_a_unit(value, expected):
    assert parse_memory(value) == expected


@pytest.mark.parametrize(
    "value", [4, 0, -4e9, math.inf, math.nan, "much", "", "4 GiB each", "4gib", "1e400", True, [4e9]]
)
def test_memory_that_makes_no_sense_is_refused(value):
    with pytest.raises(ValueError, match=r"resources.memory_per_fold=.*expected bytes"):
        ResourcesConfig(memory_per_fold=value)


def test_no_more_folds_train_at_once_than_there_is_memory_for():
    small = place_folds(ResourcesConfig(), cluster((16, 0, 3 * GIB), (16, 0, 3 * GIB)), 10)
    assert (small.folds_at_once, small.threads_per_worker, small.is_short_of_memory) == (4, 3, True)
    large = place_folds(ResourcesConfig(), cluster((16, 0, 64 * GIB)), 10)
    assert (large.folds_at_once, large.is_short_of_memory) == (10, False)
    assert place_folds(ResourcesConfig(), cluster((16, 0, 0)), 10).folds_at_once == 10  # not known
    assert place_folds(ResourcesConfig(), cluster((16, 0, GIB / 2)), 3).folds_at_once == 1
    assert place_folds(ResourcesConfig(workers_per_fold=2), cluster((16, 0, 6 * GIB)), 4).folds_at_once == 2


def test_on_a_machine_of_ones_own_its_free_memory_counts():
    machine = replace(cluster((16, 0, 64 * GIB)), free_bytes=8 * GIB)
    assert place_folds(ResourcesConfig(), machine, 50).folds_at_once == count_in_memory(8 * GIB) == 4


def test_whoever_says_how_many_folds_or_how_much_memory_is_obeyed():
    tiny = cluster((16, 0, GIB))
    assert place_folds(ResourcesConfig(max_folds_at_once=8), tiny, 10).folds_at_once == 8
    assert place_folds(ResourcesConfig(memory_per_fold="100MiB"), tiny, 10).folds_at_once == 10
    assert place_folds(ResourcesConfig(cpus_per_fold=1), tiny, 10).folds_at_once == 10
