"""What every command takes: its own words and flags, and fields of a config as `field=value` or `--field value`.

A command declares its own in a dataclass: fields without a default stand alone (RUN), the others are flags, and the
string below each is its help. All commands have the same `--help` and the same errors. What is typed is only read here;
what it means, the command knows.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ray_jobs.config.overrides import describe_options, list_fields, list_types, read_arguments
from ray_jobs.config.run import RunSection
from ray_jobs.config.words import IS_CHECKOUT, Said, name_subcommand, show_flag, take_apart, write_command
from ray_jobs.errors import RunError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Arguments = TypeVar("Arguments", bound="DataclassInstance")


@dataclass(frozen=True)
class Typed(Generic[Arguments]):
    """What a user typed.

    Attributes:
        arguments: the command's own.
        sections: that were read, with what was said of them.
        said: of fields.
    """

    arguments: Arguments
    sections: dict[str, Any]
    said: list[Said]

    @property
    def storage(self) -> str:
        """Where runs are looked for."""
        storage: str = self.sections["run"].storage
        return storage

    @property
    def fields(self) -> list[str]:
        """The words about fields of sections that are read later."""
        return [word for one in self.said if one.name.partition(".")[0] not in self.sections for word in one.words]


@dataclass(frozen=True)
class OfRun:
    """Of a command that is about one run."""

    run: str
    """A run's folder, its name below run.storage, or its s3:// address."""


@dataclass(frozen=True)
class RunsFolder:
    """Where runs are looked for."""

    storage: str = RunSection().storage
    """Folder that holds the runs, or s3://bucket/prefix."""


def parse(
    job: str,
    argv: Sequence[str],
    what: str,
    arguments: type[Arguments],
    sections: Mapping[str, Any] | None = None,
) -> Typed[Arguments]:
    """Reads a command line, or answers `--help`.

    Args:
        job: the command's file.
        argv: what was typed.
        what: the command does, the first part of its help.
        arguments: the dataclass of its own words and flags.
        sections: whose fields it takes. With `run` they are a config's and are read; else they show what can be said of
            the config of a run that has to be found, and only `run.storage` is read.

    Raises:
        RunError: a name is unknown, a value is not allowed, or a word is missing or too many.
        SystemExit: after `--help`.
    """
    shown = {"run": RunsFolder(), **(sections or {})}
    required = [field.name for field in dataclasses.fields(arguments) if field.default is dataclasses.MISSING]
    flags = list_types(arguments)
    wanted = {name: flags.pop(name) for name in required}
    usage = _write_usage(job if IS_CHECKOUT else f"kfold {name_subcommand(job)}", wanted, flags, shown)
    if {"-h", "--help"} & set(argv):
        _print_help(usage, what, describe_options(arguments, shown))
        raise SystemExit(0)
    alone, said = take_apart(argv, flags, list_fields(shown))
    _check_number(alone, wanted, usage)
    read = shown if sections and "run" in sections else {"run": RunsFolder()}
    now = [one for one in said if one.name in flags or one.name.partition(".")[0] in read]
    found = read_arguments(arguments, read, alone, now)
    return Typed(found.pop("arguments"), found, [one for one in said if one.name not in flags])


def _check_number(alone: Sequence[str], wanted: Mapping[str, str], usage: str) -> None:
    """Raises RunError unless there are as many words that stand alone as are wanted."""
    if any("tuple" in kind for kind in wanted.values()):
        return
    if len(alone) < len(wanted):
        raise RunError(f"{list(wanted)[len(alone)].upper()} is missing; {usage}")
    if len(alone) > len(wanted):
        raise RunError(f"unexpected {alone[len(wanted)]!r}; {usage}")


def _write_usage(job: str, wanted: Mapping[str, str], flags: Mapping[str, str], sections: Mapping[str, Any]) -> str:
    words = [f"[{name.upper()[:-1]} ...]" if "tuple" in kind else name.upper() for name, kind in wanted.items()]
    for name, kind in flags.items():
        value = "" if kind == "bool" else " " + kind.partition("|")[0].strip().upper()
        words.append(f"[{show_flag(name)}{value}]")
    if isinstance(sections["run"], RunsFolder):
        words += [f"[{name}.FIELD=VALUE ...]" for name in sections if name != "run"] + ["[run.storage=FOLDER]"]
    else:
        words.append("[FIELD=VALUE ...]")
    return " ".join(["usage:", job, *words])


def _print_help(usage: str, what: str, options: str) -> None:
    what = re.sub(r"python ray_jobs/(\w+\.py)", lambda match: write_command(match[1]), what)
    fill = partial(textwrap.fill, width=shutil.get_terminal_size().columns, break_on_hyphens=False)
    parts = [part if part.startswith(" ") else fill(part) for part in what.strip("\n").split("\n\n")]
    try:
        print("\n\n".join([fill(usage, subsequent_indent="    "), *parts, options]), flush=True)
    except BrokenPipeError:  # of `--help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
