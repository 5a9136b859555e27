"""From where a fold goes on after a kill: its trainer's state, every random generator's, the position of its record.

Two places take turns, so that the point before the last is whole when the last turns out damaged. A point is written by
a thread while training goes on; one that cannot be written costs only itself, and the next takes its place."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ray_jobs.cluster.versions import are_same_versions, package_versions
from ray_jobs.errors import RunFolderError, SupersededError
from ray_jobs.runs.checkpoints import (
    KNOWN,
    RESUME_POINTS,
    Checkpoint,
    Part,
    name_parts,
    open_checkpoint,
    write_checkpoint,
)
from ray_jobs.runs.folder import FoldFolder
from trainers.interface import ResumePoint

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredPoint:
    """A resume point as it lies on disk.

    Attributes:
        tensors: `shared/<name>`, and `rank<r>/<name>` for what only rank r has.
        description: `facts` of the trainer, `global_step`, `epoch`, `best` (score, epoch), `record_lines`,
            `checkpoints` (those that were there), `circumstances`.
        place: where it was read from.
        checkpoint: likewise, with what each rank has written by itself; None where nothing can be.
    """

    tensors: dict[str, Tensor]
    description: dict[str, Any]
    place: str
    checkpoint: Checkpoint | None = None

    @property
    def world_size(self) -> int:
        """Ranks that have saved it."""
        return len({name.partition("/")[0] for name in self.tensors if name.startswith("rank")})

    def for_rank(self, rank: int, world_size: int) -> ResumePoint:
        """What a rank goes on from. Of another number of ranks the first has the sum of what each had for itself, the
        others nothing of it, and what each rank has written by itself they get all.

        Raises:
            RunFolderError: what a rank has written is missing or damaged.
        """
        parts = [_below(self.tensors, f"rank{number}/own/") for number in range(self.world_size)]
        own = parts[rank] if rank < len(parts) else {}
        if world_size != self.world_size:
            whole = {name: torch.stack([part[name] for part in parts]).sum(0) for name in parts[0]}
            own = whole if rank == 0 else {name: torch.zeros_like(tensor) for name, tensor in whole.items()}
        facts, shards = self.description["facts"], () if self.checkpoint is None else self.checkpoint.shards
        if not shards:
            return ResumePoint(_below(self.tensors, "shared/"), own, facts)
        assert self.checkpoint is not None
        is_same = world_size == self.world_size
        read = [load(self.checkpoint.read(shard)) for shard in ([shards[rank]] if is_same else shards)]
        shard, others = (read[0], ()) if is_same else ({}, tuple(read))
        return ResumePoint(_below(self.tensors, "shared/"), own, facts, shard, others)

    def restore_random_state(self, rank: int) -> None:
        """Puts this rank's random generators where they were. Those of a rank that the point does not know are seeded
        from its own number and from the first rank's, and so from the seed and all that has been drawn since."""
        state = _below(self.tensors, f"rank{rank}/random/")
        if state:
            set_random_state(state)
        elif first := _below(self.tensors, "rank0/random/"):
            digest = hashlib.sha256(first["torch"].numpy().tobytes() + str(rank).encode()).digest()
            _seed(int.from_bytes(digest[:4]))


class ResumePoints:
    """The resume points of one fold.

    Args:
        files: the fold's folder.
        check: called before something is written; raises OSError where the run's storage is not there.
        put: called when a point is written; puts it where the run's files belong, if that is not on this machine.
    """

    def __init__(
        self, files: FoldFolder, check: Callable[[], None] = lambda: None, put: Callable[[], None] = lambda: None
    ) -> None:
        self.files, self.check, self.put = files, check, put
        self.next_place = RESUME_POINTS[0]
        self.last: dict[str, Any] = {}  # the description of the last one, which may still be being written
        self._writing: threading.Thread | None = None

    def exist(self) -> bool:
        """Whether an earlier attempt has left a point, whole or not."""
        return any(self.files.checkpoint(place).exists() for place in RESUME_POINTS)

    def find_newest(self) -> StoredPoint | None:
        """The newest point that is whole; damaged ones are logged. The next one written takes the other place."""
        points = []
        for place in RESUME_POINTS:
            if not (self.files.checkpoint(place) / "checkpoint.json").exists():
                continue
            try:
                point = self.read(place)
                assert point.checkpoint is not None
                for shard in point.checkpoint.shards:
                    point.checkpoint.check(shard)
                points.append(point)
            except (RunFolderError, SafetensorError, ValueError, KeyError) as error:
                logger.warning(
                    "a resume point of fold %d is damaged, the one before counts: %s", self.files.number, error
                )
        # Of one step: before a validation and after it.
        order = ("global_step", "epoch", "record_lines")
        newest = max(points, key=lambda one: [one.description.get(name, 0) for name in order], default=None)
        if newest:
            self.next_place = _other(newest.place)
        return newest

    def read(self, place: str) -> StoredPoint:
        """The point in a place.

        Raises:
            RunFolderError, SafetensorError, ValueError, KeyError: it is missing or damaged.
        """
        checkpoint = open_checkpoint(self.files.checkpoint(place))
        return StoredPoint(load(checkpoint.read(checkpoint.tensors)), checkpoint.description, place, checkpoint)

    def write(self, tensors: Mapping[str, Tensor], description: Mapping[str, Any], shards: Sequence[Part] = ()) -> None:
        """Stores a point. Returns when the tensors are copied; the disk is written in the background.

        Args:
            tensors, description: as in `StoredPoint`.
            shards: what the ranks have written by themselves into the next place.
        """
        content = to_bytes(tensors)
        self.wait()
        self.last = dict(description)
        arguments = (self.next_place, content, self.last, shards)
        self._writing = threading.Thread(target=self._write, args=arguments)
        self._writing.start()

    def list_needed(self, checkpoint: str) -> set[str]:
        """The parts of a checkpoint that belong to the last point."""
        return name_parts(self.last.get(KNOWN, {}).get(checkpoint))

    def wait(self) -> None:
        """Returns when no point is being written."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None

    def remove(self) -> None:
        """Removes all points: the fold is complete. Where the storage refuses, the run's next start removes them."""
        self.wait()
        with contextlib.suppress(OSError):
            self.files.remove_resume_points()

    def _write(self, place: str, content: bytes, description: dict[str, Any], shards: Sequence[Part]) -> None:
        try:
            self.check()
            write_checkpoint(self.files.checkpoint(place), content, description, shards=shards)
            self.check()  # the run may have gone away in between: then the point is not where it is looked for
            self.put()
        except (OSError, SupersededError) as error:
            logger.warning("a resume point could not be written, the one before counts: %s", error)
        else:
            self.next_place = _other(place)


def describe_circumstances(world_size: int, num_threads: int, device: str, packages: Sequence[str]) -> dict[str, Any]:
    """What has to be the same for the same bits."""
    return {
        "world_size": world_size,
        "num_threads": num_threads,
        "device": torch.device(device).type,
        "versions": package_versions(packages),
    }


def is_as_it_was(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether the circumstances are those of a resume point, of the packages whose versions both of them know."""
    others = [{name: value for name, value in known.items() if name != "versions"} for known in (before, now)]
    return are_same_versions(before["versions"], now["versions"]) and others[0] == others[1]


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors of any device as a safetensors file."""
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def get_random_state() -> dict[str, Tensor]:
    """The state of every random generator of this process: Python's, NumPy's, torch's on the CPU and on the GPU that it
    trains on, whichever number that has here."""
    version, words, gauss = random.getstate()
    assert version == 3
    numpy_state = np.random.get_state()
    assert isinstance(numpy_state, tuple)
    name, numpy_words, position, has_gauss, cached = numpy_state
    assert name == "MT19937"
    state = {
        "python": torch.tensor(words),
        "python_gauss": torch.tensor(float("nan") if gauss is None else gauss, dtype=torch.float64),
        "numpy": torch.from_numpy(numpy_words.astype(np.int64)),
        "numpy_rest": torch.tensor([position, has_gauss, cached], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():
        state["cuda0"] = torch.cuda.get_rng_state(torch.cuda.current_device())
    return state


def set_random_state(state: Mapping[str, Tensor]) -> None:
    """Puts every random generator where `get_random_state` found it."""
    gauss = float(state["python_gauss"])
    random.setstate((3, tuple(state["python"].tolist()), None if gauss != gauss else gauss))
    position, has_gauss, cached = state["numpy_rest"].tolist()
    words = state["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", words, int(position), int(has_gauss), cached))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and "cuda0" in state:
        torch.cuda.set_rng_state(state["cuda0"], torch.cuda.current_device())


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # the GPUs' generators, too


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _other(place: str) -> str:
    return RESUME_POINTS[1 - RESUME_POINTS.index(place)]
