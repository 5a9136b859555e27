"""Package versions, which have to be the same on all nodes of a cluster."""

from __future__ import annotations

import importlib.metadata
import platform

from ray_jobs.errors import ClusterError

# Packages whose version decides what a fold computes or how files are read.
PACKAGES = (
    "ray",
    "torch",
    "torchvision",
    "open_clip_torch",
    "timm",
    "numpy",
    "pandas",
    "pyarrow",
    "safetensors",
    "scikit-learn",
    "pillow",
)


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter, as installed here."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


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
