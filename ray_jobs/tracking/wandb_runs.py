"""Which W&B runs a run of ours has: one a fold, one for the coordination of each member's folds, one for the
submission. A tuning has one a trial. Loads no wandb."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ray_jobs.config.run import MAIN, RunConfig, to_dict
from ray_jobs.runs.files import read_json, write_json
from ray_jobs.runs.folder import FoldFolder, RunFolder
from ray_jobs.runs.json_files.summary import Summary, find_summary
from ray_jobs.runs.location import find_uri
from ray_jobs.runs.record import read_lines


@dataclass(frozen=True)
class WandbRun:
    """A W&B run.

    Attributes:
        key: what people know it by: `fold_0`, `ensemble`, `submission`; of a further member `wide/fold_0`,
            `wide/ensemble`; of a tuning `trial_000`; an evaluation's is its name.
        id: W&B's identifier, the same for as long as the run's folder exists.
        name, group, job_type: as W&B shows it.
        record: the metric record that it shows.
        source: the fold or trial whose record it is, if it is one's.
        config: the member's whole config, its name and the fold's number; or the trial's, and its name.
    """

    key: str
    id: str
    name: str
    group: str
    job_type: str
    record: Path
    source: FoldFolder | TrialRecord | None
    config: dict[str, Any]


@dataclass(frozen=True)
class TrialRecord:
    """The folder of a tuning's trial, as W&B sees it."""

    folder: RunFolder

    def is_complete(self) -> bool:
        """Whether nothing more comes: the trial has ended, which its summary says before its record does."""
        return (find_summary(self.folder) or Summary()).trial is not None and "tune/state" in _read_last(self.record)

    @property
    def record(self) -> Path:
        """The trial's metric record."""
        return self.folder.trial_record


def list_wandb_runs(folder: RunFolder, config: RunConfig, known: Collection[str] = ()) -> list[WandbRun]:
    """The W&B runs of a run, or of a tuning's trials that have a record.

    Args:
        folder: the run.
        config: its config.
        known: keys of W&B runs to leave out.
    """
    if not folder.wandb_ids.exists():
        settle_ids(folder, config)
    noted = read_json(folder.wandb_ids)
    mark, name = noted["mark"], config.tracking.name or config.run.name or folder.root.name
    group = name.replace("{time}", noted.get("time", noted["mark"]))
    if folder.is_tuning():
        return [_describe_trial(own, mark, group) for own in folder.list_trials() if own.root.name not in known]
    runs = []
    for member in config.member_names:
        own = folder.of_member(member)
        values = to_dict(config if member == MAIN else own.read_config()) | {"member": member}
        before, prefix = ("", "") if member == MAIN else (f"{member}/", f"{member}_")
        kinds: list[tuple[str, str, str, int | None]] = [
            (f"fold_{fold}", f"fold{fold}", f"fold_{fold}", fold) for fold in range(config.folds.count)
        ]
        kinds += [("ensemble", "ensemble", "ensemble_coordination", None)]
        if member == MAIN:
            kinds += [("submission", "submission", "ensemble_submission", None)]
        runs += [
            WandbRun(
                key=before + key,
                id=f"{mark}-{prefix}{ending}",
                name=f"{group}_{prefix}{ending}",
                group=group,
                job_type=job_type,
                record=own.metrics / f"{key}.jsonl",  # the names that RunFolder has for them
                source=None if fold is None else own.fold(fold),
                config=values if fold is None else values | {"fold": fold},
            )
            for key, ending, job_type, fold in kinds
        ]
    runs += [_describe_evaluation(record, config, mark, group) for record in list_evaluations(folder)]
    return [run for run in runs if run.key not in known]


def list_evaluations(folder: RunFolder) -> list[Path]:
    """The metric records of the evaluations of a run's models, in the order of their names."""
    return sorted(folder.evaluation_records.glob("*.jsonl"))


def _describe_evaluation(record: Path, config: RunConfig, mark: str, group: str) -> WandbRun:
    name = record.stem
    kind = name.partition("-")[0]  # evaluation, ablation
    values = to_dict(config) | {"evaluation": name}
    return WandbRun(name, f"{mark}-{name}", name, group, kind, record, None, values)


def _describe_trial(own: RunFolder, mark: str, group: str) -> WandbRun:
    name, source = own.root.name, TrialRecord(own)
    values = to_dict(own.read_config()) | {"trial": name}
    return WandbRun(name, f"{mark}-{name}", f"{group}_{name}", group, "trial", source.record, source, values)


def _read_last(record: Path) -> dict[str, Any]:
    return (read_lines(record) or [{}])[-1]


def settle_ids(folder: RunFolder, config: RunConfig) -> None:
    """Makes sure that the run has W&B identifiers of its own. It gets new ones when its project or entity changed (its
    rows are then sent there from the beginning), and when its folder is a copy of another that is still there."""
    noted = read_json(folder.wandb_ids, default={})
    place = _place(config)
    here = _describe_root(folder)
    original = noted.get("root", here)
    is_copy = original != here and read_json(RunFolder(original).wandb_ids, default={}) == noted
    if not noted or is_copy or noted["place"] != place:
        renew_ids(folder, config)
    elif original != here:  # moved
        write_json(folder.wandb_ids, noted | {"root": here})


def _describe_root(folder: RunFolder) -> str:
    """Where the run is; one in object storage is the same in whatever folder it is worked on."""
    return find_uri(folder) or str(folder.root)


def renew_ids(folder: RunFolder, config: RunConfig) -> None:
    """Gives the run new W&B identifiers: W&B never takes the id of a deleted run again."""
    ids = {"mark": secrets.token_hex(4), "time": f"{datetime.now():%Y%m%d-%H%M%S}"}
    write_json(folder.wandb_ids, ids | {"root": _describe_root(folder), "place": _place(config)})
    forget_uploaded(folder)


def read_uploaded(folder: RunFolder) -> dict[str, int]:
    """Rows of each W&B run that its server was seen to hold, by the run's key."""
    noted = read_json(folder.wandb_uploaded, default={})
    return noted["rows"] if noted.get("server") == _server() else {}


def note_uploaded(folder: RunFolder, rows: dict[str, int]) -> None:
    """Writes down what the server holds; negative where it does not say."""
    known = {key: number for key, number in rows.items() if number >= 0}
    write_json(folder.wandb_uploaded, {"server": _server(), "rows": known})


def forget_uploaded(folder: RunFolder) -> None:
    """Makes the next publisher ask the server for everything."""
    folder.wandb_uploaded.unlink(missing_ok=True)


def without_password(text: str) -> str:
    """A text whose addresses have lost user and password: WANDB_BASE_URL may hold those of a proxy."""
    return re.sub(r'://[^/@\s"]*@', "://", text)


def _server() -> str:
    """The server's address as the environment gives it."""
    return without_password(os.environ.get("WANDB_BASE_URL", ""))


def _place(config: RunConfig) -> dict[str, Any]:
    return {"entity": config.tracking.entity, "project": config.tracking.project}
