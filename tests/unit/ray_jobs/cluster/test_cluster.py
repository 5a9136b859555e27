"""What is compared between driver and nodes, and what an autoscaler could start."""

import math
import os

import pytest

from ray_jobs.cluster import resources
from ray_jobs.cluster.resources import parse_startable
from ray_jobs.cluster.versions import (
    COMMON_PACKAGES,
    are_same_versions,
    list_all_packages,
    list_packages,
    package_versions,
    refuse_other_versions,
)
from ray_jobs.errors import ClusterError

CLUSTER_YAML = """
max_workers: 4
head_node_type: head
available_node_types:
  head: {resources: {CPU: 4}, node_config: {}, max_workers: 0}
  spot: {resources: {CPU: 8, GPU: 1}, node_config: {}, max_workers: 3}
  plain: {resources: {CPU: 8, memory: 16000000000}, node_config: {}, max_workers: 3}
  big: {node_config: {}}
  off: {resources: {CPU: 96}, node_config: {}, max_workers: 0}
"""


def test_the_nodes_that_may_be_started_are_read_from_the_cluster_config():
    """One of each type, and the rest of the largest."""
    unknown = math.inf
    spot, plain, big = (8, 1, unknown), (8, 0, 16e9), (unknown, unknown, unknown)
    assert parse_startable(CLUSTER_YAML) == (spot, plain, big, big)
    assert parse_startable(CLUSTER_YAML.replace("4\nhead", "20\nhead")) == (spot, plain, *(big,) * 18)
    assert parse_startable("{provider: {type: local}}") == ()


def test_other_versions_are_named_with_their_node():
    driver = package_versions(COMMON_PACKAGES)
    refuse_other_versions(driver, {"a": driver})
    with pytest.raises(ClusterError, match=r"torch 1.0 on b, "):
        refuse_other_versions(driver, {"a": driver, "b": driver | {"torch": "1.0"}})


def test_a_fold_is_bound_to_the_common_packages_and_to_its_familys():
    class Trainer:
        PACKAGES = ("torchvision",)

    assert list(package_versions(list_packages(Trainer))) == ["python", *COMMON_PACKAGES, "torchvision"]
    assert {*COMMON_PACKAGES, *"torchvision open_clip_torch timm pillow tokenizers transformers peft".split()} == set(
        list_all_packages()
    )
    assert package_versions(["no-such-package"])["no-such-package"] == "not installed"


def test_versions_are_the_same_if_those_that_both_know_are():
    before = package_versions(list_all_packages())
    assert are_same_versions(before, package_versions(COMMON_PACKAGES))
    assert not are_same_versions(before | {"torch": "1.0"}, package_versions(COMMON_PACKAGES))


@pytest.mark.parametrize(
    ("limit", "usage", "pages"),
    [
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_what_a_container_or_batch_job_is_allowed_limits_the_memory_that_is_free(tmp_path, limit, usage, pages):
    assert resources._read_rest(tmp_path) == math.inf
    (tmp_path / limit).write_text("8000\n")
    (tmp_path / usage).write_text("3000\n")
    (tmp_path / "memory.stat").write_text(f"anon 900\n{pages} 1000\n")
    assert resources._read_rest(tmp_path) == 6000
    (tmp_path / limit).write_text("max\n")
    assert resources._read_rest(tmp_path) == math.inf


def test_the_memory_that_is_free_is_less_than_the_machine_has():
    assert 0 < resources.find_free_bytes() < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
