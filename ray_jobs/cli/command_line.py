"""The command line of the jobs that train: `--config-name=RECIPE field=value ...`."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

from ray_jobs.config.overrides import override, override_all, split_list, suggest
from ray_jobs.config.recipes import ALIASES, DEFAULT_RECIPE, RECIPES
from ray_jobs.config.run import RunConfig, flatten, to_dict
from ray_jobs.config.tune import TuneConfig
from ray_jobs.errors import RunError
from ray_jobs.tracking.wandb_settings import with_wandb_settings


@dataclass(frozen=True)
class Command:
    """What a user typed: a config, and whether only to show it."""

    config: RunConfig
    dry_run: bool
    retry_failed: bool = False
    job: str = "kfold.py"


def parse_kfold(argv: Sequence[str], *, is_one_run: bool = False) -> Command:
    """`[--config-name=NAME] [field=value ...] [--dry-run] [--retry-failed] [--help]`.

    Args:
        argv: what was typed.
        is_one_run: train.py's: no folds, but a share of the rows that validates.

    Raises:
        RunError: an unknown recipe, field or value; the message lists the nearest names.
        SystemExit: after `--help`.
    """
    recipe, flags, rest, members = _sort_words(argv, ("--dry-run", "--retry-failed"))
    job, what = "kfold.py", "Trains K folds side by side as Ray TorchTrainers, combines them and writes a submission."
    if is_one_run:
        job, what = "train.py", "Trains one model as a Ray TorchTrainer; folds.holdout_fraction of the rows validates."
    description = (
        f"{what}\n\n"
        f"usage: {job} [--config-name=RECIPE] [field=value ...] [--dry-run] [--retry-failed]\n\n"
        "--dry-run shows config and plan and launches nothing; --retry-failed trains only the folds that have failed.\n\n"
        "'members=[wide model.hidden_dim=128, seed1 training.seed=1]' trains variants of the recipe on the same folds, each "
        "written as name [recipe] [field=value ...], and combines them with it.\n\n"
        f"{_describe_recipes(recipe)}"
    )
    config = with_wandb_settings(RECIPES[recipe](), os.environ)
    if is_one_run:
        folds = dataclasses.replace(config.folds, kind="holdout", count=1)
        config = dataclasses.replace(config, folds=folds, run=dataclasses.replace(config.run, name=f"{recipe}_train"))
    try:
        config = config if members is None else dataclasses.replace(config, members=members)
    except ValueError as error:
        raise RunError(str(error)) from None
    config = override(config, _expand_aliases(rest, recipe, config), description)
    return Command(config, dry_run=flags["--dry-run"], retry_failed=flags["--retry-failed"], job=job)


def parse_tune(argv: Sequence[str], usage: str) -> tuple[Command, TuneConfig]:
    """As `parse_kfold`, with the fields of `tune`.

    Raises:
        RunError, SystemExit: as there.
    """
    recipe, flags, rest, members = _sort_words(argv, ("--dry-run", "--retry-failed"))
    if members:
        raise RunError("members: a trial trains one recipe; tune each member by itself")
    config = dataclasses.replace(with_wandb_settings(RECIPES[recipe](), os.environ), members=())
    words = _expand_aliases(rest, recipe, config)
    config, others = override_all(config, {"tune": TuneConfig()}, words, f"{usage}\n{_describe_recipes(recipe)}")
    command = Command(config, dry_run=flags["--dry-run"], retry_failed=flags["--retry-failed"])
    return command, others["tune"]


def _sort_words(
    argv: Sequence[str], known_flags: Sequence[str]
) -> tuple[str, dict[str, bool], list[str], tuple[str, ...] | None]:
    """The recipe's name, the flags, all other words, and the members if they are given.

    Raises:
        RunError: there is no such recipe.
    """
    recipe, flags, rest, members = DEFAULT_RECIPE, dict.fromkeys(known_flags, False), [], None
    words = list(argv)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if name.lstrip("-").replace("_", "-") == "config-name":
            recipe = value if equals else (words.pop(0) if words else "")
        elif word in flags:
            flags[word] = True
        elif name.lstrip("-") == "members":
            members = split_list(value if equals else (words.pop(0) if words else ""))
        else:
            rest.append(word)
    if recipe not in RECIPES:
        raise RunError(f"no recipe {recipe!r}{suggest(recipe, RECIPES)}; recipes: {', '.join(RECIPES)}")
    return recipe, flags, rest, members


def _describe_recipes(chosen: str) -> str:
    summary = "\n".join(f"  {name:24s} {(build.__doc__ or '').strip()}" for name, build in RECIPES.items())
    flags = ", ".join(f"--{flag} ({field})" for flag, field in ALIASES.get(chosen, {}).items())
    known = f"flags of {chosen}: {flags}\n\n" if flags else ""
    return f"recipes:\n{summary}\n\n{known}fields of {chosen} with their values:"


def _expand_aliases(words: Sequence[str], recipe: str, config: RunConfig) -> list[str]:
    """`--lr 1e-3` to `--optimizer.lr 1e-3`, by the recipe's own flags; one for a yes or no may stand alone."""
    aliases, fields, expanded = ALIASES.get(recipe, {}), flatten(to_dict(config)), []
    for place, word in enumerate(words):
        flag, equals, value = word.partition("=")
        field = aliases.get(flag.removeprefix("--").replace("-", "_")) if flag.startswith("--") else None
        if field is None:
            expanded.append(word)
            continue
        expanded.append(f"--{field}{equals}{value}")
        follows = place + 1 < len(words) and not words[place + 1].startswith("-") and "=" not in words[place + 1]
        if isinstance(fields[field], bool) and not equals and not follows:
            expanded.append("True")
    return expanded


def show(config: RunConfig) -> str:
    """The config as JSON."""
    return json.dumps(to_dict(config), indent=2)
