"""The `kfold` command: every command of this folder as a sub-command, and the files for clusters.

    kfold run run.name=auctions data.root=/data/auctions
    kfold status auctions

Loads nothing but the command that is asked for.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from ray_jobs.cli.screen import guard_screen
from ray_jobs.config.words import name_subcommand
from ray_jobs.errors import EXIT_REFUSED, RunError
from trainers.values import suggest

# Each command's file, and what it does.
FILES = {
    "kfold.py": "trains K folds, combines them, writes submission and report",
    "train.py": "trains a recipe once, without folds",
    "tune.py": "tunes fields of a recipe; each trial is a K-fold run",
    "refit.py": "trains a run's recipe on all rows, as one model for serving",
    "predict.py": "predicts new rows with a run's ensemble",
    "evaluate.py": "evaluates a run's models on rows whose truth is known",
    "ablation.py": "the same of every model that its folds came through",
    "generate.py": "makes something new with a run's models, such as text",
    "explain.py": "measures what a run's models look at",
    "sweep.py": "tries all combinations of a run's models",
    "status.py": "follows a run from another terminal",
    "leaderboard.py": "ranks folds, members, ensembles and runs",
    "analyze.py": "draws and compares trainings, prunes old files",
    "submit.py": "combines finished folds anew, without training",
    "wandb_sync.py": "uploads what W&B lacks of a run",
}
COMMANDS = {name_subcommand(file): file.removesuffix(".py") for file in FILES}
DEPLOY_FILES = "deploy-files"
_DEPLOY = Path(__file__).with_name("deploy")


def main() -> None:
    """Runs the sub-command that was typed, and ends the process."""
    command, *words = sys.argv[1:] or ["--help"]
    if command in COMMANDS:
        from ray_jobs.cli.entry import main_with_errors

        sys.argv[1:] = words
        main_with_errors(lambda argv: import_module(f"ray_jobs.{COMMANDS[command]}").main(argv))
    guard_screen()
    try:
        print(_answer(command, words))
    except (RunError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_REFUSED)


def _answer(command: str, words: list[str]) -> str:
    """What is said of words that are no command of the project."""
    if command in ("-h", "--help"):
        return _describe()
    if command == "--version":
        return f"ray-kfold {_find_version()}"
    if command == DEPLOY_FILES:
        return _copy_deploy_files(words)
    raise RunError(f"no command {command!r}{suggest(command, [*COMMANDS, DEPLOY_FILES])}; `kfold --help` lists them")


def _describe() -> str:
    lines = {name_subcommand(file): does for file, does in FILES.items()}
    lines[DEPLOY_FILES] = "copies the files for clusters to a new folder, FOLDER"
    commands = "\n".join(f"    {name:14s}{does}" for name, does in lines.items())
    return (
        "usage: kfold COMMAND [WORD ...]\n\nCross-validation and ensembling as a service on Ray Train.\n\n"
        f"{commands}\n\n`kfold COMMAND --help` says more; `kfold --version` says which version this is."
    )


def _find_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ray-kfold")
    except PackageNotFoundError:
        import tomllib

        project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
        return f"{project['version']} (a checkout that is not installed)"


def _copy_deploy_files(words: list[str]) -> str:
    import shutil

    if len(words) != 1 or words[0].startswith("-"):
        raise RunError("usage: kfold deploy-files FOLDER, which is made; README.md in it says what each file is for")
    folder = Path(words[0]).expanduser()
    if folder.exists():
        raise RunError(f"{folder} exists; name a new folder")
    shutil.copytree(_DEPLOY, folder)
    for path in folder.glob("*.yaml"):
        # In the repository they lie in another folder than cluster.yaml and requirements.txt.
        path.write_text(path.read_text().replace("ray_jobs/deploy/", ""))
    return f"written: {folder}"


if __name__ == "__main__":
    main()
