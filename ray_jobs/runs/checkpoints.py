"""Checkpoints: folders of tensors, files and a description. One counts once `checkpoint.json`, which holds checksums,
is there.

checkpoint.json                     names all that counts here
model-<checksum>.safetensors        tensors of rank 0
shard<rank>-<checksum>.safetensors  tensors that one rank has; absent where none has any of its own
files-<checksum>/                   other files, under their own names; may be absent
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NoReturn

from ray_jobs.errors import RunFolderError
from ray_jobs.runs.files import read_json, write_json
from trainers.storage.whole_files import appearing_whole, sha256_file, write_whole

CHECKPOINTS: tuple[Literal["best", "final"], ...] = ("best", "final")
RESUME_POINTS = ("resume_0", "resume_1")
KNOWN = "checkpoints"  # in a resume point's description: of each checkpoint beside it what its `checkpoint.json` says
_TENSORS_NAME = re.compile(r"model-[0-9a-f]{12}\.safetensors")
_SHARD_NAME = re.compile(r"shard\d+-[0-9a-f]{12}\.safetensors")
_FILES_NAME = re.compile(r"files-[0-9a-f]{12}")


@dataclass(frozen=True)
class Part:
    """A file of a checkpoint: its path in the checkpoint's folder, and what it has to be."""

    name: str
    sha256: str
    bytes: int


def write_tensors(folder: Path, tensors: bytes, kind: str = "model") -> Part:
    """Writes tensors beside those that count.

    Raises:
        OSError: the storage does not take them.
    """
    checksum = hashlib.sha256(tensors).hexdigest()
    part = Part(f"{kind}-{checksum[:12]}.safetensors", checksum, len(tensors))
    write_whole(folder / part.name, tensors)
    return part


def write_checkpoint(
    folder: Path,
    tensors: bytes,
    description: Mapping[str, Any],
    *,
    shards: Sequence[Part] = (),
    files: Path | None = None,
    keep: Collection[str] = (),
) -> dict[str, Any]:
    """Replaces a checkpoint: what is new first, then `checkpoint.json`, which makes it count, then the old goes, but
    for what a resume point beside it would put back. Returns what `checkpoint.json` says.

    Args:
        folder: of the checkpoint.
        tensors: of rank 0.
        description: JSON.
        shards: what the ranks have written by `write_tensors`, in rank order.
        files: a folder to copy.
        keep: parts that stay, too: a resume point that names them is just being written.

    Raises:
        OSError: the storage does not take it; the old one stays.
        ValueError: the folder of files is empty or has a name that cannot be kept.
    """
    try:
        part = write_tensors(folder, tensors)
        manifest: dict[str, Any] = {"tensors": part.name, "sha256": part.sha256, "bytes": part.bytes}
        if shards:
            manifest["shards"] = [asdict(shard) for shard in shards]
        if files is not None:
            manifest["files"] = [asdict(part) for part in _copy_files(files, folder)]
        manifest["description"] = dict(description)
        write_json(folder / "checkpoint.json", manifest, checksum=True)
    finally:
        with contextlib.suppress(OSError):
            remove_old_tensors(folder, find_needed(folder).union(keep))  # of the new ones, too, if they do not count
    return manifest


def find_needed(folder: Path) -> set[str]:
    """The parts of a checkpoint that `checkpoint.json` names, or one of the resume points beside it."""
    needed = name_parts(read_json(folder / "checkpoint.json", default=None))
    for place in RESUME_POINTS:
        point = read_json(folder.parent / place / "checkpoint.json", default=None)
        with contextlib.suppress(TypeError, KeyError, AttributeError):
            needed |= name_parts(point["description"][KNOWN].get(folder.name))
    return needed


def name_parts(manifest: Any) -> set[str]:
    """The names in a checkpoint's folder of what its `checkpoint.json` lists; of a damaged one nothing."""
    with contextlib.suppress(RunFolderError):
        known = describe_checkpoint(Path(), manifest)
        return {part.name.partition("/")[0] for part in known.parts}
    return set()


def remove_old_tensors(folder: Path, needed: Collection[str]) -> None:
    """Removes parts that are not needed; what cannot be removed now is removed the next time."""
    with contextlib.suppress(OSError):
        for path in list_old_parts(folder, needed):
            if _FILES_NAME.fullmatch(path.name):
                shutil.rmtree(path)
            else:
                path.unlink()


def list_old_parts(folder: Path, needed: Collection[str]) -> list[Path]:
    """Parts in a checkpoint's folder that are not needed."""
    return [path for path in folder.iterdir() if is_part(path.name) and path.name not in needed]


def is_part(name: str) -> bool:
    """Whether a file or folder of this name in a checkpoint's folder is a part of it."""
    return any(pattern.fullmatch(name) for pattern in (_TENSORS_NAME, _SHARD_NAME, _FILES_NAME))


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that counts. What is read of it is compared with its checksum first.

    Attributes:
        folder: where it is.
        description: of it.
        tensors: rank 0's.
        shards: what each rank had for itself, in rank order; empty where none had anything.
        files: the others.
    """

    folder: Path
    description: dict[str, Any]
    tensors: Part
    shards: tuple[Part, ...]
    files: tuple[Part, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """All that it consists of beside `checkpoint.json`."""
        return (self.tensors, *self.shards, *self.files)

    def read(self, part: Part) -> bytes:
        """The content of a part.

        Raises:
            RunFolderError: it is not there or its checksum does not match.
        """
        path = self.folder / part.name
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != part.sha256:
            _refuse(path)
        return content

    def read_tensors(self) -> list[bytes]:
        """Rank 0's tensors and those of all shards (safetensors bytes)."""
        return [self.read(part) for part in (self.tensors, *self.shards)]

    def read_files(self) -> dict[str, bytes]:
        """The files, by the names that they had."""
        return {part.name.partition("/")[2]: self.read(part) for part in self.files}

    def check(self, *parts: Part) -> None:
        """Compares parts, or all, with their checksums, without holding one in memory.

        Raises:
            RunFolderError: one is not there or its checksum does not match.
        """
        for part in parts or self.parts:
            path = self.folder / part.name
            if not path.is_file() or sha256_file(path) != part.sha256:
                _refuse(path)

    def find_files(self) -> Path | None:
        """The folder of the files; None where there are none.

        Raises:
            RunFolderError: one is not there or its checksum does not match.
        """
        if not self.files:
            return None
        self.check(*self.files)
        return self.folder / self.files[0].name.partition("/")[0]


def open_checkpoint(folder: Path) -> Checkpoint:
    """What `write_checkpoint` wrote. Another file than one below its folder is never read, whatever it names.

    Raises:
        RunFolderError: it is not there or damaged.
    """
    return describe_checkpoint(folder, read_json(folder / "checkpoint.json"))


def describe_checkpoint(folder: Path, manifest: Any) -> Checkpoint:
    """The checkpoint that `checkpoint.json` in a folder names, or would name.

    Raises:
        RunFolderError: it is damaged.
    """
    try:
        tensors = Part(manifest["tensors"], manifest["sha256"], manifest.get("bytes", 0))
        shards, files = ([Part(**one) for one in manifest.get(kind, ())] for kind in ("shards", "files"))
        is_safe = _TENSORS_NAME.fullmatch(tensors.name) and all(_SHARD_NAME.fullmatch(one.name) for one in shards)
        if is_safe and all(_is_file_name(one.name) for one in files):
            return Checkpoint(folder, manifest["description"], tensors, tuple(shards), tuple(files))
    except (TypeError, KeyError, AttributeError):
        pass
    raise RunFolderError(
        f"{folder / 'checkpoint.json'} is damaged: expected tensors (model-<checksum>.safetensors beside it), sha256 "
        f"and description, found {manifest!r:.200}"
    )


def read_description(folder: Path) -> dict[str, Any]:
    """The description of a checkpoint, without its tensors."""
    return open_checkpoint(folder).description


def _is_file_name(name: str) -> bool:
    """Whether this is a path in a checkpoint's folder of files."""
    first, *below = PurePosixPath(name).parts or ("",)
    return bool(below and _FILES_NAME.fullmatch(first)) and ".." not in below and "\0" not in name


def _refuse(path: Path) -> NoReturn:
    raise RunFolderError(f"{path} is missing or damaged: its checksum is not the one in checkpoint.json")


def _copy_files(source: Path, folder: Path) -> list[Part]:
    """Copies a folder's files to where their contents say, and describes them."""
    paths = sorted(path for path in source.rglob("*") if path.is_file())
    names = [path.relative_to(source).as_posix() for path in paths]
    if not names or any(part.startswith(".") for name in names for part in name.split("/")):
        raise ValueError(
            f"files={source}: expected a folder of files with names that do not begin with a dot, found {names}"
        )
    sums = [sha256_file(path) for path in paths]
    place = f"files-{hashlib.sha256(repr(list(zip(names, sums, strict=True))).encode()).hexdigest()[:12]}"
    for path, name in zip(paths, names, strict=True):
        with appearing_whole(folder / place / name) as file, path.open("rb") as content:
            shutil.copyfileobj(content, file)
    sizes = [os.stat(folder / place / name).st_size for name in names]
    return [Part(f"{place}/{name}", sum_, size) for name, sum_, size in zip(names, sums, sizes, strict=True)]
