"""What configs read of the data: once for all that read the same, and each keeps its own model."""

from __future__ import annotations

import dataclasses

import numpy as np

from ray_jobs.config.overrides import override
from ray_jobs.config.recipes import RECIPES
from ray_jobs.planning import inventories
from ray_jobs.planning.inventories import Inventories
from trainers.clip_regression import inventory as clip_inventory
from trainers.interface import Inventory, call_here

CONFIG = RECIPES["clip_multimodal_small"]()


def test_what_reads_the_same_is_read_once_and_keeps_its_own_model(tmp_path, monkeypatch):
    asked = []

    class Module:
        describe_inputs = staticmethod(clip_inventory.describe_inputs)

        @staticmethod
        def take_inventory(trainer, folder, cache, spread):
            asked.append(trainer)
            resolved = dataclasses.replace(trainer, data=dataclasses.replace(trainer.data, root="/whole"))
            return resolved, Inventory(np.array(["a", "b"]), np.zeros(2), "views", 0, "")

    monkeypatch.setattr(inventories, "load_inventory_module", lambda family: Module)
    known = Inventories(tmp_path, tmp_path, call_here)
    for width in (8, 16):
        config = override(CONFIG, ["data.text_columns=[title]", f"model.hidden_dim={width}", "data.root=here"])
        trainer, inventory = known.take(config)
        assert (trainer.model.hidden_dim, trainer.data.root) == (width, "/whole")
        assert inventory.ids.tolist() == ["a", "b"]
    assert len(asked) == 1
    resolved = dataclasses.replace(config, trainer=trainer)
    assert known.take(resolved)[0] == trainer
    assert len(asked) == 1
