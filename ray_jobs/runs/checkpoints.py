"""Checkpoints: tensors and their description. One counts once `checkpoint.json`, which holds checksums, is there."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray_jobs.errors import RunFolderError
from ray_jobs.runs.files import read_json, write_json
from trainers.interface import CheckpointName
from trainers.storage.whole_files import write_whole

CHECKPOINTS: tuple[CheckpointName, ...] = ("best", "final")
RESUME_POINTS = ("resume_0", "resume_1")
_TENSORS_NAME = re.compile(r"model-[0-9a-f]{12}\.safetensors")


def write_checkpoint(folder: Path, tensors: bytes, description: Mapping[str, Any]) -> None:
    """Replaces a checkpoint: the new tensors first, then `checkpoint.json`, which makes them count, then the old go.

    Raises:
        OSError: the storage does not take it; the old one stays.
    """
    checksum = hashlib.sha256(tensors).hexdigest()
    file = folder / f"model-{checksum[:12]}.safetensors"
    manifest = {"tensors": file.name, "sha256": checksum, "bytes": len(tensors), "description": description}
    try:
        write_whole(file, tensors)
        write_json(folder / "checkpoint.json", manifest, checksum=True)
    finally:
        remove_old_tensors(folder)  # of the new ones, too, if they do not count


def remove_old_tensors(folder: Path) -> None:
    """Removes tensors that `checkpoint.json` does not name; what cannot be removed now is removed the next time."""
    with contextlib.suppress(OSError):
        counts = (read_json(folder / "checkpoint.json", default=None) or {}).get("tensors")
        for path in folder.glob("model-*.safetensors"):
            if path.name != counts:
                path.unlink()


def read_checkpoint(folder: Path) -> tuple[bytes, dict[str, Any]]:
    """The tensors (safetensors bytes) and the description of a checkpoint.

    Raises:
        RunFolderError: it is not there or its checksum does not match.
    """
    manifest = _read_checkpoint_json(folder)
    file = folder / manifest["tensors"]
    tensors = file.read_bytes() if file.is_file() else b""
    if hashlib.sha256(tensors).hexdigest() != manifest["sha256"]:
        raise RunFolderError(f"{file} is missing or damaged: its checksum is not the one in checkpoint.json")
    return tensors, manifest["description"]


def read_description(folder: Path) -> dict[str, Any]:
    """The description of a checkpoint, without its tensors."""
    description: dict[str, Any] = _read_checkpoint_json(folder)["description"]
    return description


def _read_checkpoint_json(folder: Path) -> dict[str, Any]:
    """What `write_checkpoint` wrote. Another file than one beside it is never read, whatever it names."""
    manifest = read_json(folder / "checkpoint.json")
    known: dict[str, Any] = manifest if isinstance(manifest, dict) else {}
    if not _TENSORS_NAME.fullmatch(str(known.get("tensors"))) or not {"sha256", "description"} <= known.keys():
        raise RunFolderError(
            f"{folder / 'checkpoint.json'} is damaged: expected tensors (model-<checksum>.safetensors beside it), sha256 "
            f"and description, found {manifest!r:.200}"
        )
    return known
