"""Where a run lies, and which storages are refused."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

from ray_jobs.config.run import RunConfig
from ray_jobs.errors import RunError
from ray_jobs.runs.file_table import MEMBERS
from ray_jobs.runs.working_folder import working_folder
from trainers.storage.object_storage import is_uri, open_place


def name_run(config: RunConfig) -> RunConfig:
    """The config with the run's name: the recipe's where none is given, a new one for `auto`."""
    name = config.run.name or config.recipe
    if name == "auto":
        name = f"{config.recipe}_{time.strftime('%Y%m%d_%H%M%S')}"
    return dataclasses.replace(config, run=dataclasses.replace(config.run, name=name))


def find_place(storage: str, name: str) -> Path:
    """The folder of a run, or the one in which it is worked on where it is on object storage."""
    return working_folder(storage, name) if is_uri(storage) else Path(_resolve_folder(storage)) / name


def resolve_storage(config: RunConfig) -> str:
    """`run.storage` as an absolute path, or a URI."""
    storage = config.run.storage
    return storage.rstrip("/") if is_uri(storage) else _resolve_folder(storage)


def _resolve_folder(storage: str) -> str:
    return os.path.abspath(os.path.expanduser(storage))


def refuse_other_storage(storage: str) -> None:
    """Raises RunError for what is neither a folder nor an object storage that is known."""
    if "://" in storage:
        try:
            open_place(storage)
        except ValueError as error:
            raise RunError(f"run.storage: {error}") from None
        if MEMBERS in storage.split("/"):
            raise RunError(f"run.storage={storage}: a folder named {MEMBERS} holds the members of a run")


def refuse_relative_paths(config: RunConfig) -> None:
    """Raises RunError for what a submitted job would look for in its temporary copy of the working directory."""
    places = {
        "run.storage": config.run.storage,
        "data.root": config.trainer.data.root,
        "ensemble.external": config.ensemble.external,
    }
    for name, value in places.items():
        if value and not os.path.isabs(os.path.expanduser(value)) and not is_uri(value):
            raise RunError(
                f"{name}={value} is a relative path: a submitted job runs in a temporary copy of the working directory. "
                f"Give the absolute path as the cluster's machines see it, such as {name}=/mnt/shared/{Path(value).name}"
            )
