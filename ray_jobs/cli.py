"""The command line: `--config-name=RECIPE field=value ...`. The only module that imports tyro."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_jobs.config import SECTIONS, RunConfig, RunSection, flatten, to_dict
from ray_jobs.errors import RunError, printable
from ray_jobs.recipes import ALIASES, DEFAULT_RECIPE, RECIPES


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
    recipe, flags, rest, members = DEFAULT_RECIPE, {"--dry-run": False, "--retry-failed": False}, [], None
    words = list(argv)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if name.lstrip("-").replace("_", "-") == "config-name":
            recipe = value if equals else (words.pop(0) if words else "")
        elif word in flags:
            flags[word] = True
        elif name.lstrip("-") == "members":
            members = _split_list(value if equals else (words.pop(0) if words else ""))
        else:
            rest.append(word)
    if recipe not in RECIPES:
        raise RunError(f"no recipe {recipe!r}{suggest(recipe, RECIPES)}; recipes: {', '.join(RECIPES)}")
    summary = "\n".join(f"  {name:24s} {(build.__doc__ or '').strip()}" for name, build in RECIPES.items())
    job, what = "kfold.py", "Trains K folds side by side as Ray TorchTrainers, combines them and writes a submission."
    if is_one_run:
        job, what = "train.py", "Trains one model as a Ray TorchTrainer; folds.holdout_fraction of the rows validates."
    aliases = ALIASES.get(recipe, {})
    known = (
        f"flags of {recipe}: {', '.join(f'--{flag} ({field})' for flag, field in aliases.items())}\n\n"
        if aliases
        else ""
    )
    description = (
        f"{what}\n\n"
        f"usage: {job} [--config-name=RECIPE] [field=value ...] [--dry-run] [--retry-failed]\n\n"
        "--dry-run shows config and plan and launches nothing; --retry-failed trains only the folds that have failed.\n\n"
        "'members=[wide model.hidden_dim=128, seed1 training.seed=1]' trains variants of the recipe on the same folds, each "
        "written as name [recipe] [field=value ...], and combines them with it.\n\n"
        f"recipes:\n{summary}\n\n{known}fields of {recipe} with their values:"
    )
    config = with_wandb_environment(RECIPES[recipe](), os.environ)
    if is_one_run:
        folds = dataclasses.replace(config.folds, kind="holdout", count=1)
        config = dataclasses.replace(config, folds=folds, run=dataclasses.replace(config.run, name=f"{recipe}_train"))
    try:
        config = config if members is None else dataclasses.replace(config, members=members)
    except ValueError as error:
        raise RunError(str(error)) from None
    config = override(config, _expand_aliases(rest, aliases, config), description)
    return Command(config, dry_run=flags["--dry-run"], retry_failed=flags["--retry-failed"], job=job)


def _expand_aliases(words: Sequence[str], aliases: Mapping[str, str], config: RunConfig) -> list[str]:
    """`--lr 1e-3` to `--optimizer.lr 1e-3`, by the recipe's own flags; one for a yes or no may stand alone."""
    fields, expanded = flatten(to_dict(config)), []
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


def with_wandb_environment(config: RunConfig, environment: Mapping[str, str]) -> RunConfig:
    """The recipe's config with what W&B's own variables say; what is typed comes after and wins.

    Raises:
        RunError: WANDB_MODE has a value that W&B does not know.
    """
    names = {"WANDB_PROJECT": "project", "WANDB_ENTITY": "entity", "WANDB_NAME": "name", "WANDB_MODE": "wandb"}
    values = {field: environment[variable] for variable, field in names.items() if environment.get(variable)}
    if "wandb" in values:
        values["wandb"] = {"run": "online", "dryrun": "offline"}.get(values["wandb"], values["wandb"])
    try:
        return dataclasses.replace(config, tracking=dataclasses.replace(config.tracking, **values))
    except ValueError as error:
        raise RunError(f"{error} (from the environment: {', '.join(v for v in names if environment.get(v))})") from None


def override(config: RunConfig, words: Sequence[str], description: str = "", sections: Sequence[str] = ()) -> RunConfig:
    """A config with `field=value` (or `--field value`) applied.

    Args:
        config: where to start from.
        words: the overrides.
        description: heading of `--help`.
        sections: the only sections that may be changed; empty: all.

    Raises:
        RunError: an unknown field or a value that is not allowed.
    """
    owned = {f.name: getattr(config.trainer, f.name) for f in dataclasses.fields(config.trainer)}
    owned |= {name: getattr(config, name) for name in SECTIONS}
    offered = {name: value for name, value in owned.items() if not sections or name in sections}
    known = flatten({name: dataclasses.asdict(value) for name, value in offered.items()})
    words = [part for word in words for part in _as_flags(word)]
    for word in words:
        _refuse_unknown(word, known)
    changed = _parse_with_tyro(offered, words, description)
    trainer_sections = {name: value for name, value in changed.items() if name not in SECTIONS}
    own_sections = {name: value for name, value in changed.items() if name in SECTIONS}
    try:
        return dataclasses.replace(
            config, trainer=dataclasses.replace(config.trainer, **trainer_sections), **own_sections
        )
    except ValueError as error:
        raise RunError(str(error)) from None


def show(config: RunConfig) -> str:
    """The config as JSON."""
    return json.dumps(to_dict(config), indent=2)


def suggest(name: str, known: Sequence[str] | dict[str, Any]) -> str:
    """ "; nearest: a, b" or nothing."""
    nearest = difflib.get_close_matches(name, list(known), n=3, cutoff=0.4)
    return f"; nearest: {', '.join(nearest)}" if nearest else ""


def _as_flags(word: str) -> list[str]:
    """`folds.only=[0,2]` to `--folds.only 0 2`; what is no `field=value` stays as it is."""
    name, equals, value = word.partition("=")
    if not equals:
        return [word]
    name = "--" + name.lstrip("-")
    if (value.startswith("[") and value.endswith("]")) or (value.startswith("(") and value.endswith(")")):
        return [name, *_split_list(value)]
    if value.lower() in ("true", "false", "none", "null"):
        value = {"true": "True", "false": "False"}.get(value.lower(), "None")
    return [name, value]


def _split_list(value: str) -> tuple[str, ...]:
    """`[a, b x=[1,2]]` to its parts; a comma inside further brackets divides nothing."""
    inside = value[1:-1] if value[:1] in ("[", "(") and value[-1:] in ("]", ")") else value
    parts = re.split(r",(?![^\[(]*[\])])", inside)
    return tuple(part for part in (part.strip().strip("'\"") for part in parts) if part)


def _refuse_unknown(word: str, known: dict[str, Any]) -> None:
    if not word.startswith("--") or word in ("--help",):
        return
    name = word[2:].replace("-", "_")
    if name in known:
        return
    # `lr` finds `optimizer.lr`: compare with whole names and with their last parts.
    short = {full.rpartition(".")[2]: full for full in known}
    nearest = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    nearest += [
        short[part] for part in difflib.get_close_matches(name.rpartition(".")[2], list(short), n=2, cutoff=0.6)
    ]
    shown = f"; nearest: {', '.join(dict.fromkeys(nearest))}" if nearest else "; --help lists them all"
    raise RunError(f"no field {name!r}{shown}")


def _parse_with_tyro(sections: dict[str, Any], words: list[str], description: str) -> dict[str, Any]:
    import tyro  # 0.2 s: jobs without overrides do not wait for it

    fields = [(name, type(value), dataclasses.field(default=value)) for name, value in sections.items()]
    shape = dataclasses.make_dataclass("Fields", fields, frozen=True)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            parsed = tyro.cli(
                shape,
                args=words,
                description=description,
                use_underscores=True,
                config=(tyro.conf.FlagConversionOff,),
                default=shape(),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise RunError(_without_frame(errors.getvalue())) from None
    return {name: getattr(parsed, name) for name in sections}


def _without_frame(text: str) -> str:
    """tyro's message without its box, its heading and its hints."""
    lines = [re.sub(r"^[│|]\s?|\s*[│|]$", "", line).strip() for line in text.splitlines()]
    message = " ".join(line for line in lines if line and not re.match(r"^[╭╰─]", line))
    message = re.sub(r"\s*(Argument helptext:|For full helptext).*", "", message)
    return re.sub(r"^Error parsing \w+: ", "", message)


def find_run(argv: Sequence[str], usage: str) -> tuple[Path, list[str]]:
    """Finds the run that the first word names: a folder, or a name below `run.storage`.

    Returns:
        The run's folder and the other words.

    Raises:
        RunError: there is no such run; the message lists the nearest names.
        SystemExit: after `--help` or without a word.
    """
    storage, words = take_storage(argv)
    if not words or words[0] in ("-h", "--help"):
        print(usage)
        raise SystemExit(0 if words else 2)
    for root in (Path(words[0]).expanduser(), storage / words[0]):
        if (root / "config.json").is_file():
            return root.resolve(), words[1:]
    runs = sorted(path.parent.name for path in storage.glob("*/config.json"))
    raise RunError(f"no run {words[0]!r}, neither as a folder nor below {storage}{suggest(words[0], runs)}")


def take_storage(argv: Sequence[str]) -> tuple[Path, list[str]]:
    """The folder that the last `run.storage=FOLDER` names, else the usual one, and the other words."""
    said = [word for word in argv if word.lstrip("-").startswith("run.storage=")]
    storage = said[-1].partition("=")[2] if said else RunSection().storage
    return Path(storage).expanduser(), [word for word in argv if word not in said]


def find_runs(storage: Path) -> list[Path]:
    """All runs below a folder.

    Raises:
        RunError: there is none.
    """
    runs = sorted(path.parent.resolve() for path in storage.glob("*/config.json"))
    if not runs:
        raise RunError(f"no run below {storage}; give a run, or run.storage=FOLDER")
    return runs


def main_with_errors(main: Any) -> None:
    """Runs a job's main function; expected errors become one message and exit code 2."""
    from ensemble.predictions import PredictionError
    from trainers.interface import DataError

    try:
        sys.exit(main(sys.argv[1:]))
    except (RunError, DataError, PredictionError, OSError) as error:
        message = getattr(error, "cause", None) or error  # without Ray's frame around it
        print(f"error: {printable(str(message))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
