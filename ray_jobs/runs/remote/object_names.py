"""The objects of a run on object storage by their names: whose they are, which make others count, which stay on a machine. Pure."""

from __future__ import annotations

import re

from ray_jobs.runs.folder import MEMBERS
from ray_jobs.runs.working_folder import OWN

LAUNCHED = "launched.json"  # sizes and checksums of what the driver left for the workers
STAYS = ("driver.lock", "made_data", OWN)  # when the folder is emptied
RESULTS = ("predictions/", "analysis/")  # of jobs that do not hold the run, which put them when they end
_WANDB = ("ids.json", "stopped.json", "uploaded.json")
_OF_FOLD = re.compile(
    rf"(?P<member>{MEMBERS}/[^/]+/)?"
    r"(folds/(?P<files>\d+)/(?!(status|leave_request)\.json$)|metrics/(segments/)?fold_(?P<rows>\d+)[./]|metrics/(epoch|batch)_metrics_|log/fold_(?P<lines>\d+)/|log/(training|rank\d+|stacks)_).+"
)
_NEEDED = re.compile(
    rf"({MEMBERS}/[^/]+/)?(config\.json|provenance\.json|fold_plan\.parquet|events\.jsonl|metrics/[a-z]+\.jsonl|inputs/.+)"
)
_DERIVED = re.compile(
    rf"({MEMBERS}/[^/]+/)?(metrics/(fold_\d+/)?(epoch|batch)_metrics_|log/(fold_\d+/|(training|rank\d+|stacks)_)).+"
)
BY_CONTENT = re.compile(r".*-([0-9a-f]{12})\.safetensors")
_SHARED = re.compile(rf"({MEMBERS}/[^/]+/)?[^/]+-[0-9a-f]{{12}}\.safetensors")  # by all folds, which put it there
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
    parts = name.split("/")
    of_wandb = parts[0] == "wandb" and parts[1:] not in ([one] for one in _WANDB)
    return parts[0] in STAYS or of_wandb or any(part.startswith(".") or not part for part in parts)


def find_fold(name: str) -> tuple[str, int] | None:
    """Member's place and number of the fold to which a name belongs, whose worker writes it; None: the driver does."""
    found = _OF_FOLD.fullmatch(name)
    if found is None:
        return None
    return found["member"] or "", int(
        found["files"] or found["rows"] or found["lines"] or 0
    )  # 0: of a run without folds


def is_needed(name: str) -> bool:
    """Whether a file is one that the driver never removes and cannot make anew."""
    return _NEEDED.fullmatch(name) is not None


def is_derived(name: str) -> bool:
    """Whether a file is a log of a fold, or made from its record."""
    return _DERIVED.fullmatch(name) is not None


def is_of_driver(name: str) -> bool:
    """Whether the driver writes a file, and no worker."""
    return find_fold(name) is None and not _SHARED.fullmatch(name)


def counts(name: str) -> bool:
    """Whether a file makes others count."""
    return by_importance(name)[0] >= 0


def by_importance(name: str) -> tuple[int, bool, str]:
    """Sorts what makes other files count behind them; of several configs the run's own last, and resume points behind the best
    checkpoint, which they need."""
    last = "" if _FILE_OF_CHECKPOINT.search(name) else name.rpartition("/")[2]
    return (_DECLARING.index(last) if last in _DECLARING else -1), "/" not in name, name


def split_segment(name: str) -> tuple[int, int]:
    """Attempt and offset of a segment, `<attempt>-<offset>`."""
    attempt, _, offset = name.rpartition("/")[2].partition("-")
    return (int(attempt), int(offset)) if attempt.isdigit() and offset.isdigit() else (-1, -1)


def find_chain(segments: dict[str, int]) -> list[str]:
    """The segments that are a record: those of the latest attempt that has begun one, up to a gap. Each attempt begins with all that it
    keeps, so that whatever a survivor of an earlier one adds belongs to no chain."""
    attempts = [attempt for attempt, offset in map(split_segment, segments) if offset == 0]
    chain, end = [], 0
    for name in sorted(segments, key=split_segment):
        attempt, offset = split_segment(name)
        if attempts and attempt == max(attempts) and offset <= end:
            chain.append(name)
            end = max(end, offset + segments[name])
    return chain
