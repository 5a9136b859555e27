"""The files of a run: what each holds, who writes it, what becomes of it. Every other list of them is made from this
table.

A further member's files have the same names below `members/<name>/`. No kind of predictions is known here by its name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from ensemble.kinds import Kind, Offer

MEMBERS, TRIALS = "members", "trials"
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
        name: below the run's folder. `<i>` stands for a fold's number, other words in brackets for whatever is there. A
            folder's ends with a slash. In a run without folds `fold_<i>/` is left out.
        about: what it holds.
        owner: who writes it.
        put: when it gets into object storage.
        is_needed: the driver never removes it and cannot make it anew.
        is_pruned: `analyze.py --keep-last` removes all but the newest.
        is_listed: in the run's README.md and docs/run-folder.md.
        is_shared: by the run and its members.
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
    is_shared: bool = False
    of_kind: bool = False
    needs: Offer | None = None

    def __get__(self, folder: Any, _: Any = None) -> Path:
        """Its path, as an attribute of a run's folder."""
        return Path(folder.run_root if self.is_shared else folder.root, self.name)

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


def _of_work(name: str, about: str, put: Put = Put.SOON) -> RunFile:
    """What the run's processes tell each other, and no result."""
    return RunFile(name, about, put=put, is_listed=False, is_shared=True)


def _of_fold(name: str, about: str, put: Put = Put.SOON, *, is_pruned: bool = False) -> RunFile:
    return RunFile(name, about, Owner.FOLD, put, is_pruned=is_pruned)


def _of_analysis(name: str, about: str) -> RunFile:
    return RunFile(name, about, Owner.COMMAND, Put.AT_END, is_pruned=True, is_listed=False)


class RunFiles:
    """The table; `RunFolder` inherits the paths. Of two rows that match a name the first counts. Rows that are no
    single path of a run have names with an underscore."""

    config = RunFile("config.json", "the whole config, resolved", is_needed=True)
    provenance = RunFile(
        "provenance.json", "command, package versions, fingerprint of the data, counts of leaks", is_needed=True
    )
    own_fold_plan = RunFile(
        "fold_plan.parquet",
        "id, repeat, fold, and the group where groups are kept together; fold is the fold that validates the row "
        "(-1: none, -2: the blend set); kept_out are folds that a row does not train, because of a gap in time",
        is_needed=True,
    )
    fold_info = RunFile("fold_info.csv", "rows that train and rows that validate in each fold")
    bad_rows = RunFile("bad_rows.csv", "rows that were dropped or repaired (only if there are any)")
    leaks = RunFile(
        "leaks.csv",
        "kind, fold, id, other_id, where: rows that share picture, text, group or id with a training row (only if "
        "there are any)",
    )
    events = RunFile("events.jsonl", "what happened when: folds launched, started, completed, failed", is_needed=True)

    _fold_record = _of_fold("metrics/fold_<i>.jsonl", "the metric record of a fold, one JSON object a line")
    ensemble_record = RunFile("metrics/ensemble.jsonl", "the metric record of all folds together", is_needed=True)
    submission_record = RunFile(
        "metrics/submission.jsonl", "the metric record of the ensemble and its submission", is_needed=True
    )
    trial_record = RunFile(
        "metrics/trial.jsonl", "the metric record of a tuning's trial", is_needed=True, is_listed=False
    )
    _evaluation_record = RunFile(
        "metrics/evaluation/<name>.jsonl",
        "the metric record of an evaluation or an ablation (only if one was made)",
        Owner.COMMAND,
        Put.AT_END,
    )
    _epochs = _of_fold(
        "metrics/fold_<i>/epoch_metrics_<time>.csv",
        "a line for each epoch, made from the record",
        Put.AT_END,
        is_pruned=True,
    )
    _batches = _of_fold(
        "metrics/fold_<i>/batch_metrics_<time>.csv",
        "a line for each batch (only with tracking.log_batch_metrics)",
        Put.AT_END,
        is_pruned=True,
    )
    _segment = RunFile(
        "metrics/segments/fold_<i>/<attempt>-<offset>",
        "lines of a fold's record, until it is whole",
        Owner.FOLD,
        Put.ALONE,
        is_listed=False,
    )

    wandb_ids = RunFile("wandb/ids.json", "the names of the W&B runs")
    wandb_stopped = RunFile("wandb/stopped.json", "on which pages somebody has pressed Stop", is_listed=False)
    wandb_uploaded = RunFile("wandb/uploaded.json", "rows that the server holds", Owner.PUBLISHER, is_listed=False)
    publisher_lock = RunFile(
        "wandb/publisher.lock", "held by the publisher at work", Owner.PUBLISHER, Put.NEVER, is_listed=False
    )
    publisher_processes = RunFile(
        "wandb/publisher.json", "the processes of its wandb-core", Owner.PUBLISHER, Put.NEVER, is_listed=False
    )
    wandb = RunFile("wandb/", "W&B's local files", Owner.PUBLISHER, Put.NEVER)
    tensorboard = RunFile(
        "tensorboard/",
        "TensorBoard's files, made from the records (only with tracking.tensorboard)",
        Owner.PUBLISHER,
        Put.NEVER,
    )

    _log = _of_fold("log/fold_<i>/training_<time>.log", "the log of a fold", Put.AT_END, is_pruned=True)
    _rank_log = _of_fold(
        "log/fold_<i>/rank<r>_<time>.log", "the logs of its further workers (only if there are any)", Put.AT_END
    )
    _stacks = _of_fold(
        "log/fold_<i>/stacks_attempt<n>_rank<r>.txt",
        "where a worker stood that made no progress (only if one did)",
        Put.AT_END,
    )
    ray_log = RunFile("log/ray.log", "what Ray printed", put=Put.AT_END)
    wandb_log = RunFile("log/wandb.log", "the log of the upload to W&B", Owner.PUBLISHER, Put.AT_END)

    _status = RunFile("folds/<i>/status.json", "how far a fold is: state, attempt, epoch, workers, error")
    _leave_request = RunFile("folds/<i>/leave_request.json", "asks an attempt to end", is_listed=False)
    _manifest = _of_fold("folds/<i>/manifest.json", "size and SHA-256 of the fold's files; with it the fold counts")
    _checkpoints = _of_fold(
        "folds/<i>/checkpoints/<checkpoint>/",
        "best and final: checkpoint.json and the model; resume_0 and resume_1 while the fold trains",
    )
    _predictions = _of_fold(
        "folds/<i>/predictions/<rows>_<checkpoint>.parquet",
        "what the best and the final checkpoint predict of the validation, blend and test rows",
    )
    _pictures = _of_fold(
        "folds/<i>/pictures/<name>_<step>.png", "pictures that the trainer has recorded (only if it has)"
    )
    _undecoded = _of_fold("folds/<i>/bad_rows.jsonl", "pictures that could not be decoded (only if there are any)")
    _undecoded_by_rank = _of_fold(
        "folds/<i>/bad_rows_rank<r>.jsonl", "those that further workers met (only if there are any)"
    )

    _inputs = RunFile("inputs/", "the checked rows, which the folds read", is_needed=True)
    _shared = RunFile(
        "<name>-<checksum>.safetensors", "weights that all folds share (only if there are any)", Owner.FOLDS
    )
    _members = RunFile(
        f"{MEMBERS}/<name>/",
        "a further member: a folder like this one, without submission and report (only if there are any)",
        needs="members",
    )
    _made_data = RunFile("made_data/", "the data that the project made (only without data.root)", put=Put.NEVER)

    oof = RunFile(
        "oof.parquet", "of each row that some fold validated: what the model predicted that did not train on it"
    )
    suspicious_rows = RunFile(
        "suspicious_rows.csv",
        "id, fold, suspicion, given, predicted: the rows whose truth is most likely wrong, the first of them first",
    )
    importance = RunFile(
        "importance.csv",
        "input, importance, low, high, metric, error, rows, repeats: by how much the error grows when an input is "
        "shuffled (only if explain.py was called)",
        Owner.COMMAND,
        Put.AT_END,
    )
    occlusion = RunFile(
        "occlusion/",
        "of the rows that are predicted worst and best the parts of their pictures that count (only if explain.py was "
        "called, of families that show pictures)",
        Owner.COMMAND,
        Put.AT_END,
    )
    masks = RunFile("masks/", "the predicted maps", of_kind=True)
    overlays = RunFile("overlays/", "the predicted maps over the pictures", of_kind=True)
    disagreement = RunFile("disagreement/", "where the models differ", of_kind=True)
    evaluation = RunFile("evaluation/", "what each model of a fold is worth", of_kind=True)
    samples = RunFile("samples/", "what the models have made", of_kind=True)
    test_predictions = RunFile(
        "ensemble/test_predictions.parquet", "of each test row: what each model predicted, and all together"
    )
    honest_predictions = RunFile(
        "ensemble/honest_predictions.parquet", "the combination on the rows that score it", of_kind=True
    )
    sweep_leaderboard = RunFile(
        "sweep/leaderboard.csv",
        "the combinations that sweep.py tried, the best first (only if it was called)",
        needs="sweep",
    )
    sweep_outcome = RunFile(
        "sweep/sweep.json", "the best of them, and what to believe of it (only if sweep.py was called)", needs="sweep"
    )
    _swept = RunFile("sweep/<checksum>.npz", "the errors of some of them, not to be tried again", is_listed=False)
    _submission = RunFile("submission_<method>.csv", "what the ensemble says of each test row")
    _submission_info = RunFile("submission_<method>.json", "what was combined, and how")
    predictions = RunFile(
        "predictions/", "what predict.py predicted of new rows (only if it was called)", Owner.COMMAND, Put.AT_END
    )
    generated = RunFile(
        "generated/", "what generate.py made with the models (only if it was called)", Owner.COMMAND, Put.AT_END
    )

    summary = RunFile("summary.json", "scores, times, paths, versions")
    readme = RunFile("README.md", "scores and this list", is_listed=False)
    report = RunFile("report.html", "scores, figures, config and files on one page that needs no network")
    figures = RunFile("figures/", "the figures of report.html as PNG")
    _analysis_curves = _of_analysis("analysis/training_analysis_<time>.png", "the curves of a training")
    _analysis_stats = _of_analysis("analysis/training_stats_<time>.png", "its statistics")
    _analysis_batches = _of_analysis("analysis/batch_analysis_<time>.png", "its batches")
    _analysis_report = _of_analysis("analysis/training_report_<time>.txt", "the same in words")
    _comparison = _of_analysis("analysis/training_comparison_<time>.png", "the curves of several runs")
    analysis = RunFile(
        "analysis/", "what analyze.py made of the metrics (only if it was called)", Owner.COMMAND, Put.AT_END
    )

    tune = RunFile("tune.json", "space, search and results of a tuning", is_listed=False)
    trials_csv = RunFile("trials.csv", "all trials of a tuning", is_listed=False)
    _trials = RunFile(f"{TRIALS}/<name>/", "a trial of a tuning: the folder of a run", is_listed=False)

    stop_request = _of_work("stop_request.json", "asks the folds to save where they are and end")
    driver_lock = _of_work("driver.lock", "held by the driver at work", Put.NEVER)
    _lease = _of_work("driver.json", "the lease of the driver at work, or the last one's number", Put.ALONE)
    _launched = _of_work("launched.json", "sizes and checksums of what the workers need", Put.ALONE)
    mirror_work = _of_work(".mirror/", "locks, and what is just being put", Put.NEVER)
    train_scratch = _of_work(".ray_train/", "of Ray Train while folds train", Put.NEVER)
    sweep_scratch = _of_work(".ray_tune/", "of Ray Tune while sweep.py tries", Put.NEVER)


FILES = tuple(file for file in vars(RunFiles).values() if isinstance(file, RunFile))
UNKNOWN = RunFile("", "what the table does not know, and leaves to the driver")


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
def find_file(name: str) -> FoundFile:
    """What the table says of a file, by its path below the run's folder."""
    in_member = _IN_MEMBER.match(name)
    member = in_member[0] if in_member else ""
    for file in FILES:
        if match := file.pattern.fullmatch(name, len(member)):
            return FoundFile(file, member, int(match.groupdict().get("fold") or 0))
    return FoundFile(UNKNOWN, member, 0)


def list_files(kind: Kind) -> list[RunFile]:
    """What its user is told of the files of a run of that kind."""
    return [
        replace(file, about=kind.files.get(file.name, file.about))
        for file in FILES
        if file.is_listed
        and (not file.of_kind or file.name in kind.files)
        and (file.needs is None or file.needs in kind.offers)
    ]
