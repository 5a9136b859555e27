"""Which W&B runs a run of ours has: one a fold, one for the coordination, one for the submission. Loads no wandb."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_jobs.config import RunConfig, to_dict
from ray_jobs.run_folder import RunFolder, read_json, write_json


@dataclass(frozen=True)
class WandbRun:
    """A W&B run.

    Attributes:
        key: what people know it by, also the name of its record: `fold_0`, `ensemble`, `submission`.
        id: W&B's identifier, the same for as long as the run's folder exists.
        name, group, job_type: as W&B shows it.
        record: the metric record that it shows.
        config: the whole config, and the fold's number.
    """

    key: str
    id: str
    name: str
    group: str
    job_type: str
    record: Path
    config: dict[str, Any]


def list_wandb_runs(folder: RunFolder, config: RunConfig) -> list[WandbRun]:
    """The W&B runs of a run."""
    group = config.tracking.name or config.run.name or folder.root.name
    mark = _read_mark(folder)
    keys = [(f"fold_{fold}", f"fold{fold}", f"fold_{fold}") for fold in range(config.folds.count)]
    keys += [("ensemble", "ensemble", "ensemble_coordination"), ("submission", "submission", "ensemble_submission")]
    return [
        WandbRun(
            key=key,
            id=f"{mark}-{ending}",
            name=f"{group}_{ending}",
            group=group,
            job_type=job_type,
            record=folder.metrics / f"{key}.jsonl",
            config=to_dict(config) | ({"fold": int(key[5:])} if key.startswith("fold_") else {}),
        )
        for key, ending, job_type in keys
    ]


def renew_ids(folder: RunFolder) -> None:
    """Gives the run new W&B identifiers: W&B never takes the id of a deleted run again."""
    write_json(_mark_file(folder), {"mark": secrets.token_hex(4)})
    forget_uploaded(folder)


def read_uploaded(folder: RunFolder, config: RunConfig) -> dict[str, int]:
    """Rows of each W&B run that its server was seen to hold, by the run's key."""
    noted = read_json(_uploaded_file(folder), default={})
    return noted["rows"] if _destination(config).items() <= noted.items() else {}


def note_uploaded(folder: RunFolder, config: RunConfig, rows: dict[str, int]) -> None:
    """Writes down what the server holds; -1 where it does not say."""
    write_json(_uploaded_file(folder), {**_destination(config), "rows": {k: n for k, n in rows.items() if n >= 0}})


def forget_uploaded(folder: RunFolder) -> None:
    """Makes the next publisher ask the server for everything."""
    _uploaded_file(folder).unlink(missing_ok=True)


def _destination(config: RunConfig) -> dict[str, Any]:
    server = os.environ.get("WANDB_BASE_URL", "")
    return {"server": server, "entity": config.tracking.entity, "project": config.tracking.project}


def _uploaded_file(folder: RunFolder) -> Path:
    return folder.wandb / "uploaded.json"


def _read_mark(folder: RunFolder) -> str:
    """The common beginning of the ids, random: another run of the same name, or of another user, has others."""
    if not _mark_file(folder).exists():
        renew_ids(folder)
    return read_json(_mark_file(folder))["mark"]


def _mark_file(folder: RunFolder) -> Path:
    return folder.wandb / "ids.json"
