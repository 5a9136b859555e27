"""The command line of the jobs that train: `--config-name=RECIPE field=value ...`."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ray_jobs.cli.arguments import parse
from ray_jobs.config.overrides import find_sections, with_own_sections, with_sections
from ray_jobs.config.recipes import ALIASES, DEFAULT_RECIPE, RECIPES, find_recipe
from ray_jobs.config.run import RunConfig, to_dict
from ray_jobs.config.tune import TuneConfig
from ray_jobs.config.words import split_list
from ray_jobs.errors import RunError
from ray_jobs.tracking.wandb_settings import with_wandb_settings


@dataclass(frozen=True)
class Command:
    """What a user typed of a job that trains: a config, whether only to show it, and, of a tuning, the words that its
    recipe takes for a run, too."""

    config: RunConfig
    dry_run: bool
    retry_failed: bool = False
    job: str = "kfold.py"
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingArguments:
    """Of every job that trains."""

    config_name: str = DEFAULT_RECIPE
    """The recipe to start from."""
    dry_run: bool = False
    """Show config and plan; launch nothing."""
    retry_failed: bool = False
    """Train only what has failed."""


@dataclass(frozen=True)
class RunArguments(TrainingArguments):
    """Of a job that trains one run."""

    members: str | None = None
    """'[wide model.hidden_dim=128, seed1 training.seed=1]' trains variants of the recipe on the same folds, each
    written as name [recipe] [field=value ...], and combines them with it."""


def parse_kfold(argv: Sequence[str], what: str = "", *, is_one_run: bool = False) -> Command:
    """The command line of `kfold.py`.

    Args:
        argv: what was typed.
        what: the job does.
        is_one_run: train.py's: no folds, but a share of the rows that validates.

    Raises:
        RunError, SystemExit: see `parse`.
    """
    recipe, job = _find_recipe(argv), "train.py" if is_one_run else "kfold.py"
    config = with_wandb_settings(RECIPES[recipe](), os.environ)
    if is_one_run:
        folds = dataclasses.replace(config.folds, kind="holdout", count=1)
        config = dataclasses.replace(config, folds=folds, run=dataclasses.replace(config.run, name=f"{recipe}_train"))
    words, what = _expand_aliases(argv, recipe), f"{what.strip()}\n\n{_describe_recipes(recipe)}"
    config = with_own_sections(config, words)
    typed = parse(job, words, what, RunArguments, find_sections(config))
    given = typed.arguments
    if given.members is not None:
        try:
            config = dataclasses.replace(config, members=split_list(given.members))
        except ValueError as error:
            raise RunError(str(error)) from None
    config = with_sections(config, typed.sections)
    return Command(config, dry_run=given.dry_run, retry_failed=given.retry_failed, job=job)


def parse_tune(argv: Sequence[str], what: str = "") -> tuple[Command, TuneConfig]:
    """The command line of `tune.py`.

    Raises:
        RunError, SystemExit: see `parse`.
    """
    recipe = _find_recipe(argv)
    config = dataclasses.replace(with_wandb_settings(RECIPES[recipe](), os.environ), members=())
    words, what = _expand_aliases(argv, recipe), f"{what.strip()}\n\n{_describe_recipes(recipe)}"
    config = with_own_sections(config, words)
    typed = parse("tune.py", words, what, RunArguments, {"tune": TuneConfig(), **find_sections(config)})
    if split_list(typed.arguments.members or ""):
        raise RunError(
            f"--members={typed.arguments.members}: expected none, as a trial trains one recipe; tune each alone"
        )
    tune = typed.sections.pop("tune")
    kept = [one for one in typed.said if not one.name.startswith(("tune.", "run.name"))]
    words = [f"--config-name={recipe}"] if recipe != DEFAULT_RECIPE else []
    words += [word for one in kept for word in one.words]
    if RECIPES[recipe]().members:
        words.append("members=[]")
    given = typed.arguments
    config = with_sections(config, typed.sections)
    command = Command(config, dry_run=given.dry_run, retry_failed=given.retry_failed, job="tune.py", words=tuple(words))
    return command, tune


def _find_recipe(argv: Sequence[str]) -> str:
    """The name of the recipe, which decides what else there is.

    Raises:
        RunError: there is no such recipe.
    """
    recipe = DEFAULT_RECIPE
    for word, following in pairwise([*argv, ""]):
        name, equals, value = word.partition("=")
        if name.lstrip("-").replace("-", "_") == "config_name":
            recipe = value if equals else following
    find_recipe(recipe)
    return recipe


def _describe_recipes(chosen: str) -> str:
    summary = "\n".join(f"    {name:30s} {(build.__doc__ or '').strip()}" for name, build in RECIPES.items())
    flags = ", ".join(f"--{flag} ({field})" for flag, field in ALIASES.get(chosen, {}).items())
    known = f"Flags of {chosen}: {flags}.\n\n" if flags else ""
    return f"Recipes:\n\n{summary}\n\n{known}The fields of {chosen} have these values:"


def _expand_aliases(words: Sequence[str], recipe: str) -> list[str]:
    """`--lr 1e-3` to `--optimizer.lr 1e-3`, by the recipe's own flags; one that stands for a field with its value, such
    as `--use_amp`, to these."""
    aliases, expanded = ALIASES.get(recipe, {}), []
    for word in words:
        flag, equals, value = word.partition("=")
        field = aliases.get(flag.removeprefix("--").replace("-", "_")) if flag.startswith("--") else None
        stands_alone = field is not None and "=" in field
        expanded.append(f"--{field}{'' if stands_alone else equals + value}" if field else word)
    return expanded


def show(config: RunConfig) -> str:
    """The config as JSON."""
    return json.dumps(to_dict(config), indent=2)
