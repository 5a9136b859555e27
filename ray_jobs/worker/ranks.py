"""The ranks of a fold and what they tell each other. Alone, a rank sends nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Ranks:
    """The ranks of a fold, seen by one of them. Each calls every method, in the same order.

    Args:
        rank, world_size: which of how many.
        device: where what is sent has to be.
    """

    def __init__(self, rank: int, world_size: int, device: str) -> None:
        self.rank, self.world_size, self.device = rank, world_size, device

    def wait(self) -> None:
        """Returns when all ranks are here."""
        if self.world_size > 1:
            dist.barrier()

    def gather(self, own: Any) -> list[Any]:
        """Every rank's value, in rank order."""
        gathered: list[Any] = [own]
        if self.world_size > 1:
            gathered = [None] * self.world_size
            dist.all_gather_object(gathered, own)
        return gathered

    def stream_to_first(self, own: Iterable[Any], at_once: int) -> Iterator[Any]:
        """On rank 0 what all ranks have, `at_once` of each at a time: on GPUs it goes through their memory. On others
        nothing."""
        if self.world_size == 1:
            yield from own
            return
        left = iter(own)
        while True:
            portion = list(islice(left, at_once))
            longest = torch.tensor(len(portion), device=self.device)
            dist.all_reduce(longest, dist.ReduceOp.MAX)
            if not int(longest):
                return
            parts: list[Any] | None = [None] * self.world_size if self.rank == 0 else None
            dist.gather_object(portion, parts)
            for part in parts or ():
                yield from part

    def hear_first(self, *numbers: int) -> list[int]:
        """Rank 0's numbers, on every rank."""
        if self.world_size == 1:
            return list(numbers)
        own = torch.tensor(numbers, device=self.device)
        dist.broadcast(own, 0)
        return own.tolist()

    def hear_object(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        values = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(values)
        return values[0]

    def add_up(self, parts: Tensor) -> Tensor:
        """The sum over all ranks, in place."""
        if self.world_size > 1:
            dist.all_reduce(parts)
        return parts
