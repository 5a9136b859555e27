"""What each rank of a fold writes of a checkpoint by itself, because no other rank has it.

On a file system that all ranks share a rank writes beside rank 0's files. On object storage a rank on another machine
than rank 0 puts its part itself, before rank 0 says that the checkpoint counts."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from ray_jobs.runs.checkpoints import Part, write_tensors
from ray_jobs.runs.remote.fold_mirror import FoldMirror
from ray_jobs.runs.remote.no_mirror import NO_MIRROR, NoMirror
from ray_jobs.worker.ranks import Ranks
from ray_jobs.worker.resume import to_bytes

logger = logging.getLogger(__name__)
_KEPT = 2  # of a place: the one that counts and the one that is to replace it


class Shards:
    """Writes this rank's parts; each rank calls every method.

    Args:
        ranks: of the fold.

    Attributes:
        mirror: of a rank on another machine than rank 0, where the run is on object storage.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.mirror: FoldMirror | NoMirror = NO_MIRROR
        self._written: dict[Path, list[str]] = {}

    def write(
        self, folder: Path, tensors: Mapping[str, Tensor], until_done: Callable[[Callable[[], Part]], Part]
    ) -> list[Part]:
        """Writes the parts of a checkpoint; returns them all when they are there.

        Args:
            folder: of the checkpoint.
            tensors: this rank's.
            until_done: calls a function again while the storage is the cause that it fails.
        """
        content = to_bytes(tensors)
        return self.ranks.gather(until_done(lambda: self._write(folder, content)))

    def try_write(self, folder: Path, tensors: Mapping[str, Tensor]) -> list[Part] | None:
        """As `write`, once; None where a rank's part could not be written."""
        part = None
        try:
            part = self._write(folder, to_bytes(tensors))
            self._remove_old(folder, part.name)
        except OSError as error:
            logger.warning("a part of a resume point could not be written, the point before counts: %s", error)
        parts = [one for one in self.ranks.gather(part) if one is not None]
        return parts if len(parts) == self.ranks.world_size else None

    def _write(self, folder: Path, content: bytes) -> Part:
        part = write_tensors(folder, content, f"shard{self.ranks.rank}")
        if self.mirror.uri:
            self.mirror.push_part(folder / part.name)
        return part

    def _remove_old(self, folder: Path, name: str) -> None:
        """Of resume points, which rank 0 does not bring from other machines: there nobody else removes what does not
        count any more. Of checkpoints it does."""
        if not self.mirror.uri:
            return
        written = [one for one in self._written.get(folder, []) if one != name]
        self._written[folder] = [*written, name][-_KEPT:]
        for old in written[: 1 - _KEPT]:
            with contextlib.suppress(OSError):
                (folder / old).unlink(missing_ok=True)
                self.mirror.remove_part(folder / old)
