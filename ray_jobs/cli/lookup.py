"""Finds the run that a command names: a folder, a name below `run.storage`, or a URI."""

from __future__ import annotations

import os
from pathlib import Path

from ray_jobs.errors import RunError
from ray_jobs.runs.folder import RunFolder, refuse_member
from ray_jobs.runs.location import find_uri, list_run_folders
from trainers.storage.object_storage import is_uri
from trainers.values import suggest

_MOST_RUNS = 10  # that a message names


def find_run(run: str, storage: str, *, whole: bool = False, takes_tuning: bool = False) -> Path:
    """Finds a run (or tuning, for jobs that take one): a folder, or a name below `run.storage`. One on object storage
    is brought to this machine, with its checkpoints and predictions if it is wanted whole.

    Raises:
        RunError: there is no such run; the message lists the nearest names.
    """
    if is_uri(run) or is_uri(storage):
        return _fetch(run, storage, whole=whole)
    below = Path(os.path.expanduser(storage))
    for folder in (RunFolder(Path(os.path.expanduser(run))), RunFolder(below / run)):
        if folder.config.is_file():
            if folder.is_tuning() and not takes_tuning:
                raise RunError(
                    f"{folder.root} is a tuning: expected a run; name one of its trials, such as "
                    f"{folder.trials / 'trial_000'}"
                )
            root = folder.root.resolve()
            uri = _find_uri(root)
            return root if uri is None else _fetch(uri, storage, whole=whole)
    raise _explain_absence(run, str(below), [root.name for root in list_run_folders(storage)])


def _explain_absence(run: str, below: str, runs: list[str]) -> RunError:
    """Of a run that does not exist, with those that there are."""
    shown = ", ".join(runs[:_MOST_RUNS]) + f" and {len(runs) - _MOST_RUNS} more" * (len(runs) > _MOST_RUNS)
    return RunError(
        f"no run {run!r}: expected a run's folder, its name below run.storage, or its s3:// address; the runs in "
        f"{below} are: {shown or 'none'}{suggest(run, runs) if len(runs) > 1 else ''}"
    )


def _find_uri(root: Path) -> str | None:
    """Of a folder in which a run on object storage is worked on, or a member of it."""
    folder = RunFolder(root)
    uri = find_uri(folder)
    return uri and f"{uri}/{root.relative_to(folder.run_root).as_posix()}".removesuffix("/.")


def _fetch(run: str, storage: str, *, whole: bool) -> Path:
    from ray_jobs.runs.remote.run_mirror import fetch_run, list_runs

    uri = run if is_uri(run) else f"{storage.rstrip('/')}/{run}"
    root = fetch_run(uri, whole=whole)
    if not RunFolder(root).config.is_file():
        above, _, name = uri.rstrip("/").rpartition("/")
        raise _explain_absence(name, above, list_runs(above))
    return root


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
        raise RunError(
            f"run.storage={storage}: no run in this folder; name a run, or set run.storage to the folder of the runs"
        )
    return runs


def find_whole_run(run: str, storage: str) -> RunFolder:
    """As `find_run`, for jobs that are done for a run with all its members.

    Raises:
        RunError: there is no such run, or it is a member.
    """
    folder = RunFolder(find_run(run, storage, whole=True))
    refuse_member(folder)
    return folder
