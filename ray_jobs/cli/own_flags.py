"""Commands of which a run's family says further flags: the run stands first, because it says which family is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ray_jobs.cli.arguments import RunsFolder
from ray_jobs.cli.lookup import find_whole_run
from ray_jobs.runs.folder import RunFolder

_STORAGE = "run.storage"


def find_named_run(argv: Sequence[str]) -> RunFolder | None:
    """The run that the first word names; None: the first is no such word."""
    if not argv or argv[0].startswith("-") or argv[0].startswith(f"{_STORAGE}="):
        return None
    return find_whole_run(argv[0], _find_storage(argv))


def _find_storage(argv: Sequence[str]) -> str:
    """Where runs are looked for, which decides the run before its flags are known."""
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        name, has_value, value = word.lstrip("-").partition("=")
        if name == _STORAGE:
            return value if has_value else following
    return RunsFolder().storage


def join_flags(arguments: type[Any], options: type[Any]) -> type[Any]:
    """The command's own words and flags, and the family's, in one dataclass. The string below each field stays its
    help."""

    def check(self: Any) -> None:
        for own in (options, arguments):
            if hasattr(own, "__post_init__"):
                own.__post_init__(self)

    joined = type("Arguments", (options, arguments), {"__annotations__": {}, "__post_init__": check})
    return dataclass(frozen=True)(joined)
