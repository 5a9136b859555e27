"""Finds the run that a command names: a folder, a name below `run.storage`, or a URI."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ray_jobs.config.overrides import suggest
from ray_jobs.config.run import RunSection
from ray_jobs.errors import RunError
from ray_jobs.runs.folder import RunFolder, refuse_member
from ray_jobs.runs.location import find_uri, list_run_folders
from trainers.storage.object_storage import is_uri


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
    below = Path(os.path.expanduser(storage))
    for folder in (RunFolder(Path(words[0]).expanduser()), RunFolder(below / words[0])):
        if folder.config.is_file():
            if folder.is_tuning() and not takes_tuning:
                raise RunError(
                    f"{folder.root} is a tuning; name one of its trials, such as {folder.trials / 'trial_000'}"
                )
            root = folder.root.resolve()
            uri = find_uri(RunFolder(root))
            if uri is not None:
                place = root.relative_to(RunFolder(root).run_root).as_posix()
                root = _fetch(f"{uri}/{place}".removesuffix("/."), storage, whole=whole)
            return root, words[1:]
    runs = [root.name for root in list_run_folders(storage)]
    raise RunError(f"no run {words[0]!r}, neither as a folder nor below {below}{suggest(words[0], runs)}")


def _fetch(run: str, storage: str, *, whole: bool) -> Path:
    from ray_jobs.runs.remote.run_mirror import fetch_run, list_runs

    uri = run if is_uri(run) else f"{storage.rstrip('/')}/{run}"
    root = fetch_run(uri, whole=whole)
    if not RunFolder(root).config.is_file():
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
        from ray_jobs.runs.remote.run_mirror import list_runs

        runs = [_fetch(name, storage, whole=False) for name in list_runs(storage)]
    else:
        runs = [root.resolve() for root in list_run_folders(storage) if not RunFolder(root).is_tuning()]
    if not runs:
        raise RunError(f"no run below {storage}; give a run, or run.storage=FOLDER")
    return runs


def find_whole_run(argv: Sequence[str], usage: str) -> tuple[RunFolder, list[str]]:
    """As `find_run`, for jobs that are done for a run with all its members.

    Raises:
        RunError: there is no such run, or it is a member.
    """
    root, words = find_run(argv, usage, whole=True)
    folder = RunFolder(root)
    refuse_member(folder)
    return folder, words
