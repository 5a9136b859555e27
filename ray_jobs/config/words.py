"""The words of a command line, taken apart: `--name`, `--name value`, `name=value`, and words that stand alone. What a
value means is not known here."""

from __future__ import annotations

import difflib
import itertools
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ray_jobs.errors import RunError
from trainers.values import list_nearest

# An installed package has no files that one could type: its commands are sub-commands of `kfold`.
IS_CHECKOUT = Path(__file__).parents[2].joinpath("pyproject.toml").is_file()
_NAMED = re.compile(r"(-{0,2}[A-Za-z_][\w.-]*)(?:=(.*))?", re.DOTALL)


@dataclass(frozen=True)
class Said:
    """What was typed of one name.

    Attributes:
        name: of a flag or field.
        values: as typed; of a yes or no that stands for itself, True.
        words: that were typed.
    """

    name: str
    values: list[str]
    words: list[str]


def take_apart(
    words: Sequence[str], flags: Mapping[str, str], fields: Mapping[str, str]
) -> tuple[list[str], list[Said]]:
    """Words that stand alone, and what is said of names, in the order in which it was typed.

    Args:
        words: of a command line.
        flags: type of each of a command's own, by name. What is said of them is taken as it is.
        fields: type of each field; `[a,b]` are two values, and true, false and none are Python's.

    Raises:
        RunError: a name is unknown, or has no value.
    """
    known, alone, said, waiting = {**flags, **fields}, list[str](), list[Said](), list(words)
    while waiting:
        word = waiting.pop(0)
        typed, value = _find_name(word)
        if not typed:
            alone.append(word)
            continue
        name = typed.lstrip("-").replace("-", "_")
        if name not in known:
            raise RunError(_explain_unknown(typed, name, flags, fields))
        kind, is_flag = known[name], name in flags
        values = [value] if value is not None else _find_values(waiting, kind, is_flag=is_flag)
        taken = [] if value is not None else values
        waiting = waiting[len(taken) :]
        if not values and kind == "bool":
            values = ["True"]
        elif not values and "tuple" not in kind:
            raise RunError(f"{word} has no value: expected {word} VALUE")
        if kind == "bool" or not is_flag:
            values = [one for value in values for one in _read_value(value)]
        said.append(Said(name, values, [word, *taken]))
    return alone, said


def _find_name(word: str) -> tuple[str, str | None]:
    """`--name` and `name=value`, taken apart; of other words nothing."""
    match = _NAMED.fullmatch(word)
    if match is None or (match[2] is None and not word.startswith("-")):
        return "", None
    return match[1], match[2]


def _find_values(following: Sequence[str], kind: str, *, is_flag: bool) -> list[str]:
    """Of the words that follow `--name` those that are its values."""
    if kind == "bool":
        return [word for word in following[:1] if not is_flag and word.lower() in ("true", "false")]
    if "tuple" in kind:
        return list(itertools.takewhile(lambda word: not _find_name(word)[0], following))
    return [word for word in following[:1] if not word.startswith("--")]


def _read_value(value: str) -> Sequence[str]:
    """`[0,2]` to 0 and 2; none to None."""
    if (value.startswith("[") and value.endswith("]")) or (value.startswith("(") and value.endswith(")")):
        return split_list(value)
    return [{"true": "True", "false": "False", "none": "None", "null": "None"}.get(value.lower(), value)]


def split_list(value: str) -> tuple[str, ...]:
    """`[a, b x=[1,2]]` to its parts; a comma inside further brackets divides nothing."""
    inside = value[1:-1] if value[:1] in ("[", "(") and value[-1:] in ("]", ")") else value
    parts = re.split(r",(?![^\[(]*[\])])", inside)
    return tuple(part for part in (part.strip().strip("'\"") for part in parts) if part)


def _explain_unknown(typed: str, name: str, flags: Mapping[str, str], fields: Mapping[str, str]) -> str:
    shown = {flag: show_flag(flag) for flag in flags}
    nearest = [shown.get(one, one) for one in _find_nearest(name, [*flags, *fields])]
    is_flag = typed.startswith("-") and "." not in typed
    what = f"flag {typed}" if is_flag else f"field {name!r}"
    return f"no {what}{list_nearest(nearest) or '; --help lists them all'}"


def show_flag(name: str) -> str:
    """A flag as one types it."""
    return "--" + name.replace("_", "-")


def write_command(job: str, words: Sequence[str] = ()) -> str:
    """A command as one types it here.

    Args:
        job: its file in `ray_jobs/`, such as `kfold.py`, or the whole path of a script.
        words: what follows.
    """
    if "/" in job:
        return shlex.join(["python", job, *words])
    return shlex.join([*(["python", f"ray_jobs/{job}"] if IS_CHECKOUT else ["kfold", name_subcommand(job)]), *words])


def name_subcommand(job: str) -> str:
    """The sub-command of `kfold` that a command's file is: `wandb-sync` of `wandb_sync.py`."""
    return {"kfold.py": "run"}.get(job, job.removesuffix(".py").replace("_", "-"))


def suggest_field(name: str, known: Iterable[str]) -> str:
    """As `trainers.values.suggest`; `lr` finds `optimizer.lr`: whole names are compared, and their last parts."""
    return list_nearest(_find_nearest(name, list(known)))


def _find_nearest(name: str, known: Sequence[str]) -> list[str]:
    short = {full.rpartition(".")[2]: full for full in known}
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    nearest += [
        short[part] for part in difflib.get_close_matches(name.rpartition(".")[2], list(short), n=2, cutoff=0.6)
    ]
    return list(dict.fromkeys(nearest))
