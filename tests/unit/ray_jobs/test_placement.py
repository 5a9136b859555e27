"""How many folds run at once, and with what."""

import pytest

from ray_jobs.errors import ClusterError
from ray_jobs.placement import ClusterResources, ResourcesConfig, place_folds


def cluster(*nodes, types=()):
    return ClusterResources(sum(c for c, _ in nodes), sum(g for _, g in nodes), tuple(nodes), tuple(types))


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
    with pytest.raises(ClusterError, match=r"resources.gpus_per_fold=1 waits for GPUs"):
        place_folds(ResourcesConfig(), cluster((2, 0), types=[(8, 1)]), 3)


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
