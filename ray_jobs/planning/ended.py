"""Remembers of a run that has ended what was asked for and the files that were read, so that the same command says that
it is finished without reading them again.

The memory is a small file in the storage's cache. Nothing is remembered of a family that does not say where it reads
(`list_places` of its `inventory.py`), nor of data or runs in object storage, nor where a file has changed since it was
read: then the rows are read, as always.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from ray_jobs.config.members import resolve_members
from ray_jobs.config.run import RunConfig, to_dict
from ray_jobs.errors import RunError, RunFolderError
from ray_jobs.runs.files import read_json, write_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.location import find_place, find_uri, open_cache
from trainers.interface import load_inventory_module
from trainers.reading.known_files import FOLDER, describe_files


def find_ended(config: RunConfig) -> RunFolder | None:
    """The folder of a run that has ended, where the same was asked for and nothing that it has read or written has
    changed.

    Args:
        config: as the user gave it, with the run's name.
    """
    assert config.run.name is not None
    folder = RunFolder(find_place(config.run.storage, config.run.name))
    known = read_json(_place(folder), default=None)
    if known is None or not folder.cache.is_dir() or find_uri(folder) is not None:
        return None
    try:
        open_cache(folder.cache)
        return folder if known == _describe(folder, config, None) else None
    except (OSError, RunError, RunFolderError):  # what is wrong the check says
        return None


def note_end(folder: RunFolder, config: RunConfig, began_ns: int) -> None:
    """Remembers that a run has ended.

    Args:
        folder: of the run.
        config: as the user gave it, with the run's name.
        began_ns: when the driver began, before it read anything.
    """
    if find_uri(folder) is None:
        with suppress(OSError, RunError):
            if (described := _describe(folder, config, began_ns)) is not None:
                write_json(_place(folder), described)


def _place(folder: RunFolder) -> Path:
    name = hashlib.sha256(folder.root.name.encode()).hexdigest()[:16]
    return folder.cache / FOLDER / f"ended-{name}.json"


def _describe(folder: RunFolder, config: RunConfig, began_ns: int | None) -> dict[str, str] | None:
    """What was asked for, the files that were read, and those that say how the run has ended; None: a file has
    changed."""
    files = []
    for member in resolve_members(config).values():
        list_places = getattr(load_inventory_module(member.family), "list_places", None)
        places = None if list_places is None else list_places(member.trainer)
        if places is None:
            return None
        files.append(describe_files(places, began_ns))
    if config.ensemble.external or None in files:
        return None
    own = (folder.config, folder.fold_plan, folder.provenance, folder.summary)
    written = hashlib.sha256(b"\0".join(path.read_bytes() for path in own)).hexdigest()
    return {"asked": json.dumps(to_dict(config)), "read": " ".join(map(str, files)), "written": written}
