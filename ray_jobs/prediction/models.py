"""The models of a finished run, as a later job uses them: whether they are whole, reading them, and how their
predictions become one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble.run import Combiner
from ray_jobs.config.json_fields import to_json
from ray_jobs.config.run import MAIN, RunConfig
from ray_jobs.errors import RunError, RunFolderError
from ray_jobs.results.checks import check_finished
from ray_jobs.results.run_files import (
    describe_run,
    list_blend_ids,
    list_combined_folds,
    score_folds,
    with_one_model,
)
from ray_jobs.runs.checkpoints import open_checkpoint, read_description
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.provenance import read_provenance
from ray_jobs.runs.json_files.summary import Scores, Summary, find_summary
from trainers.interface import TrainedModel, load_evaluate_module
from trainers.storage.whole_files import sha256_file

if TYPE_CHECKING:
    from torch import Tensor

_SHARED_NAME = re.compile(r"[a-z_]+-[0-9a-f]{12}\.safetensors")


def settle_run(folder: RunFolder, config: RunConfig) -> Combiner:
    """The run's combination with the weights that its submission has.

    Args:
        folder: the run; what is combined passes `refuse_unusable`.
        config: its config.
    """
    return config.kind.build_combiner(describe_run(folder, config), lambda: _read_scores(folder, config))


def settle_soup(folder: RunFolder, config: RunConfig) -> Combiner:
    """What makes predictions of the mean of the fold models' weights, as of one model.

    Args:
        folder, config: the run, as `as_soup` has it.
    """
    run = describe_run(folder, config)
    first = {MAIN: run.members[MAIN][:1]}
    return config.kind.build_combiner(replace(run, members=first, num_folds=1, fold_numbers=run.folds[:1]), dict)


def as_soup(folder: RunFolder, config: RunConfig) -> RunConfig:
    """The config of a run by which the mean of its own recipe's fold models predicts.

    Raises:
        RunError: there is no such mean.
    """
    if not getattr(config.trainer, "BEGINS_ALIKE", False):
        raise RunError(
            f"--soup: the folds of {folder.root.name}, a run of {config.family}, began with different weights or with "
            "unknown ones, so that the mean of what they came to is no model. Leave it out, or train one model on all "
            "rows (refit.py)"
        )
    own = with_one_model(config)
    if (number := len(list_combined_folds(folder, own))) < 2:
        raise RunError(f"--soup: {folder.root.name} has {number} fold models to combine: expected two or more")
    return own


def describe_soup(folder: RunFolder, config: RunConfig) -> str:
    """What the mean of the weights is, and what is known of it, in sentences."""
    number, num_unseen = len(list_combined_folds(folder, config)), len(list_blend_ids(folder))
    text = f"one model, the mean of the weights of {number} fold models ({config.ensemble.checkpoint} checkpoints)"
    if load_evaluate_module(config.family) is None:
        return f"{text}. Nothing has scored it"
    command = f"evaluate.py {folder.root.name}"
    if not num_unseen:
        return f"{text}. No training row scores it, as each has trained a fold: `{command} --data FILE` does, on others"
    return f"{text}. `{command} --blend` scores it on {num_unseen:,} rows that no fold has seen"


def _read_scores(folder: RunFolder, config: RunConfig) -> dict[str, Any]:
    """The scores of each member that is combined, as kinds read them: the run's own, if it was scored by the metric and
    as now, else anew."""
    summary, folds = find_summary(folder) or Summary(), list_combined_folds(folder, config)
    stored: Mapping[str, Scores | None] = (
        (summary.stage.members or {MAIN: summary.stage.scores}) if _has_metric(summary, config) else {}
    )
    known = {
        name: scores for name, scores in stored.items() if scores and [row.fold for row in scores.folds] == list(folds)
    }
    return {
        name: to_json(known.get(name) or score_folds(folder.of_member(name), config, folds)[0])
        for name in config.combined_members
    }


def _has_metric(summary: Summary, config: RunConfig) -> bool:
    return bool(summary.ensemble.get("metric") == config.ensemble.metric)


def refuse_unusable(folder: RunFolder, config: RunConfig) -> None:
    """Refuses a run whose models cannot predict.

    Raises:
        IncompleteRunError: a fold is not finished.
        RunFolderError: a file is damaged.
        RunError: a member is only known by its predictions.
    """
    if config.ensemble.external is not None:
        raise RunError(
            f"ensemble.external={config.ensemble.external}: expected none, as members from a file cannot predict new "
            "rows; set ensemble.external=none to combine the run's own members"
        )
    members = [folder.of_member(name) for name in config.combined_members]
    check_finished(folder, config, config.combined_members)
    command, name = read_provenance(folder).command, config.ensemble.checkpoint
    shared: set[tuple[Path, str]] = set()
    for own in members:
        for fold in list_combined_folds(folder, config):
            if damaged := own.fold(fold).find_damage(f"checkpoints/{name}/"):
                what = f"trains {own.describe_fold(fold)} again, with the same bits"
                raise RunFolderError(f"{damaged[0]} is missing or damaged; `{command}` {what}")
            if found := _find_shared(own, read_description(own.fold(fold).checkpoint(name))):
                shared.add(found)
    for path, checksum in shared:
        if not path.is_file() or sha256_file(path) != checksum:
            raise RunFolderError(f"{path} is missing or damaged; `{command}` makes it again, with the same bits")


def read_models(folder: RunFolder, config: RunConfig, folds: Sequence[int]) -> list[TrainedModel]:
    """The models of these folds of the members that are combined, those of a member one after the other.

    Raises:
        RunFolderError: a file is missing or its checksum does not match.
    """
    from safetensors.torch import load

    shared: dict[str, dict[str, Tensor]] = {"": {}}
    models = []
    for member in config.combined_members:
        own = folder.of_member(member)
        for fold in folds:
            checkpoint = open_checkpoint(own.fold(fold).checkpoint(config.ensemble.checkpoint))
            found = _find_shared(own, checkpoint.description)
            if found and found[1] not in shared:
                shared[found[1]] = load(_read_shared(*found))
            tensors = {name: one for part in checkpoint.read_tensors() for name, one in load(part).items()}
            beside = (shared[found[1] if found else ""], checkpoint.read_files())
            name = f"fold_{fold}" if member == MAIN else f"{member}_fold_{fold}"
            models.append(TrainedModel(checkpoint.description, tensors, *beside, name))
    return models


def _find_shared(member: RunFolder, description: dict[str, Any]) -> tuple[Path, str] | None:
    """Where the tensors are that a checkpoint shares with others, and their checksum; None: nowhere. Another file than
    one in the member's folder is never read, whatever it names."""
    place = description.get("shared_tensors")
    if not place:
        return None
    if not _SHARED_NAME.fullmatch(str(place.get("path"))):
        raise RunFolderError(
            f"a checkpoint of {member.root} shares tensors at {place!r:.200}: expected <name>-<checksum>.safetensors"
        )
    return member.root / place["path"], str(place.get("sha256"))


def _read_shared(path: Path, checksum: str) -> bytes:
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != checksum:
        raise RunFolderError(f"{path} is missing or damaged: its checksum is not the one in checkpoint.json")
    return content
