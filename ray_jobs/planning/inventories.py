"""Reads the data as configs want it, once for all configs that want the same of it."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray_jobs.config.run import RunConfig
from trainers.interface import Inventory, Spread, load_inventory_module


def describe_inputs(config: RunConfig) -> Hashable:
    """What of a config decides what its family reads: equal where inventory, inputs and needs of a node are the
    same."""
    module = load_inventory_module(config.family)
    described: Hashable = getattr(module, "describe_inputs", lambda trainer: trainer)(config.trainer)
    return config.family, described


@dataclass(frozen=True)
class _Taken:
    """What a family made of the first config that read so: as it was given, as it was resolved, and the rows."""

    given: Any
    resolved: Any
    inventory: Inventory


@dataclass(frozen=True)
class Inventories:
    """What was read. Threads may share it.

    Attributes:
        folder: where data goes that a family makes.
        cache: where to keep what is fetched from object storage, and what was found out.
        spread: reads what is there.
    """

    folder: Path
    cache: Path
    spread: Spread
    taken: dict[Hashable, _Taken] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, config: RunConfig) -> tuple[Any, Inventory]:
        """A trainer's config with whole paths, and what it reads.

        Raises:
            DataError: the data cannot be read as it says.
        """
        key = describe_inputs(config)
        with self.lock:
            if key not in self.taken:
                take = load_inventory_module(config.family).take_inventory
                resolved, inventory = take(config.trainer, self.folder, self.cache, self.spread)
                taken = _Taken(config.trainer, resolved, inventory)
                # The members of a run and the trials of a tuning begin with the config as it was resolved.
                likewise = describe_inputs(dataclasses.replace(config, trainer=resolved))
                self.taken.update({key: taken, likewise: taken})
            taken = self.taken[key]
        return _resolve_likewise(taken, config.trainer), taken.inventory


def _resolve_likewise(taken: _Taken, trainer: Any) -> Any:
    """A config with the changes that another one got when it was resolved, which reads the same."""
    if trainer == taken.given:
        return taken.resolved
    sections = {}
    for section in dataclasses.fields(trainer):
        given, resolved, own = (getattr(one, section.name) for one in (taken.given, taken.resolved, trainer))
        changed = {
            one.name: getattr(resolved, one.name)
            for one in dataclasses.fields(resolved)
            if getattr(given, one.name, None) != getattr(resolved, one.name)
        }
        sections[section.name] = dataclasses.replace(own, **changed)
    return dataclasses.replace(trainer, **sections)
