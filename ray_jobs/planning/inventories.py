"""The rows that the configs of a run read, of its members and of a tuning's trials: read once for all that read the
same."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

from ray_jobs.config.run import RunConfig
from ray_jobs.errors import RunError
from trainers.interface import Inventory, load_inventory_module


def describe_inputs(config: RunConfig) -> Hashable:
    """What of a config decides what is read of the data and left for the folds: equal for those that share it."""
    module = load_inventory_module(config.family)
    described: Hashable = getattr(module, "describe_inputs", lambda trainer: trainer)(config.trainer)
    return described


class Inventories:
    """What was read. May be used by several threads.

    Args:
        config: of the run or the tuning, resolved.
        inventory: its rows. All others have to read the same.
        read: reads the rows of a config; gives its trainer's config, resolved, and the inventory.
    """

    def __init__(
        self, config: RunConfig, inventory: Inventory, read: Callable[[RunConfig], tuple[Any, Inventory]]
    ) -> None:
        self.inventory, self.read, self.lock = inventory, read, threading.Lock()
        self.known = {describe_inputs(config): (config.trainer, config.trainer, inventory)}

    def take(self, config: RunConfig, who: str, others: str, advice: str) -> tuple[Any, Inventory]:
        """The trainer's config, resolved, and the rows that it reads.

        Args:
            config: of a member or a trial.
            who, others: names it and what it is compared with, for a message.
            advice: what else to do where it reads other rows.

        Raises:
            RunError: it reads other rows.
        """
        key = describe_inputs(config)
        with self.lock:
            if key not in self.known:
                self.known[key] = (config.trainer, *self.read(config))
            given, resolved, own = self.known[key]
        first = self.inventory
        if own is not first and not all(
            np.array_equal(getattr(own, n), getattr(first, n)) for n in ("ids", "target", "test_ids")
        ):
            example = "".join(f", such as {str(row_id)!r}" for row_id in sorted({*own.ids} ^ {*first.ids})[:1])
            raise RunError(
                f"{who} reads {len(own.ids)} training and {own.num_test} test rows and {others} {len(first.ids)} and "
                f"{first.num_test}, not all the same{example}: predictions are compared row by row. Correct or remove "
                f"the bad rows (they are dropped only where somebody needs what is wrong with them), or {advice}"
            )
        return _resolve(config.trainer, given, resolved), own


def _resolve(trainer: Any, given: Any, resolved: Any) -> Any:
    """A trainer's config with what reading has changed in one that reads the same: paths, and what was found."""
    sections = {}
    for name in ("data", "model"):
        before, after, own = getattr(given, name), getattr(resolved, name), getattr(trainer, name)
        values = {field.name: getattr(after, field.name) for field in dataclasses.fields(before)}
        found = {one: value for one, value in values.items() if value != getattr(before, one)}
        sections[name] = dataclasses.replace(own, **found)
    return dataclasses.replace(trainer, **sections)
