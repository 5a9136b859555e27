"""The folder `data.root`: the user's, or one of data that the project makes itself."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from trainers.interface import DataError

MADE_DATA = "made_data"


def resolve_folder(root: str | None, folder: Path, make_data: Callable[[Path], Path]) -> str:
    """The whole path of the data's folder.

    Args:
        root: as the user gave it; None: data is made.
        folder: where.
        make_data: makes it at `folder/made_data`, unless it is there.

    Raises:
        DataError: there is no such folder.
    """
    path = os.path.abspath(os.path.expanduser(root)) if root else str(make_data(folder))
    if not os.path.isdir(path):
        raise DataError(
            f"data.root={path}: {'expected a folder, found a file' if os.path.exists(path) else 'no such folder'}"
        )
    return path


def prepare_folder(root: str, make_data: Callable[[Path], Path]) -> None:
    """Looks whether this machine sees the data; makes the made-up data where it has none.

    Raises:
        DataError: it does not see it.
    """
    place = Path(root)
    if place.name == MADE_DATA and not place.exists():
        make_data(place.parent)
    if not place.is_dir():
        raise DataError(
            f"data.root={root}: no such folder on {os.uname().nodename}; every node of the cluster reads the data: put "
            "it on storage that all of them share, or below the same path on each"
        )


def name_view(data: Mapping[str, Any], later: Mapping[str, Collection[Any]]) -> str:
    """A name for what is read by a `data` section.

    Args:
        data: its fields.
        later: fields that came later, and their values with which all is read as before: with these, runs from before
            find the files that they have left.
    """
    seen = {name: value for name, value in data.items() if name not in later or value not in later[name]}
    return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()[:12]
