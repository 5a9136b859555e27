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
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_jobs.config import SECTIONS, RunConfig, RunSection, flatten, to_dict
from ray_jobs.errors import RunError, is_refused_by_machine, printable
from ray_jobs.recipes import ALIASES, DEFAULT_RECIPE, RECIPES
from ray_jobs.tuning.config import TuneConfig
from trainers.object_storage import is_uri


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
    config = with_wandb_environment(RECIPES[recipe](), os.environ)
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
    config = dataclasses.replace(with_wandb_environment(RECIPES[recipe](), os.environ), members=())
    words = _expand_aliases(rest, recipe, config)
    config, others = _override_all(config, {"tune": TuneConfig()}, words, f"{usage}\n{_describe_recipes(recipe)}")
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
            members = _split_list(value if equals else (words.pop(0) if words else ""))
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
    return _override_all(config, {}, words, description, sections)[0]


def _override_all(
    config: RunConfig,
    others: Mapping[str, Any],
    words: Sequence[str],
    description: str = "",
    sections: Sequence[str] = (),
) -> tuple[RunConfig, dict[str, Any]]:
    """As `override`, with further sections that are none of a run's; returns them, too."""
    owned = {f.name: getattr(config.trainer, f.name) for f in dataclasses.fields(config.trainer)}
    owned |= {name: getattr(config, name) for name in SECTIONS}
    offered = {name: value for name, value in owned.items() if not sections or name in sections} | others
    known = flatten({name: dataclasses.asdict(value) for name, value in offered.items()})
    words = [part for word in words for part in _as_flags(word)]
    for word in words:
        _refuse_unknown(word, known)
    changed = _parse_with_tyro(offered, words, description)
    others = {name: changed.pop(name) for name in others}
    trainer_sections = {name: value for name, value in changed.items() if name not in SECTIONS}
    own_sections = {name: value for name, value in changed.items() if name in SECTIONS}
    try:
        trainer = dataclasses.replace(config.trainer, **trainer_sections)
        return dataclasses.replace(config, trainer=trainer, **own_sections), others
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
    raise RunError(f"no field {name!r}{suggest_field(name, known) or '; --help lists them all'}")


def suggest_field(name: str, known: Iterable[str]) -> str:
    """As `suggest`; `lr` finds `optimizer.lr`: whole names are compared, and their last parts."""
    known = list(known)
    short = {full.rpartition(".")[2]: full for full in known}
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    nearest += [
        short[part] for part in difflib.get_close_matches(name.rpartition(".")[2], list(short), n=2, cutoff=0.6)
    ]
    return f"; nearest: {', '.join(dict.fromkeys(nearest))}" if nearest else ""


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
    message = re.sub(r"\[/?bold\]", "", message)
    message = re.sub(r"\s*(Argument helptext:|For full helptext).*", "", message)
    return re.sub(r"^Error parsing \w+: ", "", message)


def find_run(
    argv: Sequence[str], usage: str, *, whole: bool = False, takes_tuning: bool = False
) -> tuple[Path, list[str]]:
    """Finds the run (or tuning, for jobs that take one) that the first word names: a folder, or a name below `run.storage`. One on
    object storage is brought to this machine, with its checkpoints and predictions if it is wanted whole.

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
    if is_uri(words[0]) or is_uri(storage):
        return _fetch(words[0], storage, whole=whole), words[1:]
    storage = Path(storage).expanduser()
    for root in (Path(words[0]).expanduser(), storage / words[0]):
        if (root / "config.json").is_file():
            if (root / "tune.json").is_file() and not takes_tuning:
                raise RunError(f"{root} is a tuning; name one of its trials, such as {root / 'trials' / 'trial_000'}")
            uri = _find_uri(root.resolve())
            return (root.resolve() if uri is None else _fetch(uri, storage, whole=whole)), words[1:]
    runs = sorted(path.parent.name for path in storage.glob("*/config.json"))
    raise RunError(f"no run {words[0]!r}, neither as a folder nor below {storage}{suggest(words[0], runs)}")


def _find_uri(root: Path) -> str | None:
    """Of a folder in which a run on object storage is worked on, or a member of it."""
    from ray_jobs.mirror import find_uri
    from ray_jobs.run_folder import RunFolder

    folder = RunFolder(root)
    uri = find_uri(folder)
    return uri and f"{uri}/{root.relative_to(folder.run_root).as_posix()}".removesuffix("/.")


def _fetch(run: str, storage: str, *, whole: bool) -> Path:
    from ray_jobs.run_mirror import fetch_run, list_runs

    uri = run if is_uri(run) else f"{storage.rstrip('/')}/{run}"
    root = fetch_run(uri, whole=whole)
    if not (root / "config.json").is_file():
        above, _, name = uri.rstrip("/").rpartition("/")
        raise RunError(f"no run {uri}{suggest(name, list_runs(above))}")
    return root


def take_storage(argv: Sequence[str]) -> tuple[str, list[str]]:
    """What the last `run.storage=…` names, else the usual folder, and the other words."""
    said = [word for word in argv if word.lstrip("-").startswith("run.storage=")]
    storage = said[-1].partition("=")[2] if said else RunSection().storage
    return storage, [word for word in argv if word not in said]


def find_runs(storage: str) -> list[Path]:
    """All runs below a folder, tunings left out, or in an object storage, from where they are brought.

    Raises:
        RunError: there is none.
    """
    if is_uri(storage):
        from ray_jobs.run_mirror import list_runs

        runs = [_fetch(name, storage, whole=False) for name in list_runs(storage)]
    else:
        found = sorted(path.parent.resolve() for path in Path(storage).expanduser().glob("*/config.json"))
        runs = [root for root in found if not (root / "tune.json").is_file()]
    if not runs:
        raise RunError(f"no run below {storage}; give a run, or run.storage=FOLDER")
    return runs


def main_with_errors(main: Any) -> None:
    """Runs a job's main function and ends the process.

    Errors that are meant for the user, the project's own, and what a disk or network refuses are one message; exit code 2. Whatever else comes
    up here nobody has expected: one sentence, then where it came from; exit code 1.
    """
    from ensemble.predictions import PredictionError
    from trainers.interface import DataError

    try:
        code = main(sys.argv[1:])
        if "ray_jobs.run_mirror" in sys.modules:
            sys.modules["ray_jobs.run_mirror"].push_fetched()
        sys.exit(code)
    except (RunError, DataError, PredictionError) as error:
        message = getattr(error, "cause", None) or error  # without Ray's frame around it
        print(f"error: {printable(str(message))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if isinstance(error, OSError) and is_refused_by_machine(error):
            print(f"error: {printable(str(error))}. Check disk, permissions and network", file=sys.stderr)
            sys.exit(2)
        print(f"{describe_unexpected(error)}\n\n{printable(traceback.format_exc())}", file=sys.stderr)
        sys.exit(1)


def describe_unexpected(error: Exception) -> str:
    """What to say of an error that nobody has written a message for."""
    job, what = Path(sys.argv[0]).name, printable(f"{type(error).__name__}: {error}")
    return (
        f"error: {job} met an error that it does not expect: {what}. Nothing that was saved is lost. Please report it as a bug of this "
        "project, with your command and these lines, which say where it came from:"
    )
