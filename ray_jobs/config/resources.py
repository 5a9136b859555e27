"""The `resources` section of a config: what each fold gets."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from trainers.values import check_number, refuse, show_value

_MEMORY = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([MGT])(i?)B?")
_POWERS = {"M": 2, "G": 3, "T": 4}
_LEAST_MEMORY_BYTES = 2**20  # whoever gives less has meant another unit: 4 for 4GiB


@dataclass(frozen=True)
class ResourcesConfig:
    """What each fold gets; `auto` leaves the choice to the project."""

    gpus_per_fold: float | Literal["auto"] = "auto"
    """GPUs of one fold; below 1 several folds share one; 0: train on CPUs even if there are GPUs."""
    cpus_per_fold: float | Literal["auto"] = "auto"
    """CPU cores that one fold reserves, over all its workers."""
    memory_per_fold: float | str | None = None
    """Main memory that one fold reserves, over all its workers: bytes, as Ray counts them (4e9), or with a unit (4GiB,
    4GB). A fold waits until a node has so much unreserved; a fold that takes more is not stopped. None: not counted,
    but without GPUs no more folds train at once than there is memory for, by what a small fold takes."""
    workers_per_fold: int | tuple[int, int] = 1
    """Processes that train one fold together (DistributedDataParallel). [least,most]: as many as there is room for,
    changing while the fold trains; gpus_per_fold, cpus_per_fold and memory_per_fold are then those of a fold with most
    workers. Such a run is not bit-repeatable."""
    resize_interval_s: float = 60.0
    """A fold whose number of workers may change keeps them for at least so long, and as long as a change would cost
    more time than it saves. 0: it takes whatever room there is at once, whatever that costs."""
    max_folds_at_once: int | None = None
    """Upper limit of folds in training at the same time. Where it is given, memory is not estimated."""

    def __post_init__(self) -> None:
        self._check_workers()
        gpus, cpus = self.gpus_per_fold, self.cpus_per_fold
        check_number("resources.cpus_per_fold", cpus, above=0, instead="auto")
        check_number("resources.gpus_per_fold", gpus, least=0, instead="auto")
        workers = f"with resources.workers_per_fold={show_value(self.workers_per_fold)}"
        if gpus != "auto" and gpus > 1 and (gpus / self.most_workers) % 1:
            raise refuse("resources.gpus_per_fold", gpus, f"whole GPUs for each worker {workers}")
        if gpus != "auto" and self.most_workers > 1 and 0 < gpus < self.most_workers:
            raise refuse(
                "resources.gpus_per_fold",
                gpus,
                f"0 or at least {self.most_workers} {workers}; NCCL refuses two workers of one fold on one GPU",
            )
        check_number("resources.max_folds_at_once", self.max_folds_at_once, least=1, instead="none")
        if self.memory_per_fold is not None:
            parse_memory(self.memory_per_fold)
        check_number("resources.resize_interval_s", self.resize_interval_s, least=0, below=1e6, unit="seconds")

    @property
    def is_elastic(self) -> bool:
        """Whether a fold's number of workers may change."""
        return isinstance(self.workers_per_fold, tuple)

    @property
    def least_workers(self) -> int:
        """With which a fold can train."""
        workers = self.workers_per_fold
        return workers[0] if isinstance(workers, tuple) else workers

    @property
    def most_workers(self) -> int:
        """That a fold may have."""
        workers = self.workers_per_fold
        return workers[1] if isinstance(workers, tuple) else workers

    def _check_workers(self) -> None:
        workers = self.workers_per_fold
        numbers = workers if isinstance(workers, tuple) else (workers,)
        if any(type(number) is not int or number < 1 for number in numbers):
            raise refuse("resources.workers_per_fold", workers, "a whole number, at least 1, or [least,most]")
        if isinstance(workers, tuple) and (len(workers) != 2 or workers[0] >= workers[1]):
            raise refuse(
                "resources.workers_per_fold",
                workers,
                "[least,most], the second number larger than the first; write a number that never changes without "
                "brackets",
            )


def parse_memory(value: float | str) -> float:
    """Bytes of a number of bytes, or of a text such as 4GiB (1024³ each) or 4GB (1000³ each).

    Raises:
        ValueError: it is neither, or too little for anything.
    """
    match = _MEMORY.fullmatch(str(value))
    try:
        num_bytes = float(match[1]) * (1024 if match[3] else 1000) ** _POWERS[match[2]] if match else float(value)
    except (TypeError, ValueError, OverflowError):
        num_bytes = math.nan
    if not _LEAST_MEMORY_BYTES <= num_bytes < math.inf:
        expected = "bytes (4e9) or a number with its unit (4GiB, 500MiB, 4GB), at least 1MiB, or none"
        raise refuse("resources.memory_per_fold", value, expected)
    return num_bytes


def show_memory(num_bytes: float) -> str:
    """Bytes as a text."""
    return f"{num_bytes / 2**30:.4g} GiB"
