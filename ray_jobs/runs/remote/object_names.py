"""The objects of a run on object storage by their names: whose they are, which make others count, which stay on a
machine. Pure.

The table of the files of a run says so. What it does not know is the driver's.
"""

from __future__ import annotations

import re

from ray_jobs.runs.file_table import Owner, Put, find_file

LAUNCHED = "launched.json"  # sizes and checksums of what the driver left for the workers
STAYS = ("driver.lock", "made_data", ".mirror")  # when the folder is emptied
BY_CONTENT = re.compile(r".*-([0-9a-f]{12})\.safetensors")
_FILE_OF_CHECKPOINT = re.compile(r"/checkpoints/[^/]+/files-[0-9a-f]{12}/")  # under any name
_DECLARING = (  # make others count: come last, in this order
    "checkpoint.json",
    "manifest.json",
    "config.json",
    LAUNCHED,
    "summary.json",
)


def is_local(name: str) -> bool:
    """Whether a file stays on the machine that wrote it; also of an object whose name would lead out of the folder."""
    leads_out = any(part.startswith(".") or not part for part in name.split("/"))
    return leads_out or find_file(name).file.put is Put.NEVER


def find_fold(name: str) -> tuple[str, int] | None:
    """Member's place and number of the fold to which a name belongs, whose worker writes it; None: the driver does."""
    found = find_file(name)
    return (found.member, found.fold) if found.file.owner is Owner.FOLD else None


def is_derived(name: str) -> bool:
    """Whether a file is a log of a fold, or made from its record."""
    file = find_file(name).file
    return file.owner is Owner.FOLD and file.put is Put.AT_END


def is_of_driver(name: str) -> bool:
    """Whether the driver sees to a file, and no worker."""
    return find_file(name).file.owner not in (Owner.FOLD, Owner.FOLDS)


def counts(name: str) -> bool:
    """Whether a file makes others count."""
    return by_importance(name)[0] >= 0


def by_importance(name: str) -> tuple[int, bool, str]:
    """Sorts what makes other files count behind them; of several configs the run's own last, and resume points behind
    the best checkpoint, which they need."""
    last = "" if _FILE_OF_CHECKPOINT.search(name) else name.rpartition("/")[2]
    return (_DECLARING.index(last) if last in _DECLARING else -1), "/" not in name, name


def split_segment(name: str) -> tuple[int, int]:
    """Attempt and offset of a segment, `<attempt>-<offset>`."""
    attempt, _, offset = name.rpartition("/")[2].partition("-")
    return (int(attempt), int(offset)) if attempt.isdigit() and offset.isdigit() else (-1, -1)


def find_chain(segments: dict[str, int]) -> list[str]:
    """The segments that are a record: those of the latest attempt that has begun one, up to a gap. Each attempt begins
    with all that it keeps, so that whatever a survivor of an earlier one adds belongs to no chain."""
    attempts = [attempt for attempt, offset in map(split_segment, segments) if offset == 0]
    chain, end = [], 0
    for name in sorted(segments, key=split_segment):
        attempt, offset = split_segment(name)
        if attempts and attempt == max(attempts) and offset <= end:
            chain.append(name)
            end = max(end, offset + segments[name])
    return chain
