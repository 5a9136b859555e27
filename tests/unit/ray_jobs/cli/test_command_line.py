"""All commands read their words alike: the same help, the same errors, and whatever order words are typed in."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
from support.processes import REPOSITORY, clean_environment

from ensemble.config import EnsembleConfig
from ray_jobs import analyze, leaderboard, predict, status, submit, sweep, wandb_sync
from ray_jobs.cli.arguments import parse
from ray_jobs.cli.command_line import parse_kfold, parse_tune
from ray_jobs.errors import RunError

COMMANDS = sorted(
    path.stem for path in (REPOSITORY / "ray_jobs").glob("*.py") if path.stem not in ("__init__", "__main__", "errors")
)
OF_A_RUN = (predict, status, submit, sweep, wandb_sync)


def read(argv, arguments=predict.Arguments, **sections):
    return parse("predict.py", argv, "", arguments, sections or {"ensemble": EnsembleConfig()})


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_one_look_and_loads_nothing_that_takes_long(command):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['{command}.py', '--help']\n"
        "try:\n"
        f"    runpy.run_path('ray_jobs/{command}.py', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0, end.code\n"
        "print(sorted({'torch', 'ray', 'pandas', 'scipy', 'sklearn', 'matplotlib', 'wandb'} & set(sys.modules)))"
    )
    environment = clean_environment(COLUMNS="300", PYTHONIOENCODING="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *lines, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    assert lines[0].startswith(f"usage: {command}.py ")
    assert f"    python ray_jobs/{command}.py" in done.stdout
    assert "╭─ options ─" in done.stdout
    assert ("RUN" in lines[0]) == (command not in ("kfold", "train", "tune"))
    assert ("VALUE" in lines[0]) == (command not in ("analyze", "explain", "leaderboard", "refit", "status"))
    assert "--run.storage STR" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["auctions", "--data", "new", "ensemble.method=median", "--models", "--output=x.csv", "run.storage=/runs"],
        ["--models", "--run.storage", "/runs", "auctions", "--output", "x.csv", "--ensemble.method=median", "data=new"],
        [
            "--ensemble.method",
            "median",
            "auctions",
            "--models=true",
            "--data=new",
            "--output=x.csv",
            "run.storage=/runs",
        ],
    ],
)
def test_words_stand_in_any_order(words):
    typed = read(words)
    assert typed.arguments == predict.Arguments("auctions", "new", "x.csv", models=True)
    assert typed.storage == "/runs"
    assert [part for word in typed.fields for part in word.lstrip("-").split("=")] == ["ensemble.method", "median"]


def test_values_are_taken_as_they_are():
    typed = read(["/a=b/run", "--data", "a=b.csv", "--output=[x].csv", "ensemble.weights=[1,2]"])
    assert (typed.arguments.run, typed.arguments.data, typed.arguments.output) == ("/a=b/run", "a=b.csv", "[x].csv")
    assert typed.fields == ["ensemble.weights=[1,2]"]
    assert read(["s3://lab/runs/a?x=1"]).arguments.run == "s3://lab/runs/a?x=1"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "RUN is missing; usage: predict.py RUN [--data STR]"),
        (["a", "b"], "unexpected 'b'; usage: predict.py RUN"),
        (["a", "--modles"], "no flag --modles; nearest: --models"),
        (["a", "--modles=true"], "no flag --modles; nearest: --models"),
        (["a", "ensemble.methd=mean"], "no field 'ensemble.methd'; nearest: ensemble.method"),
        (["a", "--ensemble.methd", "mean"], "no field 'ensemble.methd'; nearest: ensemble.method"),
        (["a", "method=mean"], "no field 'method'; nearest: ensemble.method"),
        (["a", "folds.count=3"], "no field 'folds.count'; --help lists them all"),
        (["a", "--data"], "--data has no value"),
        (["a", "--data", "--models"], "--data has no value"),
        (["a", "--threshold=much"], "--threshold=much: expected a number, or none"),
    ],
)
def test_errors_say_what_is_wrong_and_what_is_near(words, message):
    with pytest.raises(RunError) as caught:
        read(words)
    assert message in str(caught.value)


@pytest.mark.parametrize("command", OF_A_RUN, ids=lambda module: module.__name__)
def test_commands_of_a_run_want_one(command):
    with pytest.raises(RunError, match=r"RUN is missing; usage: \w+.py RUN "):
        command.main([])
    with pytest.raises(RunError, match="unexpected 'b'; usage"):
        command.main(["a", "b"])


@pytest.mark.parametrize("command", [*OF_A_RUN, analyze, leaderboard], ids=lambda module: module.__name__)
def test_every_command_refuses_what_it_does_not_know(command):
    with pytest.raises(RunError, match="no flag --unheard-of"):
        command.main(["a", "--unheard-of"])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_ends_with_2_where_words_are_wrong(name, monkeypatch, capsys):
    from ray_jobs.cli.entry import main_with_errors

    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--unheard-of"])
    with pytest.raises(SystemExit) as ended:
        main_with_errors(importlib.import_module(f"ray_jobs.{name}").main)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: no flag --unheard-of")


def test_several_runs_may_be_named_or_none():
    assert read(["a", "--csv", "x.csv", "b"], leaderboard.Arguments).arguments.runs == ("a", "b")
    assert read([], leaderboard.Arguments).arguments.runs == ()


def test_numbers_are_checked():
    for words in (["--interval=0"], ["--keep-days", "-1"], ["--keep_last=0"]):
        with pytest.raises(RunError, match=r"--(interval|keep-days|keep-last)=.*: expected (above|at least)"):
            analyze.main(["a", *words])


def test_a_yes_or_no_of_a_config_may_stand_alone():
    words = ["--model.freeze", "false", "--tracking.log_batch_metrics", "--folds.only", "0", "2", "training.epochs=2"]
    config = parse_kfold(words).config
    assert not config.trainer.model.freeze
    assert config.tracking.log_batch_metrics
    assert (config.folds.only, config.trainer.training.epochs) == ((0, 2), 2)


def test_the_recipe_decides_which_fields_there_are():
    for words in (
        ["--config-name=unet_segmentation"],
        ["--config_name", "unet_segmentation"],
        ["config-name=unet_segmentation"],
    ):
        assert parse_kfold([*words, "model.features=[8,16]"]).config.trainer.model.features == (8, 16)
    with pytest.raises(RunError, match=r"no field 'model\.features'"):
        parse_kfold(["model.features=[8,16]"])


def test_a_tuning_takes_no_members_but_none():
    assert parse_tune(["members=[]", "tune.num_trials=3"])[1].num_trials == 3
