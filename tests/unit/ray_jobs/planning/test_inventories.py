"""What configs read of the data: once for all that read the same, and each keeps its own model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ray_jobs.config.overrides import override
from ray_jobs.config.recipes import RECIPES
from ray_jobs.errors import RunError
from ray_jobs.planning.inventories import Inventories
from trainers.interface import Inventory

CONFIG = RECIPES["clip_multimodal_small"]()


def make_inventory(*ids: str) -> Inventory:
    return Inventory(np.array(ids), np.zeros(len(ids)), "views", 0, "")


def test_what_reads_the_same_is_read_once_and_keeps_its_own_model():
    asked = []

    def read(config):
        asked.append(config)
        return replace(config.trainer, data=replace(config.trainer.data, root="/whole")), make_inventory("a", "b")

    inventories = Inventories(CONFIG, make_inventory("a", "b"), read)
    for width in (8, 16):
        config = override(CONFIG, ["data.text_columns=[title]", f"model.hidden_dim={width}", "data.root=here"])
        trainer, inventory = inventories.take(config, "a trial", "the recipe", "stop")
        assert (trainer.model.hidden_dim, trainer.data.root) == (width, "/whole")
        assert inventory.ids.tolist() == ["a", "b"]
    assert len(asked) == 1
    narrow = override(CONFIG, ["model.hidden_dim=4"])
    assert inventories.take(narrow, "a trial", "the recipe", "stop")[0] == narrow.trainer
    assert len(asked) == 1


def test_what_reads_other_rows_is_refused():
    inventories = Inventories(CONFIG, make_inventory("a", "b"), lambda config: (config.trainer, make_inventory("a")))
    with pytest.raises(RunError, match=r"member 'x' reads 1 .* and the run 2 .* such as 'b': .*, or stop$"):
        inventories.take(override(CONFIG, ["data.text_columns=[title]"]), "member 'x'", "the run", "stop")
