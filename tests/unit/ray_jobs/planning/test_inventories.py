"""What several configs read is read once, and each keeps what is its own."""

from __future__ import annotations

from dataclasses import replace

from ray_jobs.config.overrides import override
from ray_jobs.config.recipes import RECIPES
from ray_jobs.planning.inventories import Inventories
from trainers.clip_regression import inventory as of_family
from trainers.interface import call_here


def test_configs_that_read_alike_share_the_rows_and_keep_their_models(tmp_path, small_frame, write_data, monkeypatch):
    """As trials of a tuning do that tunes what is read and the model."""
    read, take_inventory = [], of_family.take_inventory
    monkeypatch.setattr(of_family, "take_inventory", lambda *given: read.append(1) or take_inventory(*given))
    monkeypatch.chdir(write_data(small_frame).parent)
    inventories = Inventories(tmp_path, tmp_path / "cache", call_here)
    words = ["data.root=data", "data.text_columns=[title]"]
    configs = [override(RECIPES["clip_multimodal_small"](), [*words, f"model.hidden_dim={width}"]) for width in (8, 9)]
    (first, rows), (second, same) = map(inventories.take, configs)
    assert (first.model.hidden_dim, second.model.hidden_dim) == (8, 9)
    assert first.data.root == second.data.root == str(tmp_path / "data")
    assert rows is same
    assert inventories.take(replace(configs[1], trainer=second))[1] is rows
    assert len(read) == 1
    other = override(configs[0], ["data.text_columns=[title,description]"])
    assert inventories.take(other)[1] is not rows
