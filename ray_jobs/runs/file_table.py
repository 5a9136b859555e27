"""The files of a run: what each holds, who writes it, what becomes of it. Every other list of them is made from this table.

A further member's files have the same names below `members/<name>/`. Knows no path on a disk, and no kind by its name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import cached_property, lru_cache

from ensemble.kinds import Kind, Offer

MEMBERS, TRIALS = "members", "trials"
WORK = ".mirror"  # of the mirror of a run on object storage
_IN_MEMBER = re.compile(f"{MEMBERS}/[^/]+/")


class Owner(Enum):
    """Who writes a file, and removes it."""

    DRIVER = auto()
    FOLD = auto()  # rank 0 of its latest attempt
    FOLDS = auto()  # the first of all folds; the others find it
    PUBLISHER = auto()
    COMMAND = auto()  # one that does not hold the run, such as predict.py


class Put(Enum):
    """When a file is put into object storage, if the run is there."""

    SOON = auto()  # the driver's within seconds, a fold's before each resume point
    AT_END = auto()  # of the fold or the command; while it grows it would be put again and again
    NEVER = auto()
    ALONE = auto()  # it is an object and no file


@dataclass(frozen=True)
class RunFile:
    """A file of a run, or a folder of files.

    Attributes:
        name: below the run's folder. `<i>` stands for a fold's number, other words in brackets for whatever is there. A folder's ends with
            a slash. In a run without folds `fold_<i>/` is left out.
        about: what it holds.
        owner: who writes it.
        put: when it gets into object storage.
        is_needed: the driver never removes it and cannot make it anew.
        is_pruned: `analyze.py --keep-last` removes all but the newest.
        is_listed: in the run's README.md and docs/run-folder.md.
        of_kind: only kinds of predictions whose `files` name it have it.
        needs: only kinds of predictions that offer this have it.
    """

    name: str
    about: str
    owner: Owner = Owner.DRIVER
    put: Put = Put.SOON
    is_needed: bool = False
    is_pruned: bool = False
    is_listed: bool = True
    of_kind: bool = False
    needs: Offer | None = None

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches its name, below the run's or a member's folder, with the number of the fold as `fold`."""
        text = re.sub("<(?!i>)[a-z]+>", "[^/]+", re.escape(self.name))
        text = text.replace("fold_<i>/", "(fold_<i>/)?").replace("<i>", r"(?P<fold>\d+)")
        return re.compile(f"{text}.+" if self.name.endswith("/") else text)

    @property
    def glob(self) -> str:
        """Finds it below the run's folder."""
        return re.sub(r"<\w+>", "*", self.name.replace("fold_<i>/", "**/")).rstrip("/")


# Of two that match, the first counts.
FILES = (
    RunFile("config.json", "the whole config, resolved", is_needed=True),
    RunFile("provenance.json", "command, package versions, fingerprint of the data, counts of leaks", is_needed=True),
    RunFile(
        "fold_plan.parquet",
        "id, repeat, fold, and the group where groups are kept together; fold is the fold that validates the row (-1: none, -2: the "
        "blend set)",
        is_needed=True,
    ),
    RunFile("fold_info.csv", "rows that train and rows that validate in each fold"),
    RunFile("bad_rows.csv", "rows that were dropped or repaired (only if there are any)"),
    RunFile(
        "leaks.csv",
        "kind, fold, id, other_id, where: rows that share picture, text, group or id with a training row (only if there are any)",
    ),
    RunFile("events.jsonl", "what happened when: folds launched, started, completed, failed", is_needed=True),
    RunFile("metrics/fold_<i>.jsonl", "the metric record of a fold, one JSON object a line", Owner.FOLD),
    RunFile("metrics/ensemble.jsonl", "the metric record of all folds together", is_needed=True),
    RunFile("metrics/submission.jsonl", "the metric record of the ensemble and its submission", is_needed=True),
    RunFile("metrics/trial.jsonl", "the metric record of a tuning's trial", is_needed=True, is_listed=False),
    RunFile(
        "metrics/fold_<i>/epoch_metrics_<time>.csv",
        "a line for each epoch, made from the record",
        Owner.FOLD,
        Put.AT_END,
        is_pruned=True,
    ),
    RunFile(
        "metrics/fold_<i>/batch_metrics_<time>.csv",
        "a line for each batch (only with tracking.log_batch_metrics)",
        Owner.FOLD,
        Put.AT_END,
        is_pruned=True,
    ),
    RunFile(
        "metrics/segments/fold_<i>/<attempt>-<offset>",
        "lines of a fold's record, until it is whole",
        Owner.FOLD,
        Put.ALONE,
        is_listed=False,
    ),
    RunFile("wandb/ids.json", "the names of the W&B runs"),
    RunFile("wandb/stopped.json", "on which of their pages somebody has pressed Stop", is_listed=False),
    RunFile("wandb/uploaded.json", "rows that W&B's server holds", Owner.PUBLISHER, is_listed=False),
    RunFile("wandb/publisher.lock", "held by the publisher at work", Owner.PUBLISHER, Put.NEVER, is_listed=False),
    RunFile("wandb/publisher.json", "the processes of its wandb-core", Owner.PUBLISHER, Put.NEVER, is_listed=False),
    RunFile("wandb/", "W&B's local files", Owner.PUBLISHER, Put.NEVER),
    RunFile("log/fold_<i>/training_<time>.log", "the log of a fold", Owner.FOLD, Put.AT_END, is_pruned=True),
    RunFile(
        "log/fold_<i>/rank<r>_<time>.log",
        "the logs of its further workers (only if there are any)",
        Owner.FOLD,
        Put.AT_END,
    ),
    RunFile(
        "log/fold_<i>/stacks_attempt<n>_rank<r>.txt",
        "where a worker stood that made no progress (only if one did)",
        Owner.FOLD,
        Put.AT_END,
    ),
    RunFile("log/ray.log", "what Ray printed", put=Put.AT_END),
    RunFile("log/wandb.log", "the log of the upload to W&B", Owner.PUBLISHER, Put.AT_END),
    RunFile("folds/<i>/status.json", "how far a fold is: state, attempt, epoch, workers, error"),
    RunFile("folds/<i>/leave_request.json", "asks an attempt to save where it is and end", is_listed=False),
    RunFile("folds/<i>/manifest.json", "size and SHA-256 of the fold's files; with it the fold counts", Owner.FOLD),
    RunFile(
        "folds/<i>/checkpoints/<checkpoint>/",
        "best and final: checkpoint.json and the model; resume_0 and resume_1 while the fold trains",
        Owner.FOLD,
    ),
    RunFile(
        "folds/<i>/predictions/<rows>_<checkpoint>.parquet",
        "what the best and the final checkpoint predict of the validation, blend and test rows",
        Owner.FOLD,
    ),
    RunFile("folds/<i>/bad_rows.jsonl", "pictures that could not be decoded (only if there are any)", Owner.FOLD),
    RunFile("folds/<i>/bad_rows_rank<r>.jsonl", "those that further workers met", Owner.FOLD, is_listed=False),
    RunFile("inputs/", "the checked rows, which the folds read", is_needed=True),
    RunFile("<name>-<checksum>.safetensors", "weights that all folds share (only if there are any)", Owner.FOLDS),
    RunFile(
        f"{MEMBERS}/<name>/",
        "a further member: a folder like this one, without submission and report (only if there are any)",
        needs="members",
    ),
    RunFile("made_data/", "the data that the project made (only without data.root)", put=Put.NEVER),
    RunFile("oof.parquet", "of each row that some fold validated: what the model predicted that did not train on it"),
    RunFile("masks/", "the predicted maps", of_kind=True),
    RunFile("overlays/", "the predicted maps over the pictures", of_kind=True),
    RunFile("disagreement/", "where the models differ", of_kind=True),
    RunFile("ensemble/test_predictions.parquet", "of each test row: what each model predicted, and all together"),
    RunFile("ensemble/honest_predictions.parquet", "the combination on the rows that score it", of_kind=True),
    RunFile(
        "sweep/leaderboard.csv",
        "the combinations that sweep.py tried, the best first (only if it was called)",
        needs="sweep",
    ),
    RunFile(
        "sweep/sweep.json", "the best of them, and what to believe of it (only if sweep.py was called)", needs="sweep"
    ),
    RunFile("sweep/<checksum>.npz", "the errors of a batch of them, so that none is tried again", is_listed=False),
    RunFile("submission_<method>.csv", "what the ensemble says of each test row"),
    RunFile("submission_<method>.json", "what was combined, and how"),
    RunFile("predictions/", "what predict.py predicted of new rows (only if it was called)", Owner.COMMAND, Put.AT_END),
    RunFile("summary.json", "scores, times, paths, versions"),
    RunFile("README.md", "scores and this list", is_listed=False),
    RunFile("report.html", "scores, figures, config and files on one page that needs no network"),
    RunFile("figures/", "the figures of report.html as PNG"),
    *(
        RunFile(f"analysis/{name}", what, Owner.COMMAND, Put.AT_END, is_pruned=True, is_listed=False)
        for name, what in {
            "training_analysis_<time>.png": "the curves of a training",
            "training_stats_<time>.png": "its statistics",
            "batch_analysis_<time>.png": "its batches",
            "training_comparison_<time>.png": "the curves of several runs",
            "training_report_<time>.txt": "the same in words",
        }.items()
    ),
    RunFile("analysis/", "what analyze.py made of the metrics (only if it was called)", Owner.COMMAND, Put.AT_END),
    RunFile("stop_request.json", "asks the folds to save where they are and end", is_listed=False),
    RunFile("tune.json", "space, search and results of a tuning", is_listed=False),
    RunFile("trials.csv", "all trials of a tuning", is_listed=False),
    RunFile(f"{TRIALS}/<name>/", "a trial of a tuning: the folder of a run", is_listed=False),
    RunFile("driver.lock", "held by the driver at work", put=Put.NEVER, is_listed=False),
    RunFile("driver.json", "the lease of the driver at work", put=Put.ALONE, is_listed=False),
    RunFile("launched.json", "sizes and checksums of what the workers need", put=Put.ALONE, is_listed=False),
    RunFile(f"{WORK}/", "locks, and what is just being put", put=Put.NEVER, is_listed=False),
    RunFile(".ray_train/", "of Ray Train while folds train", put=Put.NEVER, is_listed=False),
    RunFile(".ray_tune/", "of Ray Tune while sweep.py tries", put=Put.NEVER, is_listed=False),
)


@dataclass(frozen=True)
class FoundFile:
    """A name in the table.

    Attributes:
        file: its row.
        member: where the member is to whose files it belongs: `members/wide/`, or nothing.
        fold: the number of its fold, 0 where the name has none.
    """

    file: RunFile
    member: str
    fold: int


@lru_cache(maxsize=1 << 16)
def find_file(name: str) -> FoundFile | None:
    """What the table says of a file, by its path below the run's folder; None: nothing."""
    in_member = _IN_MEMBER.match(name)
    member = in_member[0] if in_member else ""
    for file in FILES:
        if match := file.pattern.fullmatch(name, len(member)):
            return FoundFile(file, member, int(match.groupdict().get("fold") or 0))
    return None


def check_name(name: str) -> str:
    """The name of a file, or of a folder in which files are, as the table has it.

    Raises:
        KeyError: the table does not know it.
    """
    if not any(file.name == name or file.name.startswith(f"{name.rstrip('/')}/") for file in FILES):
        raise KeyError(name)
    return name


def list_files(kind: Kind) -> list[RunFile]:
    """What its user is told of the files of a run of that kind."""
    return [
        replace(file, about=kind.files.get(file.name, file.about))
        for file in FILES
        if file.is_listed
        and (not file.of_kind or file.name in kind.files)
        and (file.needs is None or file.needs in kind.offers)
    ]
