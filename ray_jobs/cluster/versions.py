"""Package versions, which have to be the same on all nodes of a cluster, and when a fold goes on."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from ray_jobs.errors import ClusterError
from trainers.families import find_families
from trainers.interface import load_config_class

# Packages whose version decides what a fold computes or how files are read, whatever its family; each family adds its
# own.
COMMON_PACKAGES = ("ray", "torch", "numpy", "pandas", "pyarrow", "safetensors", "scikit-learn")


def list_packages(*trainers: Any) -> tuple[str, ...]:
    """The packages that matter to folds of these families, by their configs, each once."""
    return tuple(dict.fromkeys((*COMMON_PACKAGES, *(package for one in trainers for package in one.PACKAGES))))


def list_all_packages() -> tuple[str, ...]:
    """The packages that matter to folds of any family, each once."""
    own = [package for family in find_families() for package in load_config_class(family).PACKAGES]
    return tuple(dict.fromkeys((*COMMON_PACKAGES, *own)))


def package_versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of Python and of packages, as installed here."""
    versions = {"python": platform.python_version()}
    for package in packages:
        if package == "python":
            continue
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def are_same_versions(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether packages that both know have the same versions."""
    return all(before[package] == now[package] for package in before.keys() & now.keys())


def refuse_other_versions(driver: dict[str, str], nodes: dict[str, dict[str, str]]) -> None:
    """Compares the driver's package versions with each node's.

    Raises:
        ClusterError: with every difference.
    """
    differing = [
        f"{package} {versions[package]} on {node}, {driver[package]} here"
        for node, versions in nodes.items()
        for package in driver
        if versions[package] != driver[package]
    ]
    if differing:
        raise ClusterError(
            "the cluster's packages are not the driver's: "
            + "; ".join(differing)
            + ". Install the same Python, to the third number, and the same requirements.txt on all nodes"
        )
