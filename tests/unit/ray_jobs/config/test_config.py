"""Configs, recipes and the command line."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from ensemble.config import EnsembleConfig
from ray_jobs.cli.command_line import parse_kfold
from ray_jobs.cli.lookup import find_run
from ray_jobs.config.overrides import override
from ray_jobs.config.recipes import RECIPES
from ray_jobs.config.run import find_differences, from_dict, refuse_idle_gpus, to_dict
from ray_jobs.errors import RunError
from ray_jobs.planning.checks import check_run


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_and_survives_json(name):
    config = RECIPES[name]()
    assert config.recipe == name
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


def test_recipes_load_neither_torch_nor_ray():
    code = (
        "import sys, ray_jobs.config.recipes; sys.exit(bool({'torch', 'ray', 'open_clip', 'pandas'} & "
        "set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_full_size_recipe_has_the_catalogue_defaults():
    config = parse_kfold(["--config-name=clip_multimodal"]).config
    trainer = config.trainer
    assert (config.folds.count, trainer.training.epochs, trainer.training.batch_size) == (3, 30, 16)
    assert (trainer.optimizer.lr, trainer.optimizer.weight_decay) == (1e-4, 1e-2)
    assert (trainer.model.clip, trainer.model.pretrained, trainer.model.freeze) == ("ViT-L-14", "openai", True)
    assert trainer.training.horizontal_flip


def test_overrides_of_every_form_reach_their_fields():
    words = [
        "folds.only=[0,2]",
        "optimizer.lr=3e-4",
        "--training.epochs",
        "3",
        "data.text_columns=[]",
        "model.freeze=false",
    ]
    words += ["data.date_column=none", "ensemble.method=weighted_mean", "ensemble.weights=[1,2,1]", "--run.name=x"]
    words += ["resources.gpus_per_fold=auto", "resources.memory_per_fold=4GiB"]
    config = parse_kfold(words).config
    assert config.folds.only == (0, 2)
    assert config.trainer.optimizer.lr == 3e-4
    assert config.trainer.training.epochs == 3
    assert config.trainer.data.text_columns == ()
    assert config.trainer.data.date_column is None
    assert config.ensemble.weights == (1.0, 2.0, 1.0)
    assert config.run.name == "x"
    assert config.resources.memory_per_fold == "4GiB"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--config-name=clip_multimodl"],
            "no recipe 'clip_multimodl': expected one of clip_multimodal, clip_multimodal_b32",
        ),
        (["optimzer.lr=1"], "no field 'optimzer.lr'; nearest: optimizer.lr"),
        (["lr=1"], "no field 'lr'; nearest: optimizer.lr"),
        (["ensemble.method=mode"], "ensemble.method=mode: expected one of mean, median, trimmed_mean"),
        (["ensemble.method=ridge"], "ensemble.method=ridge: expected several members, a blend set"),
        (["ensemble.trim=0.5"], "ensemble.trim=0.5: expected a share, at least 0 and below 0.5"),
        (["folds.count=three"], "folds.count=three: expected a whole number"),
        (["folds.count=1"], "folds.count=1: expected 2 to 1000"),
        (["folds.only=[7]"], "folds.only=[7]: expected numbers of folds, 0 to 2"),
        (["model.freeze=true"], "or model.freeze=false, or model.allow_random_frozen=true"),
        (
            ["ensemble.weights=[1,2]", "ensemble.method=weighted_mean"],
            "ensemble.weights=[1,2]: expected 3 numbers, one for each fold",
        ),
        (["ensemble.method=greedy"], "ensemble.method=greedy: expected several members, a blend set"),
        (["members=[a, b, a x=1]"], "'a' is used twice"),
        (["members=[main]"], "'main' is used twice"),
        (["members=[model.dropout=0.2]"], "the name 'model.dropout=0.2': expected letters"),
        (["members=[a]", "ensemble.members=[b]"], "ensemble.members=[b]: expected members of the run: main, a"),
        (
            ["members=[a]", "ensemble.weights=[1,2,3]", "ensemble.method=weighted_mean"],
            "ensemble.weights=[1,2,3]: expected 2 numbers, one for each member",
        ),
        (["run.name=../x"], "run.name=../x: expected letters"),
        (["folds.seed=-1"], "folds.seed=-1: expected at least 0"),
        (["folds.seed=4294967296"], "folds.seed=4294967296: expected at least 0 and below 4294967296"),
        (["optimizer.lr=nan"], "optimizer.lr=nan: expected a finite number, above 0"),
        (["resources.gpus_per_fold=1.5"], "resources.gpus_per_fold=1.5: expected whole GPUs for each worker"),
        (
            ["resources.memory_per_fold=4"],
            "resources.memory_per_fold=4: expected bytes (4e9) or a number with its unit",
        ),
        (["resources.workers_per_fold=[0,2]"], "resources.workers_per_fold=[0,2]: expected a whole number, at least 1"),
        (["resources.workers_per_fold=[3,2]"], "the second number larger than the first"),
        (
            ["resources.workers_per_fold=[1,2,3]"],
            "resources.workers_per_fold=[1,2,3]: expected a whole number, or 2 whole numbers",
        ),
        (
            ["resources.workers_per_fold=[1,4]", "resources.gpus_per_fold=3"],
            "expected whole GPUs for each worker with resources.workers_per_fold=[1,4]",
        ),
        (["data.numeric_columns=[views]"], "column 'views' is data.target"),
        (["stray"], "unexpected 'stray'; usage: kfold.py [--config-name STR]"),
    ],
)
def test_unknown_names_and_values_are_refused_with_the_nearest_ones(words, message):
    with pytest.raises(RunError) as caught:
        parse_kfold(words)
    assert message in str(caught.value)


def test_a_training_is_refused_gpus_that_its_workers_would_leave_alone():
    """But a function of the user's may use several, and a config that is only read is not refused."""
    config = parse_kfold(["resources.gpus_per_fold=2"]).config
    with pytest.raises(
        ValueError,
        match=r"resources\.gpus_per_fold=2: expected at most 1 with resources\.workers_per_fold=1, as a worker trains on",
    ):
        check_run(config, None)
    words = ["--config-name=own_trainer", "resources.workers_per_fold=2", "resources.gpus_per_fold=4"]
    refuse_idle_gpus(parse_kfold(words).config)


def test_help_lists_recipes_and_fields(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_kfold(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert "clip_multimodal_b32" in shown
    assert "--folds.kind" in shown


def test_differences_tell_what_changes_training_from_what_does_not():
    old = parse_kfold([]).config
    words = ["ensemble.method=median", "folds.only=[1]", "resources.memory_per_fold=4e9", "training.eval_batch_size=2"]
    new = override(old, ["optimizer.lr=1", *words])
    trained, other = find_differences(old, new)
    assert list(trained) == ["optimizer.lr"]
    assert sorted(other) == [word.partition("=")[0] for word in words]


def test_a_range_of_workers_is_read_and_comes_back_from_json():
    config = parse_kfold(["resources.workers_per_fold=[1,4]"]).config
    assert config.resources.workers_per_fold == (1, 4)
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
    assert parse_kfold(["resources.workers_per_fold=2"]).config.resources.workers_per_fold == 2


@pytest.mark.parametrize(
    ("old", "new", "trains_anew"),
    [("[1,2]", "[1,4]", False), ("1", "2", True), ("1", "[1,2]", True), ("[1,2]", "2", True)],
)
def test_only_bounds_between_which_workers_change_anyway_may_change_in_a_run(old, new, trains_anew):
    before, after = (parse_kfold([f"resources.workers_per_fold={workers}"]).config for workers in (old, new))
    trained, other = find_differences(before, after)
    assert list(trained if trains_anew else other) == ["resources.workers_per_fold"]
    assert not (other if trains_anew else trained)


@pytest.mark.parametrize(
    ("old", "new", "trains_anew"),
    [("warn", "error", False), ("warn", "group", True), ("group", "warn", True), ("error", "group", True)],
)
def test_only_grouping_what_leaks_changes_what_is_trained(old, new, trains_anew):
    before, after = (parse_kfold([f"folds.on_leak={how}"]).config for how in (old, new))
    trained, other = find_differences(before, after)
    assert list(trained if trains_anew else other) == ["folds.on_leak"]
    assert not (other if trains_anew else trained)


def test_a_config_from_before_leaks_were_looked_for_warns_of_them():
    values = to_dict(parse_kfold([]).config)
    del values["folds"]["on_leak"]
    assert from_dict(values).folds.on_leak == "warn"


def test_only_the_named_sections_may_be_overridden():
    with pytest.raises(RunError, match=r"no field 'folds.count'"):
        override(parse_kfold([]).config, ["folds.count=5"], sections=("ensemble",))


def test_weights_without_a_weighted_mean_are_refused():
    with pytest.raises(ValueError, match=r"expected none with ensemble.method="):
        EnsembleConfig(weights=(1.0,))


def test_a_config_file_with_an_unknown_field_is_refused():
    values = to_dict(replace(parse_kfold([]).config))
    values["folds"]["shuffle"] = True
    with pytest.raises(ValueError, match=r"no field 'shuffle': expected"):
        from_dict(values)


def test_a_run_is_found_by_folder_or_name_and_near_names_are_listed(tmp_path):
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "config.json").write_text("{}")
    assert find_run(str(tmp_path / "first"), "~/ray_results") == tmp_path / "first"
    assert find_run("first", str(tmp_path)) == tmp_path / "first"
    with pytest.raises(RunError, match="are: first"):
        find_run("frist", str(tmp_path))


def test_wandb_variables_set_defaults_and_what_is_typed_wins(monkeypatch):
    for name, value in {
        "WANDB_PROJECT": "p",
        "WANDB_ENTITY": "team",
        "WANDB_NAME": "night",
        "WANDB_MODE": "dryrun",
    }.items():
        monkeypatch.setenv(name, value)
    tracking = parse_kfold([]).config.tracking
    assert (tracking.project, tracking.entity, tracking.name, tracking.wandb) == ("p", "team", "night", "offline")
    tracking = parse_kfold(["tracking.project=q", "tracking.wandb=disabled"]).config.tracking
    assert (tracking.project, tracking.wandb) == ("q", "disabled")
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(
        RunError, match=r"tracking.wandb=sometimes: expected one of auto, .*from the environment: .*WANDB_MODE"
    ):
        parse_kfold([])


def test_flags_stand_anywhere_among_the_fields():
    command = parse_kfold(["folds.count=4", "--retry-failed", "run.name=a"])
    assert (command.retry_failed, command.dry_run, command.config.folds.count) == (True, False, 4)
    assert parse_kfold(["--dry-run"]).dry_run
