"""The folders of a run's members."""

from __future__ import annotations

from ray_jobs.config.run import MAIN, RunConfig
from ray_jobs.errors import RunError
from ray_jobs.runs.folder import RunFolder


def find_members(folder: RunFolder, config: RunConfig) -> dict[str, RunFolder]:
    """The folder of every member by its name, `main` (the run's own) first."""
    return {name: folder.of_member(name) for name in config.member_names}


def refuse_member(folder: RunFolder) -> None:
    """Raises RunError where a folder is a further member's, and no run's."""
    if folder.member != MAIN:
        raise RunError(f"{folder.root} is a member; this is done for its run as a whole: {folder.run_root}")
