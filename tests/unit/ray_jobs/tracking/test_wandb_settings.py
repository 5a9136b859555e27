"""W&B's own settings files count: after what is typed and the environment, before the recipe."""

from __future__ import annotations

import dataclasses

import pytest

from ray_jobs.cli.command_line import parse_kfold
from ray_jobs.config.recipes import RECIPES
from ray_jobs.config.run import TrackingConfig
from ray_jobs.errors import RunError
from ray_jobs.tracking.wandb_settings import (
    choose_wandb_mode,
    keep_wandb_mode,
    read_wandb_settings,
    with_wandb_settings,
)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A home and a working directory without settings; returns a function that writes those of one of them."""
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_NAME", "WANDB_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")

    def write(folder: str, text: str) -> str:
        path = tmp_path / folder / "settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"[default]\n{text}\n".encode() if text.isascii() else text.encode("latin-1"))
        return str(path)

    return write


USER, HERE = "home/.config/wandb", "work/wandb"


def choose(config, environment=None):
    return choose_wandb_mode(config, read_wandb_settings(environment or {}), environment or {})


def test_what_is_typed_comes_before_variables_before_files_before_the_recipe(places, monkeypatch):
    places(USER, "project = of_user\nentity = team_of_user")
    places(HERE, "project = of_folder")
    tracking = parse_kfold([]).config.tracking
    assert (tracking.project, tracking.entity) == ("of_folder", "team_of_user")
    monkeypatch.setenv("WANDB_PROJECT", "of_shell")
    assert parse_kfold([]).config.tracking.project == "of_shell"
    assert parse_kfold(["tracking.project=typed"]).config.tracking.project == "typed"


def test_the_mode_of_the_files_counts_and_is_not_kept_in_the_config(places, monkeypatch):
    path = places(HERE, "mode = offline")
    config = parse_kfold([]).config
    assert config.tracking.wandb == "auto"
    assert choose(config) == ("offline", f"offline, as {path} says")
    assert choose(parse_kfold(["tracking.wandb=online"]).config) == ("online", "online, as tracking.wandb says")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert choose(parse_kfold([]).config, {"WANDB_MODE": "disabled"}) == ("disabled", "disabled, as WANDB_MODE says")
    monkeypatch.delenv("WANDB_MODE")
    places(HERE, "")  # `wandb online`
    assert choose(config) == ("auto", "online if there is a key, else offline (tracking.wandb=auto)")


def test_a_recipe_that_is_online_stays_at_home_where_a_file_says_so(places):
    recipe = RECIPES["clip_multimodal_small"]()
    recipe = dataclasses.replace(recipe, tracking=TrackingConfig(wandb="online", project="of_recipe"))
    assert with_wandb_settings(recipe, {}).tracking == recipe.tracking
    places(USER, "mode = disabled\nproject = of_user")
    config = with_wandb_settings(recipe, {})
    assert (choose(config)[0], config.tracking.project) == ("disabled", "of_user")


@pytest.mark.parametrize(
    ("stored", "told", "chosen"),
    [
        ("online", "offline", "offline"),
        ("offline", "online", "offline"),
        ("disabled", "offline", "disabled"),
        ("auto", "offline", "offline"),
    ],
)
def test_a_run_that_exists_lets_out_what_both_its_config_and_the_files_allow(places, stored, told, chosen):
    recipe = RECIPES["clip_multimodal_small"]()
    places(USER, f"mode = {told}")
    kept = keep_wandb_mode(dataclasses.replace(recipe, tracking=TrackingConfig(wandb=stored)))
    assert choose(kept)[0] == chosen


@pytest.mark.parametrize("folder", ["config", "dir/wandb", "work/.wandb"])
def test_the_folders_that_variables_name_and_a_hidden_one_count(places, tmp_path, folder):
    (tmp_path / "dir").mkdir()
    environment = {"WANDB_CONFIG_DIR": str(tmp_path / "config"), "WANDB_DIR": str(tmp_path / "dir")}
    places(USER, "mode = online")  # not the user's place of settings any more
    path = places(folder, "mode = dryrun\nbase_url = https://wandb.example.org")
    settings = read_wandb_settings(environment)
    assert (settings.mode, str(settings.sources["mode"])) == ("offline", path)
    assert settings.values["base_url"] == "https://wandb.example.org"


@pytest.mark.parametrize(
    "text", ["mode = ofline", "mode =", "mode = shared", "no section\xff", "mode", "base_url = http://a:%40@b"]
)
def test_with_a_settings_file_that_cannot_be_read_nothing_goes_online(places, text):
    path = places(HERE, text)
    settings = read_wandb_settings({})
    assert settings.problem
    assert path in settings.problem
    assert "\n" not in settings.problem
    config = parse_kfold(["tracking.wandb=online"]).config
    mode, words = choose(config)
    assert mode == "offline"
    assert words == f"offline, as {settings.problem}; correct the file to go online"
    assert choose(parse_kfold(["tracking.wandb=disabled"]).config)[0] == "disabled"


def test_a_project_that_wandb_does_not_take_names_its_file(places):
    path = places(HERE, "project = a/b")
    with pytest.raises(RunError, match=f"tracking.project=a/b.*from {path}"):
        parse_kfold([])


def test_no_file_and_a_folder_that_may_not_be_looked_into_are_no_problem(places, tmp_path):
    (tmp_path / "home" / ".config").mkdir(parents=True)
    (tmp_path / "home" / ".config" / "wandb").touch()
    settings = read_wandb_settings({})
    assert (settings.values, settings.problem) == ({}, None)
